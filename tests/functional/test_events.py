"""What happens to servers outside Nova, and how soon Nova knows."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from unittest import mock

from nova_lxd.virt import event
from tests.functional.base import ServerTestCase, wait_for

SOON = 60
"""Seconds; a healthy machine needs two."""


class EventsTest(ServerTestCase):
    def lxc(self, *command: str) -> None:
        verb, *rest = command
        self._machine.lxd.lxc(verb, "--project", self._project, *rest)

    def wait_seen(self, server: dict, status: str) -> float:
        begun = time.monotonic()
        self.wait_status(server, status)
        return time.monotonic() - begun

    def test_a_stop_outside_nova_is_seen(self):
        server = self.boot()
        self.lxc("stop", "--force", self.name_of(server))
        assert self.wait_seen(server, "SHUTOFF") < SOON
        self.act(server, {"os-start": None}, "ACTIVE")
        self.guest(server, "poweroff", "-f")
        assert self.wait_seen(server, "SHUTOFF") < SOON
        self.assert_clean()

    def test_a_reboot_from_inside_changes_nothing(self):
        server, other = self.boot(), self.boot()
        first = self.boot_time(server)
        self.guest(server, "reboot", "-f")
        wait_for(lambda: self._booted_again(server, first), "the guest to boot again")
        # The other one's stop comes after it, and is known when the reboot must have been judged.
        self.guest(other, "poweroff", "-f")
        self.wait_seen(other, "SHUTOFF")
        assert self.wait_status(server, "ACTIVE")["OS-EXT-STS:power_state"] == 1
        actions = [action["action"] for action in self.api.get_instance_actions(server["id"])]
        assert "stop" not in actions
        self.assert_clean()

    def _booted_again(self, server: dict, first: int) -> bool:
        try:
            return self.boot_time(server) > first
        except (OSError, IndexError, KeyError):
            return False

    def test_events_outlive_lxd(self):
        server = self.boot()
        self.expect_log(r".*LXD")
        self._machine.lxd.stop()
        self._machine.lxd.start(120)
        assert self.wait_status(server, "ACTIVE")
        self.lxc("stop", "--force", self.name_of(server))
        assert self.wait_seen(server, "SHUTOFF") < SOON

    # Longer than LXD's pings are apart: they must not put the look off.
    @mock.patch.object(event, "_ROUND", 12.0)
    def test_a_killed_monitor_is_seen(self):
        server = self.boot()
        os.kill(self._monitor(server), signal.SIGKILL)
        assert self.wait_seen(server, "SHUTOFF") < SOON

    def _monitor(self, server: dict) -> int:
        """Find the process of liblxc that watches the server's container."""
        words = f"[lxc monitor] {self._machine.lxd.folder}".encode()
        name = self.name_of(server).encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(words) and self._project.encode() in command and name in command:
                return int(folder.name)
        raise AssertionError(f"no monitor of {name!r}")
