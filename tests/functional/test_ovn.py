"""Ports that OVN wires: their addresses, filters and claims, through what befalls a server."""

from __future__ import annotations

import pytest

from aio import kernel
from tests.functional import ovn
from tests.functional.base import HOST, ServerTestCase, wait_for
from tests.functional.neutron import NeutronFixture
from tests.functional.ovnneutron import OvnNeutron, address_of

_MISSING = ", ".join(ovn.missing_packages())


@pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {_MISSING}")
class OvnTest(ServerTestCase):
    """Neutron's part is a stand-in, OVN is the real one; its bridge is Open vSwitch's alone."""

    hybrid = False

    def _make_neutron(self) -> NeutronFixture:
        self.ovn = self._machine.ovn
        self.addCleanup(self.ovn.stop)
        self.ovn.start(HOST)
        return OvnNeutron(self, self.ovn)

    def _wired_ports(self) -> set[str]:
        return self.ovn.ports_up()

    def port(self, server: dict) -> dict:
        (port,) = self.neutron.ports_of(server["id"])
        return port

    def claims(self, port: dict) -> dict[str, bool]:
        """Tell who says that a port is wired here."""
        claimed, up = self.ovn.binding(port["id"])
        query = ("--bare", "--columns=external_ids", "find", "Interface")
        ids = self._machine.ovs.vsctl(*query, f"name=tap{port['id'][:11]}")
        return {
            "a chassis has it": claimed,
            "ovn-controller": up,
            "Open vSwitch": "ovn-installed=true" in ids,
            "Neutron": self.neutron._ports[port["id"]]["status"] == "ACTIVE",
        }

    def wait_claims(self, port: dict, wanted: bool) -> None:
        """Wait until all agree."""
        wait_for(lambda: set(self.claims(port).values()) == {wanted}, f"wired to be {wanted}")

    def wait_address(self, server: dict) -> None:
        """Wait until DHCP has given a guest what Neutron gave its port."""
        address = f" {address_of(self.port(server))}/24 "
        show = ("ip", "-4", "-o", "addr", "show", "dev", "eth0")
        wait_for(lambda: address in self.guest(server, *show), f"the address{address}")

    def pings(self, server: dict, other: dict) -> bool:
        return self.reaches(server, address_of(self.port(other)))

    def wait_whole(self, server: dict, other: dict, when: str) -> None:
        """Wait until a server is wired, has its address and is reached, both ways."""
        self.wait_claims(self.port(server), wanted=True)
        self.wait_address(server)
        wait_for(lambda: self.pings(server, other), f"a ping {when}")
        wait_for(lambda: self.pings(other, server), f"a ping back {when}")
        self.assert_clean()

    def test_servers_reach_each_other_through_all_that_befalls_them(self):
        one, two = self.boot(), self.boot()
        ports = self.port(one), self.port(two)
        self.neutron.let_ping(*(port["id"] for port in ports))
        self.wait_address(two)
        self.wait_whole(one, two, "at first")

        self.boots_from_inside(one)
        self.wait_whole(one, two, "after a reboot from inside")
        self.act(one, {"os-stop": None}, "SHUTOFF")
        assert set(self.claims(ports[0]).values()) == {True}
        self.act(one, {"os-start": None}, "ACTIVE")
        self.wait_whole(one, two, "after a start")

        self.restart_compute()
        self.wait_whole(one, two, "after a restart of nova-compute")
        self._machine.ovs.stop()
        self._machine.ovs.start(120)
        self.wait_whole(one, two, "after a restart of Open vSwitch")

        kernel.delete_link(f"tap{ports[0]['id'][:11]}")
        self.act(one, {"reboot": {"type": "HARD"}}, "ACTIVE")
        self.wait_whole(one, two, "with a new pair")

        self.delete(one)
        wait_for(lambda: not any(self.ovn.binding(ports[0]["id"])), "the claim to go")
        assert self.ovn.ports_up() == {ports[1]["id"]}

    def test_what_is_not_allowed_is_dropped(self):
        one, two = self.boot(), self.boot()
        for server in (one, two):
            self.wait_address(server)
        assert not self.pings(one, two)
        self.neutron.let_ping(self.port(two)["id"])
        wait_for(lambda: self.pings(one, two), "answers, which are related to what went out")
        assert not self.pings(two, one)
        self.neutron.let_ping()
        wait_for(lambda: not self.pings(one, two), "the filter to be closed again")

    def test_a_port_comes_and_goes(self):
        server = self.boot()
        port = self.neutron.create_port({"port": {"network_id": self.neutron.network_1["id"]}})
        port = port["port"]
        address = f" {address_of(port)}/24 "
        attachment = {"interfaceAttachment": {"port_id": port["id"]}}
        dhcp = "udhcpc -i eth1 -n -q -t 60 -T 1 >&2; ip -4 -o addr show dev eth1"
        for _ in range(2):
            self.wait_claims(port, wanted=False)
            self.api.attach_interface(server["id"], attachment)
            self.wait_claims(port, wanted=True)
            wait_for(lambda: address in self.guest(server, "sh", "-c", dhcp), "a lease")
            self.assert_clean()
            self.api.detach_interface(server["id"], port["id"])
            self.wait_claims(port, wanted=False)
            self.assert_clean()
        self.delete(server)
        assert self.ovn.ports_up() == set()
        self.assert_nothing_on_host()
