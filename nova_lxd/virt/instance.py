"""Composes what LXD must be given to make a server, and reads its state back."""

from __future__ import annotations

from collections.abc import Iterable

from nova_lxd.virt import flavor as flavor_translator
from nova_lxd.virt import vif as vif_translator
from nova_lxd.virt.model import (
    Config,
    Flavor,
    HostFacts,
    IdRange,
    InstanceSpec,
    Server,
    Vif,
)

POWER = {
    "Running": "running",
    "Frozen": "paused",
    "Stopped": "shutdown",
    "Error": "crashed",
}
"""LXD's lasting states in Nova's words.  A passing or unknown one is ``pending``: Nova acts on
``shutdown`` and ``crashed``, so neither may be guessed."""


def power(status: str) -> str:
    """Translate LXD's status."""
    return POWER.get(status, "pending")


def rescue_name(name: str) -> str:
    """Name the container that a rescued server runs while its own is repaired."""
    return f"{name}-rescue"


def owner_config(server: Server) -> Config:
    """Mark whose the instance is; ids only, never a tenant's text."""
    config = {
        "user.nova.uuid": server.uuid,
        "user.nova.project_id": server.project_id,
        "user.nova.user_id": server.user_id,
        "user.nova.image_id": server.image_id,
        "user.nova.request_id": server.request_id,
    }
    return {key: value for key, value in config.items() if value}


def compose(
    server: Server,
    flavor: Flavor,
    vifs: Iterable[Vif],
    host: HostFacts,
    image_fingerprint: str,
    ids: IdRange,
) -> InstanceSpec:
    """Compose the whole of a server.

    What the flavor says goes into the profile, which changes only while the server is off.  NICs
    are the instance's own, since a failed live change rolls back there and not in a profile
    (measured on LXD 5.0.2).
    """
    profile_config = flavor_translator.profile_config(flavor, host)
    config = owner_config(server)
    if profile_config.get("security.idmap.isolated") == "true":
        config |= {"security.idmap.base": str(ids.base), "security.idmap.size": str(ids.size)}
    return InstanceSpec(
        name=server.name,
        image_fingerprint=image_fingerprint,
        profile_config=profile_config,
        profile_devices={"root": flavor_translator.root_device(flavor, host)},
        config=config,
        devices=vif_translator.devices(list(vifs)),
    )
