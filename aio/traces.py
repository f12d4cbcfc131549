"""What servers leave on a host, in order to prove that nothing stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from aio import kernel
from aio.lxd import LxdDaemon
from aio.ovs import OvsDaemon
from aio.run import run
from aio.settings import Settings

Traces = dict[str, frozenset[str]]
"""Kind, in the words of the command that lists it -> the names that are there."""

# What os-vif and the driver name after a port; the machine's other links are not our business.
_PORT_LINK = re.compile(r"(tap|tin|qbr|qvb|qvo)[0-9a-f]{8}-[0-9a-f]{2}")
_PORT_CHAIN = re.compile(r"^:(neutron-openvswi-[ios][0-9a-f]{8}-\S)", re.MULTILINE)
# LXD's own: neither belongs to a server.
_IGNORED = {"lxc profile list": {"default"}}


def traces(settings: Settings) -> Traces:
    """List what exists on the host of the running cloud and could belong to a server."""
    lxd = LxdDaemon(settings.lxd)
    project = settings.lxd_project
    found = {
        "lxc list": _lxc(lxd, "list", "--project", project),
        "lxc profile list": _lxc(lxd, "profile", "list", "--project", project),
        "ip link": filter(_PORT_LINK.fullmatch, kernel.links()),
        "ip netns": _first_words(run("ip", "netns", "list")),
        "ovs-vsctl list-ports": _ports(settings),
        "files of instances": _names(settings.data / "nova" / "instances"),
        "firewall": _chains(settings),
    }
    return {kind: frozenset(names) - _IGNORED.get(kind, set()) for kind, names in found.items()}


def difference(before: Traces, after: Traces) -> list[str]:
    """Return one line for each thing that is there after but was not before, sorted by kind."""
    return [f"{kind}: {name}" for kind in before for name in sorted(after[kind] - before[kind])]


def _lxc(lxd: LxdDaemon, *command: str) -> list[str]:
    return [item["name"] for item in json.loads(lxd.lxc(*command, "--format", "json"))]


def _ports(settings: Settings) -> list[str]:
    ovs = OvsDaemon(settings.ovs)
    vsctl = ("ovs-vsctl", f"--db={ovs.db}", "--timeout=30")
    bridges = run(*vsctl, "list-br").split()
    return [port for bridge in bridges for port in run(*vsctl, "list-ports", bridge).split()]


def _first_words(text: str) -> Iterable[str]:
    return (line.split()[0] for line in text.splitlines() if line.strip())


def _names(folder: Path) -> list[str]:
    return [item.name for item in folder.iterdir()] if folder.is_dir() else []


def _chains(settings: Settings) -> list[str]:
    """Return the firewall's chains of single ports; those of the agent itself stay."""
    saved = run(str(settings.bin / "iptables-save"), "-t", "filter")
    return _PORT_CHAIN.findall(saved)
