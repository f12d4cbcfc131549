"""A hard reboot is Nova's repair, and a stop gives the guest its time."""

from __future__ import annotations

import os
import signal
import time

from aio import kernel
from tests.functional.base import ServerTestCase, wait_for


class RepairTest(ServerTestCase):
    def lxc(self, *command: str) -> str:
        return self._machine.lxd.lxc(*command[:2], "--project", self._project, *command[2:])

    def repair(self, server: dict) -> None:
        """Reboot hard, and check that the server has all that it should have."""
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        instance = self.lxd_instance(server)
        (profile,) = instance["profiles"]
        assert profile.startswith("flavor-")
        assert instance["expanded_config"]["limits.memory"] == "64MiB"
        assert instance["expanded_devices"]["root"]["size"] == "1GiB"
        self.assert_clean()
        (port,) = self.neutron.ports_of(server["id"])
        assert self.guest(server, "cat", "/sys/class/net/eth0/address") == port["mac_address"]

    def test_what_an_operator_changed(self):
        server = self.boot()
        name = self.name_of(server)
        (profile,) = self.lxd_instance(server)["profiles"]
        (port,) = self.neutron.ports_of(server["id"])
        tap = f"tap{port['id'][:11]}"

        self.lxc("profile", "set", profile, "limits.memory", "32MiB")
        self.lxc("config", "set", name, "limits.memory", "48MiB")
        (nic,) = [k for k, v in self.lxd_instance(server)["devices"].items() if v["type"] == "nic"]
        self._machine.lxd.lxc("config", "device", "remove", "--project", self._project, name, nic)
        self.repair(server)

        kernel.delete_link(tap)
        self.repair(server)

        root = ("root", "disk", "path=/", "pool=default")
        add = ("config", "device", "add", "--project", self._project, name, *root)
        self._machine.lxd.lxc(*add)
        self.lxc("profile", "remove", name, profile)
        self.lxc("profile", "delete", profile)
        self.repair(server)

    def test_a_server_that_an_operator_switched(self):
        server = self.boot()
        name = self.name_of(server)
        self._machine.lxd.lxc("pause", "--project", self._project, name)
        self.repair(server)
        self._machine.lxd.lxc("stop", "--force", "--project", self._project, name)
        self.wait_status(server, "SHUTOFF")
        self.repair(server)


class ShutdownTest(ServerTestCase):
    def deafen(self, server: dict) -> None:
        """Stop the guest's first process, so that it hears nothing."""
        path = f"/1.0/instances/{self.name_of(server)}/state?project={self._project}"
        os.kill(self._machine.get(path)["pid"], signal.SIGSTOP)

    def console(self, server: dict) -> str:
        action = {"os-getConsoleOutput": {}}
        return self.api.post_server_action(server["id"], action)["output"]

    def test_a_guest_gets_the_time_that_its_image_says(self):
        self.flags(shutdown_timeout=100)
        image = self.image(self._images.busybox, properties={"os_shutdown_timeout": "3"})
        server = self.boot(image=image, networks="none")
        self.deafen(server)
        start = time.monotonic()
        self.act(server, {"os-stop": None}, "SHUTOFF")
        assert 3 <= time.monotonic() - start < 50

        self.act(server, {"os-start": None}, "ACTIVE")
        wait_for(lambda: "no network card" in self.console(server), "the guest to be up")
        self.act(server, {"os-stop": None}, "SHUTOFF")
        assert "nova-lxd: poweroff" in self.console(server)

        self.act(server, {"os-start": None}, "ACTIVE")
        first = self.boot_time(server)
        self.deafen(server)
        self.act(server, {"reboot": {"type": "SOFT"}}, "ACTIVE")
        assert self.boot_time(server) > first
