"""Nova's VIF -> LXD nic device, and the names of what stands between container and br-int."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from nova_lxd.exception import VifRefused
from nova_lxd.virt import bandwidth
from nova_lxd.virt.model import Bandwidth, Device, Devices, Vif

_PORT_ID = re.compile(r"[0-9A-Za-z-]{11,64}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII | re.IGNORECASE)

MIN_MTU, MAX_MTU = 1280, 16384
"""What LXD takes."""

_OVS = "bind it with ML2/OVS or ML2/OVN"
_QOS = "use another flavor, and a Neutron QoS policy"
_NORMAL = "use a port with vnic_type normal"
_REASONS = {
    "binding_failed": "Neutron could not bind it here; see that its L2 agent or "
    "ovn-controller is alive (openstack network agent list)",
    "unbound": "Neutron has not bound it to this host; try again or make a new port",
    "bridge": f"Nova and os-vif no longer plug linux bridges; {_OVS}",
    "vhostuser": f"it needs a virtual machine's memory; {_OVS}",
    "hw_veb": f"it needs SR-IOV, which containers do not have yet; {_NORMAL}",
    "macvtap": f"it needs a virtual machine; {_NORMAL}",
}
"""Why a port of some VIF type cannot be wired, and the way out."""


def bridge_name(vif: Vif) -> str:
    """Return the name of the port's own linux bridge, which carries the security group rules."""
    return "qbr" + vif.port_id[:11]


def bridge_end(vif: Vif) -> str:
    """Return the name of the veth end that is in the bridge."""
    return "qvb" + vif.port_id[:11]


def ovs_end(vif: Vif) -> str:
    """Return the name of the veth end that is in br-int."""
    return "qvo" + vif.port_id[:11]


def tap_name(vif: Vif) -> str:
    """Return the host-side name of the container's NIC, for which Neutron writes its rules."""
    return "tap" + vif.port_id[:11]


def guest_end(vif: Vif) -> str:
    """Return the name, on the host, of the end that a native port's container gets."""
    return "tin" + vif.port_id[:11]


def wire_end(vif: Vif) -> str:
    """Return the name of the device that cuts a server off when it is down.

    With a bridge it is one that is not the other end of the guest's NIC, so that the guest sees no
    cable pulled.
    """
    return bridge_end(vif) if vif.hybrid_plug else tap_name(vif)


def host_devices(vif: Vif) -> list[str]:
    """Name all devices that are on the host for this port and that carry its traffic."""
    if vif.hybrid_plug:
        return [bridge_name(vif), bridge_end(vif), ovs_end(vif)]
    return [tap_name(vif), guest_end(vif)]


def check(vif: Vif) -> None:
    """Refuse a port that cannot be wired to a container.

    :raises VifRefused: naming the port, its VIF type and the way out
    """
    if reason := _objection(vif):
        raise _refusal(vif, reason)


def nic_device(vif: Vif, name: str) -> Device:
    """Return the nic that the guest sees under this name.

    A port with a hybrid plug has a bridge, into which LXD puts a NIC.  Of any other, one end of a
    veth pair is in Open vSwitch before the guest starts, and the container gets the other one: what
    LXD makes itself would come too late for Neutron to wire, and go with every reboot.

    :raises VifRefused: see :func:`check`
    """
    check(vif)
    if vif.hybrid_plug:
        wire = {"nictype": "bridged", "parent": bridge_name(vif), "host_name": vif.devname}
    else:
        wire = {"nictype": "physical", "parent": guest_end(vif)}
    device = {"type": "nic", **wire, "name": name, "hwaddr": vif.mac}
    if vif.mtu is not None:
        device["mtu"] = str(vif.mtu)
    return device | bandwidth.nic_limits(vif.bandwidth)


def devices(vifs: Sequence[Vif], names: Mapping[str, str] | None = None) -> Devices:
    """Return all nics, by their host-side names, in Nova's order.

    :param names: what the guest calls its nics, by their host-side names; these stay.  A new one
        gets the first of ``eth0``, ``eth1`` ... that is free
    :raises VifRefused: see :func:`check`; also when two of the VIFs are one port
    """
    present = {vif.devname for vif in vifs}
    known = {device: name for device, name in (names or {}).items() if device in present}
    nics: Devices = {}
    for vif in vifs:
        if vif.devname in nics:
            raise _refusal(vif, "it is attached twice; detach one")
        name = known.setdefault(vif.devname, free_name(known.values()))
        nics[vif.devname] = nic_device(vif, name)
    return nics


def free_name(taken: Iterable[str]) -> str:
    """Return the first of ``eth0``, ``eth1`` ... that is not taken."""
    names = set(taken)
    return next(name for index in itertools.count() if (name := f"eth{index}") not in names)


def _refusal(vif: Vif, reason: str) -> VifRefused:
    return VifRefused(f"port {vif.port_id[:64]!r}: vif_type {vif.vif_type!r}: {reason}")


def _objection(vif: Vif) -> str:
    return _kind_objection(vif) or _value_objection(vif)


def _kind_objection(vif: Vif) -> str:
    if vif.vnic_type != "normal":
        return f"vnic_type {vif.vnic_type!r}: it needs hardware or a virtual machine; {_NORMAL}"
    if vif.vif_type != "ovs":
        return _REASONS.get(vif.vif_type, f"containers cannot be wired to this type; {_OVS}")
    if vif.bandwidth != Bandwidth() and not vif.hybrid_plug:
        return f"without a bridge of its own, quota:vif_* cannot be kept; {_QOS}"
    return ""


def _value_objection(vif: Vif) -> str:
    # These become LXD values and interface names; Neutron's are always well-formed.
    if not _PORT_ID.fullmatch(vif.port_id):
        return "its id is malformed; create the port anew"
    if vif.devname != tap_name(vif):
        # Under any other name the security group rules would not apply to it.
        return f"its device is named {vif.devname!r}; the name must be {tap_name(vif)!r}"
    if not _MAC.fullmatch(vif.mac):
        return f"its MAC address is {vif.mac!r}; give it one of six bytes"
    if vif.mtu is not None and not MIN_MTU <= vif.mtu <= MAX_MTU:
        return f"its network's mtu is {vif.mtu}; LXD takes {MIN_MTU} to {MAX_MTU}"
    return ""
