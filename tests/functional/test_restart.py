"""nova-compute and the host come back, and servers with them."""

from __future__ import annotations

from nova.context import get_admin_context

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

    def test_a_server_deleted_meanwhile_is_removed_with_its_ports(self):
        server, other = self.boot(), self.boot()
        first = self.boot_time(other)
        (service,) = self.api.get_services(binary="nova-compute")
        self.compute.stop()
        self.api.put_service_force_down(service["id"], True)
        self.delete(server)
        assert self.name_of(server) in self.lxd_names("instances")
        self.api.put_service_force_down(service["id"], False)
        self.restart_compute()
        assert self.lxd_names("instances") == [self.name_of(other)]
        assert self.boot_time(other) == first
        self.assert_clean()

    def test_a_hard_reboot_mends_a_lost_bridge(self):
        server = self.boot()
        for link in self._machine.our_links():
            if link.kind == "bridge":
                kernel.delete_link(link.name)
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        self.assert_clean()


class HostRebootTest(ServerTestCase):
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

    def test_without_resume_servers_are_off_and_can_be_started(self):
        server = self.boot()
        self.host_goes_down(server)
        self.restart_compute()
        assert self.lxd_instance(server)["status"] == "Stopped"
        self.compute.manager._sync_power_states(get_admin_context())
        self.wait_status(server, "SHUTOFF")
        self.act(server, {"os-start": None}, "ACTIVE")
        self.assert_clean()

    def host_goes_down(self, server: dict) -> None:
        """Take away what a reboot of the host takes away: processes and network devices."""
        # nova-compute goes first: it would take the stop for the tenant's.
        self.compute.stop()
        name, project = self.name_of(server), self._project
        self._machine.lxd.lxc("stop", "--force", "--project", project, name)
        for link in self._machine.our_links():
            kernel.delete_link(link.name)


class NativeHostRebootTest(HostRebootTest):
    hybrid = False
