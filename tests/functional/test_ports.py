"""Ports that are plugged, found again, attached and detached, in both kinds of wiring."""

from __future__ import annotations

import os
import subprocess
import time

import fixtures
import pytest
from nova import objects
from nova.context import get_admin_context
from nova.tests.functional.api import client as api_client

from aio import kernel
from tests.functional.base import ServerTestCase, wait_for


class PortsTest(ServerTestCase):
    """What must hold whatever is between a server and Open vSwitch."""

    def nets(self, count: int) -> list[dict]:
        return [{"uuid": self.neutron.network_1["id"]} for _ in range(count)]

    def nics(self, server: dict) -> list[str]:
        """Return the names of the container's NICs on the host."""
        devices = self.lxd_instance(server)["devices"]
        return [name for name, device in devices.items() if device["type"] == "nic"]

    def ports(self, server: dict) -> list[dict]:
        return self.neutron.ports_of(server["id"])

    def names(self, server: dict) -> dict[str, str]:
        """Return the guest's own name for the NIC of each MAC address."""
        script = "cd /sys/class/net; for nic in eth*; do echo $nic $(cat $nic/address); done"
        lines = self.guest(server, "sh", "-c", script).splitlines()
        return {mac: name for name, mac in map(str.split, lines) if name != "eth*"}

    def names_by_port(self, server: dict) -> dict[str, str]:
        names = self.names(server)
        return {port["id"]: names[port["mac_address"]] for port in self.ports(server)}

    def attach(self, server: dict, port_id: str = "", **more) -> str:
        """Attach an interface and return its port's id."""
        where = {"port_id": port_id} if port_id else {"net_id": self.neutron.network_1["id"]}
        post = {"interfaceAttachment": {**where, **more}}
        answer = self.api.attach_interface(server["id"], post).body
        return answer["interfaceAttachment"]["port_id"]

    def detach(self, server: dict, port_id: str) -> None:
        self.api.detach_interface(server["id"], port_id)
        wait_for(
            lambda: port_id not in [port["id"] for port in self.ports(server)], "the port to go"
        )

    def address(self, server: dict, number: int) -> str:
        """Give the guest an address of its own and return it."""
        address = f"10.99.0.{number}"
        script = f"ip addr replace {address}/24 dev eth0; ip link set eth0 up"
        self.guest(server, "sh", "-c", script)
        return address

    def test_servers_reach_each_other_through_all_that_befalls_them(self):
        one, two = self.boot(), self.boot()
        self.address(one, 1)
        there = self.address(two, 2)
        wait_for(lambda: self.reaches(one, there), "the first ping")

        self.boots_from_inside(one)
        self.address(one, 1)
        wait_for(lambda: self.reaches(one, there), "a ping after a reboot from inside")
        assert self.wait_status(one, "ACTIVE")

        for action, status in (({"os-stop": None}, "SHUTOFF"), ({"os-start": None}, "ACTIVE")):
            self.act(one, action, status)
            self.assert_clean()
        self.address(one, 1)
        wait_for(lambda: self.reaches(one, there), "a ping after a start")

        self._machine.lxd.stop()
        self._machine.lxd.start(120)
        self.restart_compute()
        assert self.reaches(one, there)
        self.assert_clean()

    def test_the_mtu_is_the_networks_on_both_ends(self):
        self.neutron.network_1["mtu"] = 1450
        server = self.boot()
        assert self.guest(server, "cat", "/sys/class/net/eth0/mtu") == "1450"
        self.assert_clean()

    def test_a_server_that_stands_still_does_not_answer(self):
        one, two = self.boot(), self.boot()
        self.address(one, 1)
        there = self.address(two, 2)
        wait_for(lambda: self.reaches(one, there), "the first ping")
        ways = (("pause", "PAUSED", "unpause"), ("suspend", "SUSPENDED", "resume"))
        for hold, status, go_on in ways:
            self.act(two, {hold: None}, status)
            assert not self.reaches(one, there)
            self.restart_compute()
            assert not self.reaches(one, there)
            self.assert_clean()
            self.act(two, {go_on: None}, "ACTIVE")
            wait_for(lambda: self.reaches(one, there), f"a ping after {go_on}")
        self.act(two, {"pause": None}, "PAUSED")
        self.act(two, {"reboot": {"type": "HARD"}}, "ACTIVE")
        self.address(two, 2)
        wait_for(lambda: self.reaches(one, there), "a ping after a reboot")

    def test_names_stay(self):
        server = self.boot(networks=self.nets(3))
        first, second, third = (port["id"] for port in self.ports(server))
        order = {first: "eth0", second: "eth1", third: "eth2"}
        assert self.names_by_port(server) == order

        self.detach(server, first)
        left = {second: "eth1", third: "eth2"}
        assert self.names_by_port(server) == left
        self.assert_clean()
        for kind in ("SOFT", "HARD"):
            self.act(server, {"reboot": {"type": kind}}, "ACTIVE")
            assert self.names_by_port(server) == left
        self.act(server, {"rescue": {"adminPass": "x"}}, "RESCUE")
        self.act(server, {"unrescue": None}, "ACTIVE")
        assert self.names_by_port(server) == left

        again = self.attach(server)
        assert self.names_by_port(server) == left | {again: "eth0"}
        self.boots_from_inside(server)
        wait_for(
            lambda: self.names_by_port(server) == left | {again: "eth0"},
            "the names after a reboot from inside",
        )
        self.assert_clean()

    def test_hot_and_cold(self):
        server = self.boot(networks="none")
        first = self.attach(server)
        assert self.names_by_port(server) == {first: "eth0"}
        self.assert_clean()

        self.act(server, {"pause": None}, "PAUSED")
        second = self.attach(server)
        self.assert_clean()
        self.detach(server, first)
        self.act(server, {"unpause": None}, "ACTIVE")
        assert self.names_by_port(server) == {second: "eth1"}

        self.act(server, {"os-stop": None}, "SHUTOFF")
        third = self.attach(server)
        self.detach(server, second)
        self.assert_clean()
        self.act(server, {"os-start": None}, "ACTIVE")
        assert self.names_by_port(server) == {third: "eth0"}
        self.assert_clean()

    def test_tags_come_and_go(self):
        server = self.boot()
        tagged = self.attach(server, tag="management")
        assert self.device_tags(server) == {tagged: ["management"]}
        self.detach(server, tagged)
        assert self.device_tags(server) == {}

    def device_tags(self, server: dict) -> dict[str, list[str]]:
        instance = objects.Instance.get_by_uuid(get_admin_context(), server["id"])
        metadata = instance.device_metadata
        devices = metadata.devices if metadata else []
        ports = {port["mac_address"]: port["id"] for port in self.ports(server)}
        return {ports[device.mac]: device.tags for device in devices}

    def test_a_port_that_cannot_be_attached_leaves_the_server_as_it_was(self):
        server = self.boot()
        before = self.lxd_instance(server)["devices"]
        self.neutron.vif_type = "macvtap"
        self.expect_log("Exception during message handling", "attach interface failed")
        with pytest.raises(api_client.OpenStackApiException):
            self.attach(server)
        assert self.lxd_instance(server)["devices"] == before
        assert len(self.ports(server)) == 1
        self.assert_clean()

    def test_a_port_that_neutron_deleted_is_detached(self):
        server = self.boot(networks=self.nets(2))
        gone, stays = self.ports(server)
        self.neutron.delete_port(gone["id"])
        event = {"name": "network-vif-deleted", "server_uuid": server["id"], "tag": gone["id"]}
        self.api.create_server_external_events([event])
        wait_for(lambda: self.nics(server) == [f"tap{stays['id'][:11]}"], "the NIC to go")
        self.assert_clean()

    def test_a_guest_that_dies_with_its_network_can_be_started(self):
        server = self.boot()
        path = f"/1.0/instances/{self.name_of(server)}/state?project={self._project}"
        os.kill(self._machine.get(path)["pid"], 9)
        self.wait_status(server, "SHUTOFF")
        self.act(server, {"os-start": None}, "ACTIVE")
        assert self.names_by_port(server)
        self.assert_clean()


