"""What the cloud changes on the machine as a whole, recorded so that it can be undone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from aio import kernel
from aio.errors import AioError
from aio.run import run
from aio.settings import Settings

#: sysctl -> least value that forty servers need
_WANTED = {
    "kernel.keys.maxkeys": 2000,
    "kernel.keys.maxbytes": 2000000,
    "fs.inotify.max_user_instances": 1024,
}
#: sysctls that Neutron's agents, LXD or we change
_CHANGED = (
    *_WANTED,
    "net.bridge.bridge-nf-call-arptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.neigh.default.gc_thresh1",
    "net.ipv6.neigh.default.gc_thresh2",
    "net.ipv6.neigh.default.gc_thresh3",
)
_NETNS = Path("/run/netns")
_FLAVOURS = ("xtables-nft-multi", "xtables-legacy-multi")
_TOOLS = tuple(f"ip{six}tables{verb}" for six in ("", "6") for verb in ("", "-save", "-restore"))
_OUR_NAMESPACE = re.compile(r"^(qdhcp|qrouter|snat|fip)-[0-9a-f-]{36}$")
_VIF_LINK = re.compile(r"^(qbr|qvb|qvo|tap|tin)([0-9a-f]{8}-[0-9a-f]{2})$")


def _path(sysctl: str) -> Path:
    return Path("/proc/sys", *sysctl.split("."))


def record(settings: Settings) -> None:
    """Write down how the machine was, unless that is done already."""
    file = settings.state / "machine.json"
    if file.exists():
        return
    before = {name: _path(name).read_text().strip() for name in _CHANGED if _path(name).exists()}
    file.write_text(json.dumps({"sysctl": before, "netns": _netns_is_mounted()}))


def raise_limits() -> None:
    """Raise the kernel's limits that are lower than the servers need."""
    for name, least in _WANTED.items():
        if int(_path(name).read_text()) < least:
            _path(name).write_text(str(least))


def restore(settings: Settings) -> None:
    """Put back what ``record`` saw; harmless when there is no record."""
    file = settings.state / "machine.json"
    if not file.exists():
        return
    before = json.loads(file.read_text())
    for name, value in before["sysctl"].items():
        if _path(name).exists() and _path(name).read_text().strip() != value:
            _path(name).write_text(value)
    if not before["netns"] and _netns_is_mounted() and not os.listdir(_NETNS):
        run("umount", str(_NETNS), check=False)
    file.unlink()


def _netns_is_mounted() -> bool:
    """Tell whether iproute2 has mounted its folder: on itself, which is_mount() does not see."""
    return str(_NETNS) in kernel.mounts_below(_NETNS)


def choose_iptables(settings: Settings) -> str:
    """Link the iptables flavour that works here into our PATH; return its program's name.

    The machine's own choice is tried first, and is not changed.
    """
    default = Path(kernel.program("iptables")).resolve().name
    for flavour in sorted(_FLAVOURS, key=lambda name: name != default):
        if _works(kernel.program(flavour)):
            _link(settings, kernel.program(flavour))
            return flavour
    raise AioError(
        "neither flavour of iptables works with the matches that security groups need",
        hint="the kernel lacks physdev, set, mac or comment; try another kernel",
    )


def _works(program: str) -> bool:
    """Try a rule as Neutron writes them, in a network namespace that ends with the command."""
    chain = "-A FORWARD -m physdev --physdev-out tap0 --physdev-is-bridged"
    rule = f"{chain} -m mac --mac-source fa:16:3e:00:00:01 -m comment --comment x -j ACCEPT"
    script = f"*filter\n{rule}\nCOMMIT\n"
    try:
        run("unshare", "--net", program, "iptables-restore", stdin=script)
    except AioError:
        return False
    return True


def _link(settings: Settings, program: str) -> None:
    settings.bin.mkdir(parents=True, exist_ok=True)
    for tool in _TOOLS:
        link = settings.bin / tool
        link.unlink(missing_ok=True)
        link.symlink_to(program)


def remove_namespaces() -> None:
    """Delete the network namespaces of Neutron's agents."""
    for line in run("ip", "netns", "list", check=False).splitlines():
        name = line.split()[0]
        if _OUR_NAMESPACE.match(name):
            run("ip", "netns", "delete", name, check=False)


def remove_links(ports: Iterable[str]) -> None:
    """Delete the bridges and veth pairs that os-vif made for servers.

    ``ports`` are the names of the ports of our Open vSwitch: they tell ours from those of another
    cloud. A bridge without any port, left by a plug that was cut short, goes as well.
    """
    ours = {match.group(2) for name in ports if (match := _VIF_LINK.match(name))}
    for name in kernel.links():
        match = _VIF_LINK.match(name)
        if match and (match.group(2) in ours or _is_empty_bridge(name)):
            kernel.delete_link(name)


def _is_empty_bridge(name: str) -> bool:
    members = Path("/sys/class/net", name, "brif")
    return members.is_dir() and not os.listdir(members)


def remove_firewall(settings: Settings) -> None:
    """Delete Neutron's chains and sets from the machine's own namespace."""
    for six in ("", "6"):
        tool = settings.bin / f"ip{six}tables"
        if tool.exists():
            saved = run(f"{tool}-save", check=False)
            if script := without_neutron(saved):
                run(f"{tool}-restore", "--noflush", stdin=script, check=False)
    if kernel.have("ipset"):
        for name in run("ipset", "list", "-name", check=False).split():
            if re.match(r"^N(ET)?IPv[46]", name):
                run("ipset", "destroy", name, check=False)


def without_neutron(saved: str) -> str:
    """Return the input for iptables-restore that deletes Neutron's rules and chains.

    ``saved`` is what iptables-save printed. Chains of others stay as they are; empty when there
    is nothing of Neutron's.
    """
    script: list[str] = []
    for table in saved.split("*")[1:]:
        lines = table.splitlines()
        chains = [line[1:].split()[0] for line in lines if line.startswith(":neutron-")]
        jumps = [line for line in lines if line.startswith("-A") and "-j neutron-" in line]
        rules = [line for line in jumps if not line.startswith("-A neutron-")]
        if chains:
            script += [f"*{lines[0]}", *(f"-D{line[2:]}" for line in rules)]
            script += [f"-F {name}" for name in chains] + [f"-X {name}" for name in chains]
            script.append("COMMIT")
    return "\n".join(script) + "\n" if script else ""
