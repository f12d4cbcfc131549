"""Rules about how ports are wired, in the kernel and in Open vSwitch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nova_lxd.invariants.facts import (
    Expected,
    ExpectedPort,
    ExpectedServer,
    Facts,
    Link,
    LxdInstance,
    OvsPort,
    Violation,
)

PREFIXES = ("tap", "tin", "qbr", "qvb", "qvo")
"""What the names of a port's host devices begin with; the first characters of its id follow."""

_OURS = re.compile(rf"({'|'.join(PREFIXES)})([0-9a-f]{{8}}-[0-9a-f]{{2}})")
_TRUNK = "tbr-"
_MATES = {"qvo": "qvb", "tin": "tap"}
"""Ends of veth pairs that go when the other end is deleted."""


def ports_are_wired(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I3, first half: every port of a running server is wired as Neutron says."""
    links = {link.name: link for link in facts.links}
    ovs_ports = {port.name: port for port in facts.ovs_ports}
    instances = {instance.name: instance for instance in facts.instances}
    for server in expected.servers:
        instance = instances.get(server.current)
        if instance is None:
            continue
        for port in server.ports:
            yield from _nic(instance, port)
            if server.status in ("Running", "Frozen"):
                yield from _on_the_switch(expected, server, port, ovs_ports)
                yield from _in_the_kernel(server, port, links)


def nothing_is_left_over(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I3, second half: no host device, OVS port or trunk bridge without a Neutron port."""
    suffixes = {port.suffix for port in expected.ports}
    owners = wire_owners(facts)
    others = expected.other_links | _ends_of_strays(expected, facts)
    others |= {port.name for port in facts.ovs_ports if not _is_of_a_server(port)}
    yield from _ovs_ports_left(expected, facts, suffixes)
    yield from _trunks_left(expected, facts, suffixes)
    left = [
        link.name
        for link in facts.links
        if suffix_of(link.name) not in suffixes | {""} and link.name not in others
    ]
    for name in left:
        # One end of a veth pair takes the other with it.
        if _MATES.get(name[:3], name[:3]) + name[3:] in set(left) - {name}:
            continue
        mend, owner = f"ip link delete {name}", owners.get(suffix_of(name), "")
        yield Violation("I3", f"link {name}", "no Neutron port needs it", mend, owner)


def taps_are_filtered(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I4"""
    if facts.filtered_taps is None:
        return
    for server in expected.servers:
        if server.status not in ("Running", "Frozen"):
            continue
        for port in server.ports:
            if port.hybrid and port.tap not in facts.filtered_taps:
                mend = "restart neutron-openvswitch-agent and read its log"
                yield Violation("I4", f"link {port.tap}", "no firewall chain knows it", mend)


RULES = (ports_are_wired, nothing_is_left_over, taps_are_filtered)


def _nic(instance: LxdInstance, port: ExpectedPort) -> Iterator[Violation]:
    mend = _replug(instance.config.get("user.nova.uuid", instance.name))
    nic = instance.devices.get(port.tap)
    if nic is None:
        yield _on(port, "the container has no such device", mend)
        return
    for key, wanted in _nic_values(port).items():
        if nic.get(key, "").lower() != wanted:
            yield _on(port, f"the container's {key} is {nic.get(key)!r}, not {wanted!r}", mend)


def _nic_values(port: ExpectedPort) -> Mapping[str, str]:
    values = {"hwaddr": port.mac.lower()}
    if port.mtu:
        values["mtu"] = str(port.mtu)
    if port.hybrid:
        return values | {
            "nictype": "bridged",
            "parent": f"qbr{port.suffix}",
            "host_name": port.tap,
        }
    return values | {"nictype": "physical", "parent": port.tin}


def _on_the_switch(
    expected: Expected,
    server: ExpectedServer,
    port: ExpectedPort,
    ovs_ports: Mapping[str, OvsPort],
) -> Iterator[Violation]:
    mend = _replug(server.uuid)
    found = ovs_ports.get(port.ovs_port)
    bridge = port.bridge or expected.integration_bridge
    if found is None or found.bridge != bridge:
        where = f"on {found.bridge}" if found else "missing"
        yield _on(port, f"{port.ovs_port} is {where}, not on {bridge}", mend)
        return
    ids = {"iface-id": port.port_id, "attached-mac": port.mac, "vm-uuid": server.uuid}
    for key, wanted in ids.items():
        if found.external_ids.get(key, "").lower() != wanted.lower():
            value = found.external_ids.get(key)
            yield _on(port, f"OVS says {key} is {value!r}, not {wanted!r}", mend)
    if found.error:
        yield _on(port, f"OVS cannot use {found.name}: {found.error}", mend)


def _in_the_kernel(
    server: ExpectedServer, port: ExpectedPort, links: Mapping[str, Link]
) -> Iterator[Violation]:
    mend = _replug(server.uuid)
    bridge = f"qbr{port.suffix}"
    masters = {port.tap: ""}
    if not port.hybrid and port.tin in links:
        yield _on(port, f"{port.tin} is on the host: the container lacks its NIC", mend)
    if port.hybrid:
        masters = {bridge: "", port.tap: bridge, f"qvb{port.suffix}": bridge, port.ovs_port: ""}
    for name, master in masters.items():
        link = links.get(name)
        if link is None:
            yield _on(port, f"{name} does not exist", mend)
            continue
        if master and link.master != master:
            problem = f"{name} is in {link.master or 'no bridge'}, not in {master}"
            yield _on(port, problem, f"ip link set {name} master {master}")
        if port.mtu and link.mtu != port.mtu:
            problem = f"{name} has MTU {link.mtu}, the network {port.mtu}"
            yield _on(port, problem, f"ip link set {name} mtu {port.mtu}")
        if link.ipv6:
            mend_ipv6 = f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=1"
            yield _on(port, f"the host speaks IPv6 on {name}", mend_ipv6)


def _ovs_ports_left(expected: Expected, facts: Facts, suffixes: set[str]) -> Iterator[Violation]:
    for port in facts.ovs_ports:
        needed = suffix_of(port.name) in suffixes or port.name in expected.other_links
        if _is_of_a_server(port) and not needed:
            mend = f"{expected.ovs_vsctl} --if-exists del-port {port.bridge} {port.name}"
            owner = port.external_ids.get("vm-uuid", "")
            problem = "no Neutron port needs it"
            yield Violation("I3", f"OVS port {port.name}", problem, mend, owner)


def _trunks_left(expected: Expected, facts: Facts, suffixes: set[str]) -> Iterator[Violation]:
    """Find the bridges of trunks whose parent port is gone; Neutron's agent makes none itself."""
    needed = {port.bridge for port in expected.ports} | expected.other_links
    needed |= {port.bridge for port in facts.ovs_ports if suffix_of(port.name) in suffixes}
    owners = {port.bridge: port.external_ids.get("vm-uuid") for port in _of_servers(facts)}
    for port in facts.ovs_ports:
        if port.name == port.bridge and port.name.startswith(_TRUNK) and port.name not in needed:
            mend = f"{expected.ovs_vsctl} --if-exists del-br {port.name}"
            owner = owners.get(port.name) or ""
            problem = "no Neutron port needs it"
            yield Violation("I3", f"OVS bridge {port.name}", problem, mend, owner)


def _ends_of_strays(expected: Expected, facts: Facts) -> set[str]:
    """Name the devices that LXD takes away itself with an instance that has no server."""
    return {
        device["host_name"]
        for instance in facts.instances
        if instance.status != "Stopped" and expected.server(instance.name) is None
        for device in instance.devices.values()
        if "host_name" in device
    }


def suffix_of(name: str) -> str:
    """Return what the names of all devices of a port end with; empty for any other device."""
    match = _OURS.fullmatch(name)
    return match[2] if match else ""


def wire_owners(facts: Facts) -> dict[str, str]:
    """Return the ids of the servers that Open vSwitch names, by the suffix of the port."""
    return {suffix_of(port.name): port.external_ids["vm-uuid"] for port in _of_servers(facts)}


def _of_servers(facts: Facts) -> list[OvsPort]:
    return [port for port in facts.ovs_ports if "vm-uuid" in port.external_ids]


def _is_of_a_server(port: OvsPort) -> bool:
    """Whether os-vif made the port: DHCP and router ports, also called tap, carry no vm-uuid."""
    return "vm-uuid" in port.external_ids or port.name.startswith("qvo")


def _replug(uuid: str) -> str:
    return f"openstack server reboot --hard {uuid}"


def _on(port: ExpectedPort, problem: str, mend: str) -> Violation:
    return Violation("I3", f"port {port.port_id}", problem, mend)