class LimitsTest(ServerTestCase):
    """What a flavor lets through."""

    def qdisc(self, server: dict) -> str:
        (port,) = self.neutron.ports_of(server["id"])
        show = ["tc", "qdisc", "show", "dev", f"qvb{port['id'][:11]}"]
        return subprocess.run(show, check=True, capture_output=True, text=True).stdout

    def limits(self, server: dict) -> tuple[str, bool]:
        """Return what LXD lets in, and whether anything is held back on the way out."""
        devices = self.lxd_instance(server)["devices"].values()
        (nic,) = (device for device in devices if device["type"] == "nic")
        return nic.get("limits.ingress", ""), "rate 8Mbit" in self.qdisc(server)

    def seconds(self, sender: dict, receiver: dict) -> float:
        """Measure how long four megabytes take from one server to the other."""
        for number, server in enumerate((sender, receiver), 1):
            up = f"ip addr flush dev eth0; ip addr add 10.98.0.{number}/24 dev eth0"
            self.guest(server, "sh", "-c", up)
        # Each end hangs up when its input ends.
        listen = "sleep 600 | nc -l -p 9000 > /tmp/got"
        self.guest(receiver, "sh", "-c", f"setsid sh -c '{listen}' >/dev/null 2>&1 </dev/null &")
        send = "dd if=/dev/zero bs=1000000 count=4 | nc -w 60 10.98.0.2 9000"
        wait_for(lambda: self._listens(receiver), "the receiver")
        began = time.monotonic()
        self.guest(sender, "sh", "-c", f"{send} 2>/dev/null >/dev/null; true")
        wait_for(lambda: self.guest(receiver, "stat", "-c", "%s", "/tmp/got") == "4000000", "it")
        return time.monotonic() - began

    def _listens(self, server: dict) -> bool:
        return ":2328 " in self.guest(server, "cat", "/proc/net/tcp", "/proc/net/tcp6")

    def test_both_ways_through_all_that_befalls_it(self):
        keys = {f"quota:vif_{way}_average": "1000" for way in ("inbound", "outbound")}
        slow = self.flavor(extra_specs=keys)
        fast = self.flavor()
        server, other = self.boot(flavor=slow), self.boot(flavor=fast)
        assert self.limits(server) == ("8000kbit", True)
        assert self.limits(other) == ("", False)
        # The first 128 KiB pass at once, and the clocks of two processes are compared.
        assert self.seconds(server, other) > 2
        assert self.seconds(other, server) > 2

        for kind in ("SOFT", "HARD"):
            self.act(server, {"reboot": {"type": kind}}, "ACTIVE")
            assert self.limits(server) == ("8000kbit", True)
        self.restart_compute()
        assert self.limits(server) == ("8000kbit", True)
        self.act(server, {"rescue": {"adminPass": "x"}}, "RESCUE")
        self.act(server, {"unrescue": None}, "ACTIVE")
        assert self.limits(server) == ("8000kbit", True)

        self.flags(allow_resize_to_same_host=True)
        self.act(server, {"resize": {"flavorRef": fast}}, "VERIFY_RESIZE")
        assert self.limits(server) == ("", False)
        self.act(server, {"revertResize": None}, "ACTIVE")
        assert self.limits(server) == ("8000kbit", True)
        self.act(server, {"resize": {"flavorRef": fast}}, "VERIFY_RESIZE")
        self.act(server, {"confirmResize": None}, "ACTIVE")
        assert self.limits(server) == ("", False)
        self.assert_clean()

    def test_a_kernel_that_cannot(self):
        """The queueing discipline is one that no kernel has: this one has all that are needed."""
        self.useFixture(
            fixtures.MonkeyPatch("nova_lxd.virt.bandwidth.shape", lambda rate: ["nonesuch"])
        )
        flavor = self.flavor(extra_specs={"quota:vif_outbound_average": "1000"})
        self.expect_log("")
        server = self.boot(flavor=flavor, status="ERROR")
        assert "quota:vif_outbound_average: tc cannot limit" in server["fault"]["message"]
        assert "sch_tbf" in server["fault"]["message"]
        self.assert_nothing_on_host()


