"""What Nova orders, read once: its objects copied into our values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nova.virt import configdrive

from nova_lxd.virt import imagecache, network
from nova_lxd.virt.model import Flavor, ImageSource, Server, Vif


@dataclass(frozen=True, slots=True)
class Order:
    """One server as it was ordered: Nova's objects read once."""

    server: Server
    flavor: Flavor
    source: ImageSource
    vifs: list[Vif]
    trusted_certs: Any


def order_of(context: Any, instance: Any, image_meta: Any, network_info: Any) -> Order:
    """Copy what Nova says of one server; waits for its network's allocation."""
    return Order(
        server=Server(
            name=instance.name,
            uuid=instance.uuid,
            project_id=instance.project_id or "",
            user_id=instance.user_id or "",
            image_id=instance.image_ref or "",
            flavor_name=instance.flavor.name,
            request_id=getattr(context, "request_id", None) or "",
            config_drive=bool(configdrive.required_by(instance)),
        ),
        flavor=flavor_of(instance.flavor),
        source=imagecache.source_of(image_meta),
        vifs=network.vifs_of(network_info),
        trusted_certs=instance.trusted_certs,
    )


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
