"""Other flavors for servers that exist."""

from __future__ import annotations

from unittest import mock

import fixtures
from nova.cmd import manage

from nova_lxd import exception
from tests.functional.base import ServerTestCase, wait_for

_SESSION = "nova_lxd.virt.session.Session"


class ResizeTest(ServerTestCase):
    def setUp(self):
        super().setUp()
        self.flags(allow_resize_to_same_host=True)
        self.small = self.flavor(memory_mb=64, vcpus=1, disk=1)
        self.large = self.flavor(memory_mb=96, vcpus=2, disk=2)

    def resize(self, server: dict, flavor: str, status: str = "VERIFY_RESIZE") -> dict:
        return self.act(server, {"resize": {"flavorRef": flavor}}, status)

    def wait_refused(self, server: dict, reason: str) -> None:
        """Wait until the resize is given up and check what the tenant reads."""

        def fault():
            return self.api.get_server(server["id"]).get("fault") or self._event_details(server)

        wait_for(fault, "the resize to be refused")
        self.wait_status(server, "ACTIVE")
        assert reason in str(fault())

    def _event_details(self, server: dict) -> str:
        for action in self.api.get_instance_actions(server["id"]):
            if action["action"] == "resize":
                found = self.api.api_get(
                    f"/servers/{server['id']}/os-instance-actions/{action['request_id']}"
                ).body["instanceAction"]["events"]
                return "".join(event.get("details") or "" for event in found)
        return ""

    def snapshots(self, server: dict) -> list:
        path = f"/1.0/instances/{self.name_of(server)}/snapshots?project={self._project}"
        return self._machine.get(path)

    def limits(self, server: dict) -> tuple[str, str, str]:
        instance = self.lxd_instance(server)
        config, root = instance["expanded_config"], instance["expanded_devices"]["root"]
        return config["limits.memory"], config["limits.cpu"], root["size"]

    def test_a_larger_flavor_is_confirmed(self):
        server = self.boot(flavor=self.small)
        address = self.guest(server, "cat", "/sys/class/net/eth0/address")
        self.guest(server, "sh", "-c", "echo kept > /root/before")
        server = self.resize(server, self.large)
        assert self.limits(server) == ("96MiB", "2", "2GiB")
        assert self.guest(server, "cat", "/root/before") == "kept"
        assert self.guest(server, "cat", "/sys/class/net/eth0/address") == address
        self.act(server, {"confirmResize": None}, "ACTIVE")
        assert self.snapshots(server) == []
        self.assert_clean()

    def test_a_resize_is_reverted(self):
        server = self.boot(flavor=self.small)
        self.guest(server, "sh", "-c", "echo old > /root/file")
        server = self.resize(server, self.large)
        # More than the old disk holds: it must be possible to go back all the same.
        self.guest(server, "sh", "-c", "echo new > /root/file")
        self.guest(server, "dd", "if=/dev/zero", "of=/root/much", "bs=1M", "count=1100")
        server = self.act(server, {"revertResize": None}, "ACTIVE")
        assert self.limits(server) == ("64MiB", "1", "1GiB")
        assert self.guest(server, "cat", "/root/file") == "old"
        assert self.snapshots(server) == []
        full = "dd if=/dev/zero of=/root/much bs=1M count=1100 2>&1 || true"
        assert "quota" in self.guest(server, "sh", "-c", full).lower()
        self.guest(server, "rm", "/root/much")
        self.assert_clean()

    def test_a_revert_that_fails_is_completed_by_a_hard_reboot(self):
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[oslo_messaging\.rpc\.server\]")
        server = self.boot(flavor=self.small)
        self.guest(server, "sh", "-c", "echo old > /root/file; sync")
        server = self.resize(server, self.large)
        self.guest(server, "sh", "-c", "echo new > /root/file; sync")

        def refuse(*args):
            raise exception.LXDError("no snapshots today")

        with fixtures.MonkeyPatch(f"{_SESSION}.restore_snapshot", refuse):
            self.act(server, {"revertResize": None}, "ERROR")
        self.restart_compute()
        server = self.mend(server)
        assert self.limits(server) == ("64MiB", "1", "1GiB")
        assert self.guest(server, "cat", "/root/file") == "old"
        assert self.snapshots(server) == []
        # What is written from now on is never taken for what was to be reverted.
        self.guest(server, "sh", "-c", "echo newer > /root/file; sync")
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        assert self.guest(server, "cat", "/root/file") == "newer"
        self.heal_allocations(server)

    def test_a_confirmation_that_fails_is_forgotten_by_a_hard_reboot(self):
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[oslo_messaging\.rpc\.server\]")
        server = self.resize(self.boot(flavor=self.small), self.large)

        def refuse(*args):
            raise exception.LXDError("no snapshots today")

        with fixtures.MonkeyPatch(f"{_SESSION}.delete_snapshot", refuse):
            self.act(server, {"confirmResize": None}, "ERROR")
        server = self.mend(server)
        assert self.snapshots(server) == []
        self.heal_allocations(server)

    def mend(self, server: dict) -> dict:
        """Bring a server out of ERROR."""
        self.api.post_server_action(server["id"], {"reboot": {"type": "HARD"}})

        def runs() -> bool:
            return self.api.get_server(server["id"])["status"] == "ACTIVE"

        wait_for(runs, "the server to run")
        return self.api.get_server(server["id"])

    def heal_allocations(self, server: dict) -> None:
        """Do what Nova's operators do after a move that failed."""
        for move in self.admin_api.get_migrations():
            self.placement.delete(f"/allocations/{move['uuid']}", version="1.28")
        manage.PlacementCommands().heal_allocations(instance_uuid=server["id"], force=True)
        self.assert_clean()

    def test_a_smaller_disk(self):
        # Nova's API refuses to shrink a disk that has a size; one without gets to the driver.
        self.expect_log(r".*(Setting instance|Exception during message handling)")
        server = self.boot(flavor=self.flavor(disk=0))
        first = self.boot_time(server)
        self.guest(server, "dd", "if=/dev/zero", "of=/root/much", "bs=1M", "count=1100")
        self.guest(server, "sync")
        self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.small}})
        self.wait_refused(server, "are in use")
        assert self.boot_time(server) == first
        self.guest(server, "rm", "/root/much")
        self.guest(server, "sync")
        wait_for(lambda: self.used(server) < 2**30, "the pool to count anew")
        server = self.resize(server, self.small)
        assert self.limits(server) == ("64MiB", "1", "1GiB")
        self.act(server, {"revertResize": None}, "ACTIVE")
        assert "size" not in self.lxd_instance(server)["expanded_devices"]["root"]
        self.assert_clean()

    def test_a_guest_that_writes_after_the_check(self):
        self.expect_log(r".*(Setting instance|Exception during message handling)")
        server = self.boot(flavor=self.flavor(disk=0))
        first = self.boot_time(server)
        power = self.compute.driver._power
        off = power.off

        def write_and_stop(*args):
            self.guest(server, "dd", "if=/dev/zero", "of=/root/much", "bs=1M", "count=1100")
            self.guest(server, "sync")
            off(*args)

        with mock.patch.object(power, "off", write_and_stop):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.small}})
            self.wait_refused(server, "are in use")
        assert self.boot_time(server) > first
        assert self.snapshots(server) == []
        assert "size" not in self.lxd_instance(server)["expanded_devices"]["root"]
        self.assert_clean()

    def used(self, server: dict) -> int:
        path = f"/1.0/instances/{self.name_of(server)}/state?project={self._project}"
        return self._machine.get(path)["disk"]["root"]["usage"]

    def test_a_stopped_server_stays_stopped(self):
        server = self.boot(flavor=self.small)
        self.act(server, {"os-stop": None}, "SHUTOFF")
        server = self.resize(server, self.large)
        assert self.lxd_instance(server)["status"] == "Stopped"
        server = self.act(server, {"confirmResize": None}, "SHUTOFF")
        self.act(server, {"os-start": None}, "ACTIVE")
        self.assert_clean()

    def test_a_resized_server_is_deleted(self):
        server = self.resize(self.boot(flavor=self.small), self.large)
        self.delete(server)
        self.assert_nothing_on_host()

    def test_a_flavor_that_no_server_can_have(self):
        server = self.boot(flavor=self.small)
        flavor = self.flavor(extra_specs={"lxd:privileged_allowed": "true"})
        self.expect_log(r".*(Setting instance|Exception during message handling)")
        self.api.post_server_action(server["id"], {"resize": {"flavorRef": flavor}})
        self.wait_refused(server, "lxd:privileged_allowed")
        assert self.limits(server) == ("64MiB", "1", "1GiB")
