"""Rules about what is in LXD."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations

from nova_lxd.invariants.facts import Expected, ExpectedServer, Facts, LxdInstance, Violation
from nova_lxd.virt.model import IdRange

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{letter}iB": 2 ** (10 * n) for n, letter in enumerate("KMGTPE", start=1)}
_UNITS |= {f"{letter}B": 10 ** (3 * n) for n, letter in enumerate("kMGTPE", start=1)}

_DELETE = {
    "profile": "profile delete",
    "volume": "storage volume delete",
    "operation": "operation delete",
}


def no_instance_is_left(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I1, first half: no instance without a server."""
    for instance in facts.instances:
        if expected.server(instance.name) is None:
            mend = f"{expected.client} delete --force {instance.name}"
            problem = "Nova has no such server here"
            owner = instance.config.get("user.nova.uuid", "")
            yield Violation("I1", f"instance {instance.name}", problem, mend, owner)


def servers_have_instances(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I1, second half: every server has its instances."""
    lxc = expected.client
    found = {instance.name: instance for instance in facts.instances}
    for name, instance in found.items():
        server = expected.server(name)
        owner = instance.config.get("user.nova.uuid", "")
        if server and owner != server.uuid:
            problem = f"user.nova.uuid is {owner!r} but the server's id is {server.uuid}"
            yield _on(name, "I1", problem, f"{lxc} config set {name} user.nova.uuid={server.uuid}")
    for server in expected.servers:
        for name in sorted(server.containers.keys() - found.keys()) if server.built else ():
            mend = f"openstack server rebuild {server.uuid}"
            yield _on(name, "I1", "the server has no LXD instance", mend)


def everything_has_an_owner(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I2; what is an instance's goes with it."""
    yield from _objects_have_owners(expected, facts)
    yield from _images_have_owners(expected, facts)
    for instance in facts.instances:
        server = expected.server(instance.name)
        if server and server.settled:
            yield from _has_no_more(expected, server, instance)


def id_maps_are_disjoint(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I6"""
    lxc = expected.client
    maps = {instance.name: id_ranges(instance) for instance in facts.instances}
    for instance in facts.instances:
        name, server = instance.name, expected.server(instance.name)
        rebuild = f"openstack server rebuild {instance.config.get('user.nova.uuid', name)}"
        if _is_true(instance, "security.privileged"):
            if server is None or not server.privileged:
                mend = f"{lxc} stop {name} && {lxc} config unset {name} security.privileged"
                yield _on(name, "I6", "privileged, but its flavor does not allow it", mend)
            continue
        if not _is_true(instance, "security.idmap.isolated"):
            yield _on(name, "I6", "its id map is not isolated", rebuild)
        outside = [r for r in maps[name] if expected.id_range and not _inside(r, expected.id_range)]
        for ids in outside:
            problem = f"host ids {_text(ids)} are outside the host's {_text(expected.id_range)}"
            yield _on(name, "I6", problem, rebuild)
    for (one, ranges), (other, others) in combinations(maps.items(), 2):
        server = expected.server(one)
        if server and server.has(other):
            continue
        if any(a.overlaps(b) for a in ranges for b in others):
            problem = f"shares host ids with {one}: each can reach the other's files"
            mend = f"{lxc} stop {other} && {lxc} config set {other} security.idmap.base=FREE"
            yield _on(other, "I6", problem, mend)


def limits_are_the_flavors(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I8"""
    for instance in facts.instances:
        server = expected.server(instance.name)
        if server is None or server.current != instance.name:
            continue
        for key, wanted, value in _limits(expected, server, instance):
            if value != wanted:
                problem = f"{key} is {value} but the flavor says {wanted}"
                mend = f"openstack server resize, or openstack server reboot --hard {server.name}"
                yield _on(server.name, "I8", problem, mend)


def power_is_novas(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I10"""
    for instance in facts.instances:
        server = expected.server(instance.name)
        status = server.containers.get(instance.name, "") if server else ""
        if status and status != instance.status:
            problem = f"LXD says {instance.status}, Nova says {status}"
            verb = {"Running": "start", "Frozen": "pause"}.get(status, "stop")
            mend = f"{expected.client} {verb} {instance.name}"
            yield _on(instance.name, "I10", problem, mend)


def config_is_harmless(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I14"""
    for instance in facts.instances:
        for key, problem in _harmful_keys(instance):
            mend = f"{expected.client} config unset {instance.name} {key}"
            yield _on(instance.name, "I14", problem, mend)


def foreigners_are_untouched(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I16"""
    if facts.foreign is None:
        return
    for name in sorted(expected.foreign.keys() | facts.foreign.keys()):
        before, now = expected.foreign.get(name), facts.foreign.get(name)
        if before != now:
            word = "is new" if before is None else "is gone" if now is None else "has changed"
            mend = "find out who did it: the driver must stay inside its project"
            yield Violation("I16", f"foreign instance {name}", word, mend)


RULES = (
    no_instance_is_left,
    servers_have_instances,
    everything_has_an_owner,
    id_maps_are_disjoint,
    limits_are_the_flavors,
    power_is_novas,
    config_is_harmless,
    foreigners_are_untouched,
)


def size_in_bytes(value: str) -> int | None:
    """Return an LXD size (``512MiB``, ``10GB``, ``4096``) in bytes, ``None`` when it is none."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", value)
    if not match or match[2] not in _UNITS:
        return None
    return int(match[1]) * _UNITS[match[2]]


def id_ranges(instance: LxdInstance) -> list[IdRange]:
    """Return the host ids that an instance uses or will use at its next start."""
    found = {
        IdRange(entry["Hostid"], entry["Maprange"])
        for key in ("volatile.idmap.current", "volatile.idmap.next")
        for entry in json.loads(instance.config.get(key) or "[]")
    }
    return sorted(found, key=lambda ids: ids.base)


def _objects_have_owners(expected: Expected, facts: Facts) -> Iterator[Violation]:
    lxc = expected.client
    uuids = {server.uuid for server in expected.servers}
    ids = {each.name: each.config.get("user.nova.uuid", "") for each in facts.instances}
    for item in facts.objects:
        users = filter(None, map(ids.get, item.instances))
        owner = item.config.get("user.nova.uuid") or next(users, "")
        owned = owner in uuids or any(map(expected.server, item.instances))
        if item.kind == "profile" and not item.instances:
            # A server without a container is not wholly removed yet, and that can be its profile.
            owned = item.name == "default" or any(s.name not in ids for s in expected.servers)
        if not owned:
            subject, problem = f"{item.kind} {item.name}", "it belongs to no server"
            yield Violation(
                "I2", subject, problem, f"{lxc} {_DELETE[item.kind]} {item.name}", owner
            )


def _has_no_more(
    expected: Expected, server: ExpectedServer, instance: LxdInstance
) -> Iterator[Violation]:
    lxc, problem = expected.client, "nobody needs it"
    for snapshot in instance.snapshots:
        if snapshot not in server.snapshots:
            name = f"{instance.name}/{snapshot}"
            yield Violation("I2", f"snapshot {name}", problem, f"{lxc} delete {name}", server.uuid)
    for backup in instance.backups:
        path = f"/1.0/instances/{instance.name}/backups/{backup}?project={expected.project}"
        mend = f"{expected.lxc} query -X DELETE '{path}'"
        yield Violation("I2", f"backup {instance.name}/{backup}", problem, mend, server.uuid)


def _images_have_owners(expected: Expected, facts: Facts) -> Iterator[Violation]:
    for image in facts.images:
        if not image.aliases:
            short = image.fingerprint[:12]
            mend = f"{expected.client} image delete {short}"
            problem = "no alias says which Glance image it is"
            yield Violation("I2", f"image {short}", problem, mend)


def _limits(
    expected: Expected, server: ExpectedServer, instance: LxdInstance
) -> Iterator[tuple[str, object, object]]:
    config = instance.config
    memory = size_in_bytes(config.get("limits.memory", ""))
    yield "limits.memory", server.memory_mb * 2**20, memory
    cpus = config.get("limits.cpu", "")
    yield "limits.cpu", server.vcpus, int(cpus) if cpus.isdigit() else cpus
    if expected.enforces_disk_size and server.root_gb:
        root = instance.devices.get("root", {})
        yield "root disk", server.root_gb * 2**30, size_in_bytes(root.get("size", ""))


def _harmful_keys(instance: LxdInstance) -> Iterator[tuple[str, str]]:
    for key, value in instance.config.items():
        if key.startswith("raw."):
            yield key, f"{key} is set: it can lift every confinement"
        if not key.startswith("volatile.") and re.search(r"[\x00\r\n]", value):
            yield key, f"{key} holds a control character"
    if instance.config.get("security.devlxd", "true") != "false":
        yield "security.devlxd", "security.devlxd is not false: cloud-init would miss Nova"
    for name, device in instance.devices.items():
        if device.get("shift") == "true" or device.get("security.shifted") == "true":
            yield name, f"device {name} is shifted"
        for key, value in device.items():
            if re.search(r"[\x00\r\n]", value):
                yield name, f"device {name}: {key} holds a control character"
    if instance.config.get("security.shifted") == "true":
        yield "security.shifted", "security.shifted is set"


def _inside(ids: IdRange, whole: IdRange) -> bool:
    return whole.base <= ids.base and ids.end <= whole.end


def _text(ids: IdRange | None) -> str:
    return f"{ids.base}-{ids.end - 1}" if ids else "?"


def _is_true(instance: LxdInstance, key: str) -> bool:
    return instance.config.get(key, "false").lower() in ("true", "1", "yes", "on")


def _on(name: str, rule: str, problem: str, mend: str) -> Violation:
    return Violation(rule, f"instance {name}", problem, mend)
