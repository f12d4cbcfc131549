"""Composes what LXD must be given to make a server, and reads its state back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping

from nova_lxd import exception
from nova_lxd.virt import flavor as flavor_translator
from nova_lxd.virt import vif as vif_translator
from nova_lxd.virt.model import (
    ROLE_KEY,
    Config,
    Devices,
    Flavor,
    HostFacts,
    IdRange,
    InstanceSpec,
    InstanceState,
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


def config_drive_name(name: str) -> str:
    """Name the storage volume that is a server's config drive."""
    return f"{name}-config"


IMAGE_SNAPSHOT = "nova-image"
"""A container has this snapshot only while an image is made of it."""

RESIZE_SNAPSHOT = "nova-resize"
"""The way back from a resize: taken when the server is off, gone when the resize is confirmed or
reverted."""

CONFIG_DRIVE_PATH = "/var/lib/cloud/seed/config_drive"
"""Where cloud-init looks for the files of a config drive, and containers have no disk labels."""

_PROFILE = "flavor-"

RESCUE_ROLE, RESCUED_ROLE = "rescue", "rescued"
"""Roles of a rescue container, and of the server's own one while the other has its NICs."""

RESCUED_PATH = "/mnt/rescued"
"""Where a rescued server finds its own root; documented in the user guide."""

RESCUED_POOLS = frozenset({"btrfs", "dir"})
"""Storage drivers whose root disks can be reached while their container is stopped."""


def rescue(spec: InstanceSpec, fingerprint: str, root_path: str) -> InstanceSpec:
    """Turn a server into its rescue container, with the server's root at ``RESCUED_PATH``.

    The two share a profile and, so that the files keep their owners, an id map.

    :param spec: the server as it is composed
    :param root_path: where the server's root file system lies on the host
    """
    rescued = {"type": "disk", "source": root_path, "path": RESCUED_PATH}
    return dataclasses.replace(
        spec,
        name=rescue_name(spec.name),
        image_fingerprint=fingerprint,
        config=spec.config | {ROLE_KEY: RESCUE_ROLE},
        devices=spec.devices | {"rescued": rescued},
    )


def without_nics(own: Devices, expanded: Devices, root_size: str) -> Devices:
    """Take a server's NICs away and let its root disk have another size meanwhile.

    :param own: the devices of its own container
    :param expanded: these and the profile's
    """
    root = expanded["root"]
    grown = {"root": root | {"size": root_size}} if "size" in root else {}
    return _others(own) | grown


def with_nics(
    own: Devices, expanded: Devices, vifs: Iterable[Vif], names: Mapping[str, str]
) -> Devices:
    """Undo what ``without_nics`` did.

    :param names: see :func:`nova_lxd.virt.vif.devices`
    """
    return _others(own) | vif_translator.devices(list(vifs), names)


def nic_names(states: Iterable[InstanceState]) -> dict[str, str]:
    """Tell what a server's containers call its NICs, by their names on the host."""
    return {device: nic.name for state in states for device, nic in state.nics.items()}


def _others(own: Devices) -> Devices:
    return {key: value for key, value in own.items() if value["type"] != "nic" and key != "root"}


def rescued_root_size(flavor: Flavor) -> str:
    """Return a little more than the flavor's root disk has.

    LXD keeps a file of its own there and can neither change nor start a container whose disk is
    full (measured on 5.0.2), which is what a rescue may have to mend.
    """
    return f"{flavor.root_gb * 1024 + 16}MiB"


def root_path(lxd_folder: str, pool: str, project: str, name: str) -> str:
    """Tell where a ``dir`` or ``btrfs`` pool keeps a container's root file system."""
    folder = name if project == "default" else f"{project}_{name}"
    return f"{lxd_folder}/storage-pools/{pool}/containers/{folder}/rootfs"


def servers(states: Iterable[InstanceState]) -> dict[str, str]:
    """Name Nova's servers by id: each once, a rescued one and half removed ones too."""
    suffix = rescue_name("")
    return {
        state.uuid: state.name.removesuffix(suffix) if state.role == RESCUE_ROLE else state.name
        for state in states
        if state.uuid
    }


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
    nic_names: Mapping[str, str] | None = None,
) -> InstanceSpec:
    """Compose the whole of a server.

    :param nic_names: see :func:`nova_lxd.virt.vif.devices`
    :raises Refused: it is to have ids of its own, and ``ids`` are the host's

    What the flavor says goes into the profile, which changes only while the server is off.  NICs
    are the instance's own, since a failed live change rolls back there and not in a profile
    (measured on LXD 5.0.2).
    """
    profile_config = flavor_translator.profile_config(flavor, host)
    profile_devices = {"root": flavor_translator.root_device(flavor, host)}
    config = owner_config(server)
    if profile_config.get("security.idmap.isolated") == "true":
        if ids.base <= 0:
            # LXD would take 0 at its word, and the guest's root would be the host's.
            raise exception.Refused(
                f"LXD's instance {server.name} has lost its security.idmap.base, so nobody knows "
                "whose its files are: set it to the host id that owns them, or rebuild the server"
            )
        config |= {"security.idmap.base": str(ids.base), "security.idmap.size": str(ids.size)}
    return InstanceSpec(
        name=server.name,
        image_fingerprint=image_fingerprint,
        profile=profile_name(profile_config, profile_devices),
        profile_config=profile_config,
        profile_devices=profile_devices,
        config=config,
        devices=vif_translator.devices(list(vifs), nic_names) | _config_drive(server, host),
    )


def profile_name(config: Config, devices: Devices) -> str:
    """Name a profile after its content, so that servers that need the same share it.

    A profile for each server would make LXD 5.0.2 slow: reading its instances, which it does at
    every create, start, stop and delete, takes it the square of the number of profiles (measured).
    """
    content = json.dumps([config, devices], sort_keys=True)
    return f"{_PROFILE}{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def is_profile_of_ours(name: str) -> bool:
    """Whether ``profile_name`` makes such names."""
    return name.startswith(_PROFILE)


def _config_drive(server: Server, host: HostFacts) -> Devices:
    if not server.config_drive:
        return {}
    device = {
        "type": "disk",
        "pool": host.pool,
        "source": config_drive_name(server.name),
        "path": CONFIG_DRIVE_PATH,
        "readonly": "true",
    }
    return {"config-drive": device}
