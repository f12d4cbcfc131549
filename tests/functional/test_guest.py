"""What is done inside servers: passwords, and what they are seen to use."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import nova.conf
import pytest
from nova.tests.functional.api import client as api_client

from nova_lxd import exception
from nova_lxd.virt.session import Session, Timeouts
from tests.functional.base import ServerTestCase, wait_for

CONF = nova.conf.CONF
CANARY = "s3cret-canary-4711"
_RPC = r".*Exception during message handling"
"""What Nova's message bus logs of every error that an API request gets for an answer."""


class _Unhurried(Session):
    """Lets what it has started come to its end before it goes on."""

    def open_websocket(self, *args: Any) -> Any:
        time.sleep(0.5)
        return super().open_websocket(*args)


class PasswordTest(ServerTestCase):
    def test_a_password_is_set(self):
        server = self.boot()
        before = self.guest(server, "cat", "/etc/shadow")
        self.api.post_server_action(server["id"], {"changePassword": {"adminPass": CANARY}})
        wait_for(lambda: self.guest(server, "cat", "/etc/shadow") != before, "the new password")
        self.wait_status(server, "ACTIVE")
        assert re.search(r"^root:\$\d", self.guest(server, "cat", "/etc/shadow"), re.MULTILINE)
        assert CANARY not in self.stdlog.logger.output
        operations = self._machine.get(f"/1.0/operations?recursion=1&project={self._project}")
        assert CANARY not in str(operations)
        for file in Path(CONF.instances_path).rglob("*"):
            assert file.is_dir() or CANARY.encode() not in file.read_bytes()

    def test_a_guest_without_chpasswd(self):
        self.expect_log(_RPC)
        server = self.boot()
        self.guest(server, "sh", "-c", "rm $(which chpasswd)")
        with pytest.raises(api_client.OpenStackApiException, match="chpasswd") as caught:
            self.api.post_server_action(server["id"], {"changePassword": {"adminPass": CANARY}})
        assert caught.value.response.status_code == 409
        assert self.wait_status(server, "ACTIVE")

    def test_a_stopped_server_has_no_password_to_set(self):
        server = self.boot()
        self.act(server, {"os-stop": None}, "SHUTOFF")
        with pytest.raises(api_client.OpenStackApiException, match="409"):
            self.api.post_server_action(server["id"], {"changePassword": {"adminPass": CANARY}})

    def test_hostile_commands_are_bounded(self):
        server = self.boot()
        name = self.name_of(server)
        socket = str(self._machine.lxd.socket)
        session = Session(socket, self._project, Timeouts(60, 60, 60))
        flood = session.run(name, ["sh", "-c", "yes | head -c 50000000 >&2; cat"], b"x", 120)
        assert flood.status == 0
        assert len(flood.said) <= 4096
        with pytest.raises(exception.DeadlineExceeded):
            session.run(name, ["sleep", "1000"], b"", 1)
        wait_for(lambda: not self._running_operations(), "LXD to end the command")
        with pytest.raises(exception.GuestCannot):
            session.run(name, ["no-such-command"], b"", 30)
        assert session.run(name, ["cat", "/dev/null"], b"", 30).status == 0

    def test_a_command_is_done_before_its_next_end_could_be_opened(self):
        session = _Unhurried(str(self._machine.lxd.socket), self._project, Timeouts(60, 60, 60))
        name = self.name_of(self.boot())
        assert session.run(name, ["true"], b"", 30).status == 0

    def _running_operations(self) -> list:
        listed = self._machine.get(f"/1.0/operations?recursion=1&project={self._project}")
        return [item for item in listed.get("running", []) if "xecut" in item["description"]]


class DiagnosticsTest(ServerTestCase):
    def test_both_forms(self):
        self.flags(response_validation="error", group="api")
        server = self.boot(flavor=self.flavor(memory_mb=96, vcpus=2))
        (port,) = self.neutron.ports_of(server["id"])
        seen = self.api.get_server_diagnostics(server["id"])
        assert (seen["driver"], seen["hypervisor"], seen["state"]) == ("libvirt", "lxd", "running")
        assert (seen["num_cpus"], seen["num_nics"], seen["num_disks"]) == (2, 1, 1)
        assert seen["memory_details"]["maximum"] == 96
        assert 0 < seen["memory_details"]["used"] < 96
        assert seen["nic_details"][0]["mac_address"] == port["mac_address"]
        assert seen["config_drive"] is False
        self.api.microversion = "2.47"
        older = self.api.get_server_diagnostics(server["id"])
        assert older["cpu0_time"] > 0
        assert older["memory"] == 96 * 1024
        assert f"tap{port['id'][:11]}_rx" in older
        self.api.microversion = "latest"
        self.act(server, {"os-stop": None}, "SHUTOFF")
        self.expect_log(_RPC)
        with pytest.raises(api_client.OpenStackApiException, match="409"):
            self.api.get_server_diagnostics(server["id"])
