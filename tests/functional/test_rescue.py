"""Rescue, through Nova's API: another root to boot from, the own one beside it."""

from __future__ import annotations

import threading

import fixtures

from aio import kernel
from nova_lxd.virt import download
from tests.functional.base import DEADLINE, ServerTestCase, wait_for

SECRET = "s3cret-of-the-rescue"


class RescueTestCase(ServerTestCase):
    def rescue(self, server: dict, **values) -> dict:
        return self.act(server, {"rescue": values or None}, "RESCUE")

    def unrescue(self, server: dict) -> dict:
        return self.act(server, {"unrescue": None}, "ACTIVE")

    def mend(self, server: dict) -> None:
        """Bring a server out of ERROR."""
        self.api.post_server_action(server["id"], {"reboot": {"type": "HARD"}})
        wait_for(
            lambda: self.api.get_server(server["id"])["status"] == "ACTIVE", "the server to run"
        )
        self.assert_clean()

    def in_rescue(self, server: dict, *command: str) -> str:
        """Run a command in the container that the tenant of a rescued server sees."""
        return self.guest(
            server | {"OS-EXT-SRV-ATTR:instance_name": f"{self.name_of(server)}-rescue"}, *command
        )

    def console(self, server: dict) -> str:
        action = {"os-getConsoleOutput": {}}
        return self.api.post_server_action(server["id"], action)["output"]

    def assert_there_and_back(self, server: dict) -> None:
        """Write to the server's root from its rescue, and find it there afterwards."""
        self.guest(server, "sh", "-c", "echo before >/root/note; chown 1000:1000 /root/note")
        self.rescue(server)
        self.assert_clean()
        note = "/mnt/rescued/root/note"
        assert self.in_rescue(server, "stat", "-c", "%u:%g", note) == "1000:1000"
        self.in_rescue(server, "sh", "-c", f"echo after >>{note}")
        self.unrescue(server)
        self.assert_clean()
        assert self.guest(server, "cat", "/root/note") == "before\nafter"
        assert self.guest(server, "stat", "-c", "%u:%g", "/root/note") == "1000:1000"


class RescueTest(RescueTestCase):
    def test_there_and_back(self):
        server = self.boot()
        (port,) = self.neutron.ports_of(server["id"])
        wait_for(lambda: "nova-lxd" in self.console(server), "the guest's words")
        self.guest(server, "sh", "-c", "echo this is the server >/dev/console")
        wait_for(lambda: "this is the server" in self.console(server), "the guest's words")
        self.assert_there_and_back(server)
        assert self.guest(server, "cat", "/sys/class/net/eth0/address") == port["mac_address"]

    def test_what_the_tenant_sees_is_the_rescue(self):
        server, other = self.boot(), self.boot()
        (port,) = self.neutron.ports_of(server["id"])
        self.guest(server, "sh", "-c", "echo this is the server >/dev/console")
        wait_for(lambda: "this is the server" in self.console(server), "the guest's words")
        image = self.image(self._images.busybox, name="first aid")
        self.rescue(server, rescue_image_ref=image, adminPass=SECRET)
        assert self.in_rescue(server, "cat", "/sys/class/net/eth0/address") == port["mac_address"]
        wait_for(lambda: "nova-lxd" in self.console(server), "the rescue's words")
        assert "this is the server" not in self.console(server)
        assert SECRET not in self.stdlog.logger.output
        self.in_rescue(server, "ip", "address", "add", "10.9.9.1/24", "dev", "eth0")
        self.in_rescue(server, "ip", "link", "set", "eth0", "up")
        self.guest(other, "ip", "address", "add", "10.9.9.2/24", "dev", "eth0")
        self.guest(other, "ip", "link", "set", "eth0", "up")
        assert " 0% packet loss" in self.guest(other, "ping", "-c", "3", "-W", "20", "10.9.9.1")

        self.restart_compute()
        assert self.api.get_server(server["id"])["status"] == "RESCUE"
        self.delete(server)
        assert len(self.lxd_names("instances")) == 1

    def test_a_stopped_and_a_privileged_server(self):
        flavor = self.flavor(extra_specs={"lxd:privileged_allowed": "true"})
        server = self.boot(flavor=flavor)
        self.assert_there_and_back(server)
        self.act(server, {"os-stop": None}, "SHUTOFF")
        self.rescue(server)
        self.assert_clean()
        self.unrescue(server)

    def test_a_full_disk(self):
        server = self.boot()
        # A kernel may want one block of 16 KiB for raising the limit: see update._COMMIT.
        fill = (
            "dd if=/dev/zero of=/root/little bs=64k count=1; sync; "
            "dd if=/dev/urandom of=/root/big bs=1M 2>&1; sync; rm /root/little; sync"
        )
        assert "quota exceeded" in self.guest(server, "sh", "-c", fill)
        self.rescue(server)
        self.in_rescue(server, "rm", "/mnt/rescued/root/big")
        self.in_rescue(server, "sync")
        self.unrescue(server)
        self.assert_clean()

    def test_restored_it_is_rescued_no_more(self):
        self.flags(reclaim_instance_interval=3600)
        server = self.boot()
        self.rescue(server)
        self.api.delete_server(server["id"])
        self.wait_status(server, "SOFT_DELETED")
        self.act(server, {"restore": None}, "ACTIVE")
        assert self.lxd_names("instances") == [self.name_of(server)]
        self.flags(reclaim_instance_interval=0)

    def test_a_host_reboots(self):
        self.flags(resume_guests_state_on_host_boot=True)
        server = self.boot()
        self.rescue(server)
        rescue = f"{self.name_of(server)}-rescue"
        self._machine.lxd.lxc("stop", "--force", "--project", self._project, rescue)
        for link in self._machine.our_links():
            kernel.delete_link(link.name)
        self.restart_compute()
        self.assert_clean()
        self.unrescue(server)


