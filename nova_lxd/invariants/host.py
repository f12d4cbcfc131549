"""Rules about the host's files, mounts and logs, and about what Placement believes of it."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator
from shlex import quote

from nova_lxd.invariants.facts import Expected, ExpectedServer, Facts, PlacementFacts, Violation

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TEMPORARY = re.compile(r"^lxd-image-[^/]*$|(^|/)(tmp[^/]*|[^/]*\.(part|tmp|partial|download))$")


def mounts_are_attachments(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I5"""
    for path in reversed(facts.mounts):
        if path not in expected.attached:
            mend, server = f"umount {quote(path)}", _server_of(facts, path)
            yield Violation("I5", f"mount {path}", "no volume is attached there", mend, server)
    for device, backing in facts.loops.items():
        if device not in expected.attached:
            problem = f"it holds {backing}, which no server uses"
            mend, server = f"losetup -d {device}", _server_of(facts, backing)
            yield Violation("I5", f"loop device {device}", problem, mend, server)


def placement_is_true(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I9"""
    if facts.placement is None:
        return
    yield from _allocations(expected, facts.placement)
    yield from _inventory(facts.placement)


def no_file_is_left(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I11"""
    uuids = {server.uuid for server in expected.servers}
    for path in facts.files:
        mend = f"rm -rf --one-file-system {quote(f'{facts.instances_path}/{path}')}"
        folder = server_folder(path)
        if folder == path and path not in uuids:
            yield Violation("I11", f"folder {path}", "its server is gone", mend, path)
        elif _TEMPORARY.search(path) and folder in uuids | {""}:
            yield Violation("I11", f"file {path}", "a temporary file was left behind", mend, folder)


def no_error_was_logged(expected: Expected, facts: Facts) -> Iterator[Violation]:
    """I13"""
    for line in facts.log_errors:
        if not any(re.search(pattern, line) for pattern in expected.log_allowed):
            yield Violation("I13", "log", line, "read the log around this line")


RULES = (mounts_are_attachments, placement_is_true, no_file_is_left, no_error_was_logged)


def server_folder(path: str) -> str:
    """Return the id of the server in whose folder a path lies; empty for one in none.

    :param path: relative to ``instances_path``
    """
    first = path.split("/", 1)[0]
    return first if _UUID.fullmatch(first) else ""


def _server_of(facts: Facts, path: str) -> str:
    return server_folder(os.path.relpath(path, facts.instances_path or "/"))


def _allocations(expected: Expected, placement: PlacementFacts) -> Iterator[Violation]:
    servers = {server.uuid: server for server in expected.servers}
    for consumer, held in placement.allocations.items():
        server = servers.get(consumer)
        if server is None:
            mend = f"openstack resource provider allocation delete {consumer}"
            yield Violation("I9", f"allocation {consumer}", "no server here holds it", mend)
            continue
        for resource, wanted in _promised(server).items():
            if held.get(resource, 0) != wanted:
                problem = f"{resource} is {held.get(resource, 0)} but the flavor says {wanted}"
                yield Violation("I9", f"allocation {consumer}", problem, _heal(consumer))
    for server in expected.servers:
        if server.built and server.uuid not in placement.allocations:
            problem = "the server holds no allocation"
            yield Violation("I9", f"allocation {server.uuid}", problem, _heal(server.uuid))


def _promised(server: ExpectedServer) -> dict[str, int]:
    promised = {"VCPU": server.vcpus, "MEMORY_MB": server.memory_mb}
    return promised | ({"DISK_GB": server.root_gb} if server.root_gb else {})


def _heal(consumer: str) -> str:
    return f"nova-manage placement heal_allocations --instance {consumer} --force"


def _inventory(placement: PlacementFacts) -> Iterator[Violation]:
    if placement.host is None:
        return
    host = placement.host
    real = {"VCPU": host.cpus, "MEMORY_MB": host.memory_mb, "DISK_GB": host.pool_gb}
    for resource, limit in real.items():
        total = placement.inventory.get(resource, 0)
        if not 0 < total <= limit:
            problem = f"the inventory says {total}, the host has {limit}"
            yield Violation("I9", f"inventory {resource}", problem, "restart nova-compute")
