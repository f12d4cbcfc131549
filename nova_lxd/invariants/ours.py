"""What on a host is certainly the driver's: others use LXD, Open vSwitch and the folders too.

The tests' rules find everything that is not as it should be on a machine of their own.  On an
operator's host only that may be called left over which nobody but the driver makes.
"""

from __future__ import annotations

import functools
import os.path
from collections.abc import Iterator
from dataclasses import replace

from nova_lxd.invariants.facts import (
    Expected,
    Facts,
    Link,
    LxdImage,
    LxdInstance,
    LxdObject,
    OvsPort,
)
from nova_lxd.invariants.host import server_folder
from nova_lxd.invariants.network import PREFIXES, suffix_of, wire_owners
from nova_lxd.virt.instance import IMAGE_SNAPSHOT, RESIZE_SNAPSHOT
from nova_lxd.virt.model import IMAGE_ID_KEY

_SNAPSHOTS = frozenset({IMAGE_SNAPSHOT, RESIZE_SNAPSHOT})
_TRUNK = "tbr-"


def narrowed(expected: Expected, facts: Facts) -> tuple[Expected, Facts]:
    """Leave out what may be somebody else's, what is not finished, and what works now.

    Operations end by themselves.  Backups of instances are made by ``lxc export`` alone.
    """
    spared = _spared(expected, facts)
    of_nobody = functools.partial(_is_in_folder_of_nobody, expected, facts)
    narrow = replace(
        facts,
        instances=tuple(map(_without_foreign_parts, filter(_is_novas, facts.instances))),
        objects=tuple(item for item in facts.objects if _is_object_of_ours(item, facts)),
        images=tuple(image for image in facts.images if _is_finished(expected, image)),
        links=tuple(filter(_is_wire, facts.links)),
        ovs_ports=tuple(p for p in facts.ovs_ports if _is_ovs_port_of_ours(expected, p)),
        mounts=tuple(path for path in facts.mounts if of_nobody(path)),
        loops={device: file for device, file in facts.loops.items() if of_nobody(file)},
        files=tuple(path for path in facts.files if _is_file_of_ours(expected, path)),
    )
    return replace(expected, other_links=expected.other_links | spared), narrow


def _is_novas(instance: LxdInstance) -> bool:
    return "user.nova.uuid" in instance.config


def _without_foreign_parts(instance: LxdInstance) -> LxdInstance:
    """Keep the snapshots that the driver takes; operators take theirs, and all the backups."""
    kept = tuple(name for name in instance.snapshots if name in _SNAPSHOTS)
    return replace(instance, snapshots=kept, backups=())


def _is_object_of_ours(item: LxdObject, facts: Facts) -> bool:
    if item.kind == "volume":
        return "user.nova.uuid" in item.config
    if item.kind != "profile" or item.config.get("environment.product_name") != "OpenStack Nova":
        return False
    # A profile that others' instances use cannot be deleted, and is not for us to say.
    novas = {instance.name for instance in facts.instances if _is_novas(instance)}
    return novas.issuperset(item.instances)


def _is_finished(expected: Expected, image: LxdImage) -> bool:
    """Whether it is an image of Glance's to which nothing is to be done any more."""
    young = expected.makes_images or image.age < expected.naming_seconds
    return IMAGE_ID_KEY in image.properties and not young


def _is_wire(link: Link) -> bool:
    """Whether it is of the kind that os-vif and the driver make; virtual machines have tun taps."""
    kind = "bridge" if link.name.startswith("qbr") else "veth"
    return bool(suffix_of(link.name)) and link.kind == kind


def _is_in_use(link: Link) -> bool:
    """Whether a container of another LXD has its other end, or another Open vSwitch has it.

    Our Open vSwitch names the server of each of its ports; two of them can be on one machine.
    """
    switched = not link.name.startswith(("qbr", "qvb")) and link.master != f"qbr{link.name[3:]}"
    return link.in_container or (switched and link.promiscuous)


def _is_ovs_port_of_ours(expected: Expected, port: OvsPort) -> bool:
    trunk = port.bridge.startswith(_TRUNK)
    named = bool(suffix_of(port.name)) or port.name == port.bridge
    return named and (trunk or port.bridge == expected.integration_bridge)


def _is_in_folder_of_nobody(expected: Expected, facts: Facts, path: str) -> bool:
    """Whether it lies in the folder of a server that is not on this host."""
    folder = server_folder(os.path.relpath(path, facts.instances_path or "/"))
    return bool(folder) and folder not in {server.uuid for server in expected.servers}


def _is_file_of_ours(expected: Expected, path: str) -> bool:
    """Whether it is a server's folder, a console log that is being written or an image on its way.

    Nova's libvirt driver may use the same folder.
    """
    prefix = expected.image_folders
    return (
        path == server_folder(path)
        or path.endswith("/console.part")
        or bool(prefix and path.startswith(prefix))
    )


def _spared(expected: Expected, facts: Facts) -> frozenset[str]:
    """Name the devices that are others' or in use, whatever Nova says of their ports."""
    return frozenset(
        prefix + suffix for suffix in _suffixes(expected, facts) for prefix in PREFIXES
    )


def _suffixes(expected: Expected, facts: Facts) -> Iterator[str]:
    for instance in facts.instances:
        # What a server's container is configured to use must not go under it.
        if not _is_novas(instance) or expected.server(instance.name):
            yield from filter(None, map(suffix_of, instance.devices))
    owners = wire_owners(facts)
    for link in facts.links:
        suffix = suffix_of(link.name)
        if suffix and (not _is_wire(link) or (suffix not in owners and _is_in_use(link))):
            yield suffix
    for port in facts.ovs_ports:
        of_a_server = "vm-uuid" in port.external_ids
        elsewhere = not _is_ovs_port_of_ours(expected, port)
        if suffix_of(port.name) and (not of_a_server or elsewhere):
            yield suffix_of(port.name)
