"""nova-compute and the host come back, and servers with them."""

from __future__ import annotations

from aio import kernel
from tests.functional.base import ServerTestCase, wait_for


class RestartTest(ServerTestCase):
    def test_guests_do_not_notice(self):
        running, stopped = self.boot(), self.boot()
        self.act(stopped, {"os-stop": None}, "SHUTOFF")
        first = self.boot_time(running)
        indices = {link.name for link in self._machine.our_links()}
        self.restart_compute()
        assert self.boot_time(running) == first
        assert {link.name for link in self._machine.our_links()} >= indices
        assert self.lxd_instance(stopped)["status"] == "Stopped"
        self.assert_clean()
        self.act(running, {"os-stop": None}, "SHUTOFF")

    def test_a_host_reboots(self):
        self.flags(resume_guests_state_on_host_boot=True)
        server, stopped = self.boot(), self.boot()
        self.act(stopped, {"os-stop": None}, "SHUTOFF")
        self.host_goes_down(server)
        self.restart_compute()
        self.wait_status(server, "ACTIVE")
        wait_for(lambda: self.lxd_instance(server)["status"] == "Running", "the guest to run")
        assert self.lxd_instance(stopped)["status"] == "Stopped"
        self.assert_clean()

    def test_a_hard_reboot_mends_a_lost_bridge(self):
        server = self.boot()
        for link in self._machine.our_links():
            if link.kind == "bridge":
                kernel.delete_link(link.name)
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        self.assert_clean()

    def host_goes_down(self, server: dict) -> None:
        """Take away what a reboot of the host takes away: processes and network devices."""
        name, project = self.name_of(server), self._project
        self._machine.lxd.lxc("stop", "--force", "--project", project, name)
        for link in self._machine.our_links():
            kernel.delete_link(link.name)
