"""What the host of the one-node cloud holds, line by line: a line more or less is a difference."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from aio.ovs import OvsDaemon
from aio.process import Process, command_line, members
from aio.run import run
from aio.settings import Settings
from nova_lxd.invariants import gather
from nova_lxd.invariants.gather import Get

Inventory = dict[str, Counter[str]]
"""Kind, in the words of the command that lists it -> its lines; one line may come several times."""

_COUNTERS = re.compile(r" \[\d+:\d+\]$")
_NUMBER = re.compile(r":\[\d+\]$")
_CHANGING = ("last_used_at", "used_by")
"""What LXD says of a thing that is not about the thing."""


def differences(before: Inventory, after: Inventory) -> list[str]:
    """Return one line for each that came, went, or is there more or less often."""
    return [
        f"{kind}: {line}: {before[kind][line]} before, {after[kind][line]} after"
        for kind in before
        for line in sorted(before[kind] | after[kind])
        if before[kind][line] != after[kind][line]
    ]


def counts(inventory: Inventory) -> dict[str, int]:
    """Return how many lines there are of each kind."""
    return {kind: lines.total() for kind, lines in inventory.items()}


def take(settings: Settings) -> Inventory:
    """List what is there now.

    The whole machine is listed, since a thing that is left need not have a name by which one can
    tell its owner: whatever else changes on it is a difference, too.
    """
    ovs = OvsDaemon(settings.ovs, manager_port=settings.ports.ovsdb)
    get = gather.lxd(str(settings.lxd / "unix.socket"))
    found = {
        "ip link": run("ip", "-oneline", "link").splitlines(),
        "ip netns": (line.split()[0] for line in run("ip", "netns").splitlines()),
        "ovs-vsctl show": ovs.vsctl("show").splitlines(),
        "flows of br-int": ovs.ofctl("--no-stats", "dump-flows", "br-int").splitlines()[1:],
        "iptables-save": rules(run("iptables-save")),
        "ip6tables-save": rules(run("ip6tables-save")),
        "ipset save": run("ipset", "save").splitlines(),
        "/proc/mounts": Path("/proc/mounts").read_text().splitlines(),
        **_lxd(get, settings.lxd_project),
        **_compute(settings),
    }
    return {kind: Counter(lines) for kind, lines in found.items()}


def rules(saved: str) -> list[str]:
    """Return what iptables-save says without the time and the numbers of packets."""
    return [_COUNTERS.sub("", line) for line in saved.splitlines() if not line.startswith("#")]


def _lxd(get: Get, project: str) -> dict[str, Iterable[str]]:
    kinds = {f"lxc {kind} list": f"/1.0/{kind}s" for kind in ("instance", "profile", "image")}
    for path in get("/1.0/storage-pools"):
        kinds[f"volumes of {path.rsplit('/', 1)[-1]}"] = f"{path}/volumes"
    return {
        kind: map(stable, get(f"{path}?recursion=1&project={project}"))
        for kind, path in kinds.items()
    }


def stable(thing: dict[str, object]) -> str:
    """Write down what LXD says of a thing, as far as it stays when it is used."""
    kept = {key: value for key, value in thing.items() if key not in _CHANGING}
    return json.dumps(kept, sort_keys=True)


def _compute(settings: Settings) -> dict[str, Iterable[str]]:
    """List the open files of nova-compute and of its privileged helpers, and the helpers' threads.

    nova-compute's own are those of futurist's pools, which get a thread for each task until they
    are full, whether others are idle or not.
    """
    leader = Process("nova-compute", settings.run, settings.log, owner=str(settings.state)).pid
    if leader is None:
        raise RuntimeError("nova-compute does not run: python3 aio up")
    names = {pid: process_name(command_line(pid)) for pid in members(leader)}
    return {
        "open files": [f"{name}: {file}" for pid, name in names.items() for file in _files(pid)],
        "threads of helpers": [
            name
            for pid, name in names.items()
            for _ in _listed(f"/proc/{pid}/task")
            if pid != leader
        ],
    }


def process_name(arguments: bytes) -> str:
    """Name nova-compute and its helpers: they are all Python."""
    words = arguments.decode(errors="replace").rstrip("\0").split("\0")
    if "--privsep_context" in words:
        return words[words.index("--privsep_context") + 1]
    is_python = Path(words[0]).name.startswith("python")
    return Path(words[1 if is_python and len(words) > 1 else 0]).name


def _files(pid: int) -> Iterator[str]:
    for number in _listed(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield file_name(os.readlink(f"/proc/{pid}/fd/{number}"))


def file_name(target: str) -> str:
    """Name an open file; a socket or pipe has a number that will never be the same again."""
    return _NUMBER.sub("", target)


def _listed(folder: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(folder)
    return []
