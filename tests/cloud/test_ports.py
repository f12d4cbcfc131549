"""Ports in all their kinds, as their owners use them."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from aio.process import wait_until
from aio.tenant import SECONDS

EXTRA = "10.30.0.201"
"""An address of the front network that Neutron gives to nobody else."""


@contextlib.contextmanager
def changed(tenant, port, **values):
    """Change a port for a while."""
    path = f"/ports/{port['id']}"
    before = {key: port[key] for key in values}
    tenant.api.request("PUT", "neutron", path, {"port": values})
    try:
        yield
    finally:
        tenant.api.request("PUT", "neutron", path, {"port": before})


@pytest.fixture
def router(world):
    """The name of the network namespace of the ring's router."""
    found = world.tenant.api.find("neutron", "/routers", world.name)
    return f"qrouter-{found['id']}"


def answers(router, address):
    """Whether a ping from the router comes back."""
    ping = ["ip", "netns", "exec", router, "ping", "-n", "-c", "1", "-W", "2", address]
    return subprocess.run(ping, capture_output=True, check=False).returncode == 0


def front_port(world, tenant, server):
    front = world.front["id"]
    return next(port for port in tenant.ports(server) if port["network_id"] == front)


@pytest.fixture
def spoofer(world, web, tenant):
    """A server that uses an address which is not its port's; returns the port."""
    web.run(f"ip addr add {EXTRA}/24 dev eth0")
    try:
        yield front_port(world, tenant, web.server)
    finally:
        web.run(f"ip addr del {EXTRA}/24 dev eth0")


def test_address_pairs(tenant, router, spoofer):
    assert not answers(router, EXTRA)
    with changed(tenant, spoofer, allowed_address_pairs=[{"ip_address": EXTRA}]):
        wait_until(lambda: answers(router, EXTRA), SECONDS, "the pair to be let through")
    wait_until(lambda: not answers(router, EXTRA), SECONDS, "the pair to be shut out")


def test_port_security_off(tenant, router, spoofer):
    with changed(tenant, spoofer, port_security_enabled=False, security_groups=[]):
        wait_until(lambda: answers(router, EXTRA), SECONDS, "any address to be let through")
    wait_until(lambda: not answers(router, EXTRA), SECONDS, "the address to be shut out")


@contextlib.contextmanager
def plugged(tenant, server, port, **more):
    """Attach a port for a while; it is DOWN, and the card gone, afterwards."""
    path = f"/servers/{server}/os-interface"
    tenant.api.post("nova", path, {"interfaceAttachment": {"port_id": port["id"], **more}})
    wait_until(lambda: status(tenant, port) == "ACTIVE", SECONDS, "the port to be ACTIVE")
    try:
        yield
    finally:
        tenant.api.request("DELETE", "nova", f"{path}/{port['id']}")
        wait_until(lambda: status(tenant, port) == "DOWN", SECONDS, "the port to be DOWN")


def status(tenant, port):
    return tenant.api.get("neutron", f"/ports/{port['id']}")["port"]["status"]


def test_hot_plug(world, web, tenant):
    """A port comes with the address that was asked for, and goes."""
    address = "10.31.0.77"
    wanted = {
        "network_id": world.back["id"],
        "fixed_ips": [{"ip_address": address}],
        "security_groups": [world.open_group["id"]],
    }
    port = tenant.make("neutron", "/ports", "port", wanted)
    with plugged(tenant, web.server, port, tag="storage"):
        assert web.run("cat /sys/class/net/eth1/address") == port["mac_address"]
        web.run("ip link set eth1 up; udhcpc -n -q -t 30 -O mtu -i eth1")
        assert f" {address}/24 " in web.run("ip -4 -o address show eth1")
        assert web.run("cat /sys/class/net/eth1/mtu") == str(world.back["mtu"])
        web.run("ping -c 1 -W 10 -I eth1 10.31.0.1")
        url = "http://169.254.169.254/openstack/latest/meta_data.json"
        assert "storage" in web.run(f"wget -q -O - {url}")
    assert "eth1" not in web.run("ls /sys/class/net")


def test_ipv6_by_router_advertisements(world, web, tenant, router):
    network = tenant.make("neutron", "/networks", "network", {"name": "ring-six"})
    subnet = {
        "network_id": network["id"],
        "ip_version": 6,
        "cidr": "fd00:30::/64",
        "ipv6_ra_mode": "slaac",
        "ipv6_address_mode": "slaac",
    }
    made = tenant.make("neutron", "/subnets", "subnet", subnet)
    tenant.attach_router(router.removeprefix("qrouter-"), made["id"])
    port = tenant.make("neutron", "/ports", "port", {"network_id": network["id"]})
    (fixed,) = port["fixed_ips"]
    with plugged(tenant, web.server, port):
        web.run("ip link set eth1 up")
        address = f" {fixed['ip_address']}/64 "
        wait_until(
            lambda: address in web.run("ip -6 -o address show dev eth1 scope global"),
            SECONDS,
            "the address that Neutron reckoned",
        )
        web.run(f"ping -6 -c 1 -W 10 {made['gateway_ip']}")


def test_trunk_parent(world, tenant):
    """The kernel here has no VLAN devices, so the subports' packets cannot be looked at."""
    group = [world.open_group["id"]]
    tagged = tenant.network("ring-tagged", "10.32.0.0/24", mtu=world.front["mtu"])
    ports = [
        tenant.make(
            "neutron", "/ports", "port", {"network_id": network["id"], "security_groups": group}
        )
        for network in (world.front, tagged)
    ]
    parent, child = (port["id"] for port in ports)
    sub = {"port_id": child, "segmentation_type": "vlan", "segmentation_id": 100}
    trunk = {"name": "ring-trunk", "port_id": parent, "sub_ports": [sub]}
    made = tenant.make("neutron", "/trunks", "trunk", trunk)
    server = tenant.boot("ring-trunk", world.flavor, [{"port": parent}], key_name=world.name)
    tenant.wait(server["id"])
    world.wait_booted(tenant, server["id"])
    world.guest(tenant, server).wait_for_ssh()

    def active():
        return tenant.api.get("neutron", f"/trunks/{made['id']}")["trunk"]["status"] == "ACTIVE"

    wait_until(active, SECONDS, "the trunk to be ACTIVE")
    assert status(tenant, {"id": child}) == "ACTIVE"
