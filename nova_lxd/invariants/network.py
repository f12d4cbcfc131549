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

_OURS = re.compile(r"(tap|tin|qbr|qvb|qvo)([0-9a-f]{8}-[0-9a-f]{2})")


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
    """I3, second half: no host device and no OVS port without a Neutron port."""
    suffixes = {port.suffix for port in expected.ports}
    others = set(expected.other_links)
    for ovs_port in facts.ovs_ports:
        if not _is_of_a_server(ovs_port):
            others.add(ovs_port.name)
        elif _suffix(ovs_port.name) not in suffixes and ovs_port.name not in others:
            mend = f"ovs-vsctl --if-exists del-port {ovs_port.bridge} {ovs_port.name}"
            yield Violation("I3", f"OVS port {ovs_port.name}", "no Neutron port needs it", mend)
    for link in facts.links:
        suffix = _suffix(link.name)
        if suffix and suffix not in suffixes and link.name not in others:
            mend = f"ip link delete {link.name}"
            yield Violation("I3", f"link {link.name}", "no Neutron port needs it", mend)


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
        values |= {"nictype": "bridged", "parent": f"qbr{port.suffix}", "host_name": port.tap}
    return values


def _on_the_switch(
    expected: Expected,
    server: ExpectedServer,
    port: ExpectedPort,
    ovs_ports: Mapping[str, OvsPort],
) -> Iterator[Violation]:
    mend = _replug(server.uuid)
    found = ovs_ports.get(port.ovs_port)
    if found is None or found.bridge != expected.integration_bridge:
        where = f"on {found.bridge}" if found else "missing"
        yield _on(port, f"{port.ovs_port} is {where}, not on {expected.integration_bridge}", mend)
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
    masters = {f"tap{port.suffix}": ""}
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


def _is_of_a_server(port: OvsPort) -> bool:
    """Whether os-vif made the port: DHCP and router ports, also called tap, carry no vm-uuid."""
    return "vm-uuid" in port.external_ids or port.name.startswith("qvo")


def _suffix(name: str) -> str:
    match = _OURS.fullmatch(name)
    return match[2] if match else ""


def _replug(uuid: str) -> str:
    return f"openstack server reboot --hard {uuid}"


def _on(port: ExpectedPort, problem: str, mend: str) -> Violation:
    return Violation("I3", f"port {port.port_id}", problem, mend)