class NativeLimitsTest(ServerTestCase):
    hybrid = False

    def test_a_flavor_that_cannot_be_kept_is_refused(self):
        self.expect_log("")
        flavor = self.flavor(extra_specs={"quota:vif_inbound_average": "1000"})
        refused = self.boot(flavor=flavor, status="ERROR")
        assert "Neutron QoS policy" in refused["fault"]["message"]
        server = self.boot()
        self.flags(allow_resize_to_same_host=True)
        self.act(server, {"resize": {"flavorRef": flavor}}, "ACTIVE")
        assert self.lxd_instance(server)["status"] == "Running"
        self.assert_clean()


class NativePortsTest(PortsTest):
    hybrid = False

    def test_a_guest_that_changes_the_names_of_its_cards(self):
        """Whatever it gives back in place of its NIC is not put into Open vSwitch, nor left."""
        server = self.boot()
        swap = "ip link set eth0 down && ip link set eth0 name away && ip link add eth0 type ifb"
        self.guest(server, "sh", "-c", swap)
        self.act(server, {"os-stop": None}, "SHUTOFF")
        self.act(server, {"os-start": None}, "ACTIVE")
        (port,) = self.ports(server)
        assert self.names(server)[port["mac_address"]] == "eth0"
        self.assert_clean()

        # It is deleted like this.
        self.guest(server, "sh", "-c", swap)

    def test_a_hard_reboot_mends_a_lost_pair(self):
        server = self.boot()
        for link in self._machine.our_links():
            kernel.delete_link(link.name)
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        assert self.names_by_port(server)
        self.assert_clean()

    def test_the_operator_changes_the_firewall_driver(self):
        server = self.boot()
        (port,) = self.neutron._ports.values()
        for hybrid in (True, False):
            port["binding:vif_details"]["ovs_hybrid_plug"] = hybrid
            self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
            assert self.names_by_port(server) == {port["id"]: "eth0"}
            self.assert_clean()
