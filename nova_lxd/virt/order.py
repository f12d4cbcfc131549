"""What Nova orders, read once: its objects copied into our values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nova.virt import configdrive

from nova_lxd.virt import imagecache
from nova_lxd.virt.bandwidth import bandwidth
from nova_lxd.virt.copies import flavor_of, vifs_of
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
        vifs=vifs_of(instance, network_info),
        trusted_certs=instance.trusted_certs,
    )


def with_flavor(order: Order, flavor: Flavor) -> Order:
    """Order the same server with another flavor."""
    vifs = [with_bandwidth(vif, flavor) for vif in order.vifs]
    return dataclasses.replace(order, flavor=flavor, vifs=vifs)


def with_bandwidth(vif: Vif, flavor: Flavor) -> Vif:
    """Limit a port to what a flavor says.

    :raises FlavorRefused: see :func:`nova_lxd.virt.bandwidth.bandwidth`
    """
    return dataclasses.replace(vif, bandwidth=bandwidth(flavor))