class DirPoolTest(RescueTestCase):
    def setUp(self):
        self._machine.lxd.lxc("storage", "create", "plain", "dir")
        self.addCleanup(self._machine.lxd.lxc, "storage", "delete", "plain")
        super().setUp()

    def _flags_lxd(self) -> None:
        super()._flags_lxd()
        self.flags(pool="plain", group="lxd")

    def test_there_and_back(self):
        server = self.boot()
        assert self.lxd_instance(server)["expanded_devices"]["root"]["pool"] == "plain"
        self.assert_there_and_back(server)


class FailureTest(RescueTestCase):
    def setUp(self):
        super().setUp()
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[oslo_messaging\.rpc\.server\]")

    def assert_not_rescued(self, server: dict, *words: str, **values) -> None:
        """Check that a rescue fails for a reason that is told, and that the server is as it was."""
        before = self.lxd_instance(server)["devices"]
        self.api.post_server_action(server["id"], {"rescue": values or None})
        fault = self.wait_status(server, "ERROR")["fault"]
        for word in words:
            assert word in fault["message"], fault
        assert self.lxd_names("instances") == [self.name_of(server)]
        assert self.lxd_instance(server)["devices"] == before
        assert self.lxd_instance(server)["status"] == "Stopped"
        self.mend(server)

    def test_a_rescue_that_fails_leaves_the_server_as_it_was(self):
        server = self.boot()
        image = self.image(self._images.qcow2)
        self.assert_not_rescued(server, "qcow2", rescue_image_ref=image)
        image = self.image(self._images.busybox, properties={"hw_rescue_bus": "scsi"})
        self.assert_not_rescued(server, "hw_rescue_bus", rescue_image_ref=image)

    def test_a_server_is_deleted_while_its_rescue_begins(self):
        server = self.boot()
        begun, deleted = threading.Event(), threading.Event()

        def opened(*args):
            begun.set()
            assert deleted.wait(DEADLINE)
            return download_opened(*args)

        download_opened = download.opened
        self.useFixture(fixtures.MonkeyPatch("nova_lxd.virt.download.opened", opened))
        image = self.image(self._images.busybox)
        self.api.post_server_action(server["id"], {"rescue": {"rescue_image_ref": image}})
        assert begun.wait(DEADLINE)
        self.delete(server)
        self.assert_nothing_on_host()
        deleted.set()
        failed = "Error trying to Rescue Instance"
        wait_for(lambda: failed in self.stdlog.logger.output, "the rescue to end")
        self.assert_nothing_on_host()

    def test_an_unrescue_that_fails_can_be_mended(self):
        server = self.boot()
        self.rescue(server)
        (port,) = self.neutron.ports_of(server["id"])
        kernel.delete_link(f"qvo{port['id'][:11]}")
        run = self._machine.lxd.lxc
        # LXD refuses a container that an operator protected.
        rescue = f"{self.name_of(server)}-rescue"
        protect = ("config", "set", "--project", self._project, rescue)
        run(*protect, "security.protection.delete=true")
        self.api.post_server_action(server["id"], {"unrescue": None})
        self.wait_status(server, "ERROR")
        run(*protect, "security.protection.delete=false")
        self.mend(server)
        assert self.lxd_names("instances") == [self.name_of(server)]
