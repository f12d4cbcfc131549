"""Nova's objects, copied into our values."""

from __future__ import annotations

from typing import Any

from nova_lxd.virt import bandwidth as bandwidth_translator
from nova_lxd.virt.model import Bandwidth, Flavor, Vif


def flavor_of(flavor: Any) -> Flavor:
    """Copy Nova's flavor."""
    return Flavor(
        name=flavor.name,
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        root_gb=flavor.root_gb,
        ephemeral_gb=flavor.ephemeral_gb or 0,
        swap_mb=flavor.swap or 0,
        extra_specs=dict(flavor.extra_specs or {}),
    )


def vifs_of(instance: Any, network_info: Any) -> list[Vif]:
    """Copy Nova's network model; waits for Neutron's allocation when it is still under way.

    :raises FlavorRefused: the server's flavor limits its NICs to what is no number
    """
    bandwidth = bandwidth_translator.bandwidth(flavor_of(instance.flavor))
    return [vif_of(vif, bandwidth) for vif in network_info or []]


def vif_of(vif: Any, bandwidth: Bandwidth | None = None) -> Vif:
    """Copy one VIF, with its server's limits; to unplug it nobody needs these."""
    details = vif.get("details") or {}
    return Vif(
        port_id=vif["id"],
        devname=vif.get("devname") or f"tap{vif['id']}"[:14],
        mac=vif["address"],
        vif_type=vif["type"],
        vnic_type=vif.get("vnic_type") or "normal",
        mtu=vif["network"].get_meta("mtu"),
        hybrid_plug=vif.is_hybrid_plug_enabled(),
        datapath_type=details.get("datapath_type", "system"),
        active=vif.get("active", True),
        bandwidth=bandwidth or Bandwidth(),
    )
