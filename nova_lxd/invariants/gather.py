"""Reads the facts from LXD, the kernel and Open vSwitch.  Nothing here changes anything."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from typing import Any

from nova_lxd.invariants.facts import (
    Facts,
    Link,
    LxdImage,
    LxdInstance,
    LxdObject,
    OvsPort,
    mapping,
)

Get = Callable[[str], Any]
"""Asks LXD: takes a path with its query (``/1.0/instances?recursion=1&project=nova``), returns the
``metadata`` of the answer, raises when LXD says no or cannot be asked."""

_TIMEOUT = 60
_VOLATILE_OF_RUNNING = ("volatile.last_state.power", "volatile.last_state.ready")


class LxdAnswered(Exception):
    """LXD refused to tell; the message is its own."""


class LxdHasNone(LxdAnswered):
    """What was asked for is not there."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def lxd(path: str) -> Get:
    """Return a ``Get`` for the LXD behind the unix socket ``path``.

    It shares no code with the driver's session, so that neither can hide the other's mistakes.

    :raises LxdAnswered: (when called) LXD answered with an error
    :raises OSError: (when called) LXD did not answer
    """

    def get(url: str) -> Any:
        with contextlib.closing(_UnixConnection(path)) as connection:
            connection.request("GET", url)
            answer = json.loads(connection.getresponse().read())
        if answer["type"] == "error":
            kind = LxdHasNone if answer.get("error_code") == HTTPStatus.NOT_FOUND else LxdAnswered
            raise kind(f"GET {url}: {answer['error']}")
        return answer["metadata"]

    return get


def instances(get: Get, project: str) -> tuple[LxdInstance, ...]:
    """Return the instances of ``project`` with their snapshots and backups."""
    answers = get(f"/1.0/instances?recursion=1&project={project}")
    return tuple(_instances(get, project, answers or ()))


def objects(get: Get, project: str) -> tuple[LxdObject, ...]:
    """Return the profiles, custom volumes and running operations of ``project``."""
    return (*_profiles(get, project), *_volumes(get, project), *_operations(get, project))


def images(get: Get, project: str) -> tuple[LxdImage, ...]:
    """Return the images in the store of ``project``."""
    answers = get(f"/1.0/images?recursion=1&project={project}") or ()
    now = datetime.now(UTC)
    return tuple(
        LxdImage(
            fingerprint=answer["fingerprint"],
            aliases=tuple(alias["name"] for alias in answer.get("aliases") or ()),
            properties=mapping(answer.get("properties")),
            age=(now - datetime.fromisoformat(answer["uploaded_at"])).total_seconds(),
        )
        for answer in answers
    )


def foreign(get: Get, project: str) -> dict[str, str]:
    """Return a digest of every instance outside ``project``, by ``project/name``."""
    answers = get("/1.0/instances?recursion=1&all-projects=true") or ()
    return {
        f"{answer['project']}/{answer['name']}": _digest(answer)
        for answer in answers
        if answer["project"] != project
    }


def links() -> tuple[Link, ...]:
    """Return the network devices of this network namespace."""
    answers = json.loads(_run("ip", "-json", "-details", "link", "show"))
    return tuple(
        Link(
            name=answer["ifname"],
            mtu=answer["mtu"],
            mac=answer.get("address", ""),
            master=answer.get("master", ""),
            kind=answer.get("linkinfo", {}).get("info_kind", ""),
            ipv6=_speaks_ipv6(answer["ifname"]),
            in_container="link_netnsid" in answer,
            promiscuous=answer.get("promiscuity", 0) > 0,
        )
        for answer in answers
        if answer
    )


def ovs_ports(database: str) -> tuple[OvsPort, ...]:
    """Return every port of the Open vSwitch behind ``database``.

    :param database: as ``ovs-vsctl --db`` takes it, for instance ``tcp:127.0.0.1:6640``
    """
    bridge_of = {
        port: row["name"]
        for row in _table(database, "Bridge", "name,ports")
        for port in _items(row["ports"])
    }
    interfaces = {row["_uuid"]: row for row in _table(database, "Interface", _INTERFACE)}
    ports = _table(database, "Port", "_uuid,name,interfaces")
    return tuple(
        _ovs_port(row, bridge_of[row["_uuid"]], interfaces.get(_items(row["interfaces"])[0], {}))
        for row in ports
        if row["_uuid"] in bridge_of
    )


def host(get: Get, project: str, database: str, instances_path: Path) -> Facts:
    """Return all that can be found on a host without asking Nova.

    :param database: see :func:`ovs_ports`
    """
    return Facts(
        instances=instances(get, project),
        objects=objects(get, project),
        images=images(get, project),
        links=links(),
        ovs_ports=ovs_ports(database),
        mounts=mounts([instances_path]),
        loops=loops([instances_path]),
        files=files(instances_path),
        instances_path=str(instances_path),
    )


def filtered_taps(command: str = "iptables-save") -> frozenset[str]:
    """Return the devices that the IPv4 firewall names as bridge ports.

    :param command: iptables-save of the flavour that Neutron's agent uses
    """
    words = _run(command, "-t", "filter").split()
    keys = ("--physdev-in", "--physdev-out")
    return frozenset(word for key, word in pairwise(words) if key in keys)


def mounts(folders: Iterable[Path]) -> tuple[str, ...]:
    """Return the mount points below ``folders``."""
    table = Path("/proc/self/mounts").read_text().splitlines()
    points = (line.split()[1].encode().decode("unicode_escape") for line in table)
    roots = [str(folder) for folder in folders]
    return tuple(point for point in points if _below(point, roots))


def loops(folders: Iterable[Path]) -> dict[str, str]:
    """Return the backing file by loop device, for files below ``folders``."""
    answer = _run("losetup", "--json", "--list", "--output", "NAME,BACK-FILE")
    devices = json.loads(answer or "{}").get("loopdevices", [])
    roots = [str(folder) for folder in folders]
    return {
        device["name"]: device["back-file"]
        for device in devices
        if _below(device["back-file"] or "", roots)
    }


def files(instances_path: Path) -> tuple[str, ...]:
    """Return what lies two levels deep below ``instances_path``, relative to it."""
    if not instances_path.is_dir():
        return ()
    return tuple(sorted(_walk(instances_path, instances_path, depth=2)))


_INTERFACE = "_uuid,name,external_ids,mtu,error"


def _instances(get: Get, project: str, answers: Iterable[Any]) -> Iterator[LxdInstance]:
    """Leave out the ones that are deleted meanwhile."""
    for answer in answers:
        with contextlib.suppress(LxdHasNone):
            yield _instance(get, project, answer)


def _instance(get: Get, project: str, answer: dict[str, Any]) -> LxdInstance:
    path = f"/1.0/instances/{answer['name']}"
    return LxdInstance(
        name=answer["name"],
        status=answer["status"],
        config=mapping(answer.get("expanded_config")),
        devices=answer.get("expanded_devices") or {},
        snapshots=_names(get(f"{path}/snapshots?project={project}")),
        backups=_names(get(f"{path}/backups?project={project}")),
    )


def _profiles(get: Get, project: str) -> Iterator[LxdObject]:
    for answer in get(f"/1.0/profiles?recursion=1&project={project}") or ():
        users = _names(answer.get("used_by"))
        yield LxdObject("profile", answer["name"], mapping(answer.get("config")), users)


def _volumes(get: Get, project: str) -> Iterator[LxdObject]:
    for pool in _names(get(f"/1.0/storage-pools?project={project}")):
        path = f"/1.0/storage-pools/{pool}/volumes/custom?recursion=1&project={project}"
        for answer in get(path) or ():
            name = f"{pool} {answer['name']}"
            users = _names(answer.get("used_by"))
            yield LxdObject("volume", name, mapping(answer.get("config")), users)


def _operations(get: Get, project: str) -> Iterator[LxdObject]:
    """Token and event operations stand for waiting clients, not for work on a server."""
    by_state = get(f"/1.0/operations?recursion=1&project={project}") or {}
    for answer in by_state.get("running") or ():
        users = _names((answer.get("resources") or {}).get("instances"))
        if users or answer.get("class") == "websocket":
            yield LxdObject("operation", answer["id"], instances=users)


def _names(urls: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(url.split("?")[0].rsplit("/", 1)[-1] for url in urls or ())


def _digest(answer: dict[str, Any]) -> str:
    """Cover all that the driver could change; ``last_used_at`` changes by itself."""
    kept = {key: value for key, value in answer.items() if key != "last_used_at"}
    for key in ("config", "expanded_config"):
        kept[key] = {k: v for k, v in (kept[key] or {}).items() if k not in _VOLATILE_OF_RUNNING}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _speaks_ipv6(name: str) -> bool:
    flag = Path("/proc/sys/net/ipv6/conf") / name / "disable_ipv6"
    try:
        return flag.read_text().strip() == "0"
    except FileNotFoundError:
        return False


def _table(database: str, table: str, columns: str) -> list[dict[str, Any]]:
    text = _run(
        "ovs-vsctl",
        f"--db={database}",
        f"--timeout={_TIMEOUT}",
        "--format=json",
        f"--columns={columns}",
        "list",
        table,
    )
    answer = json.loads(text)
    rows = ([_ovs_value(value) for value in row] for row in answer["data"])
    return [dict(zip(answer["headings"], row, strict=True)) for row in rows]


def _ovs_value(value: Any) -> Any:
    """Return OVSDB's JSON notation for uuids, sets and maps as Python values."""
    match value:
        case ["uuid", str(text)]:
            return text
        case ["set", list(items)]:
            return [_ovs_value(item) for item in items]
        case ["map", list(pairs)]:
            return {key: item for key, item in pairs}
        case _:
            return value


def _items(value: Any) -> list[Any]:
    """Return a set as a list; OVSDB sends a set of one as its bare element."""
    return value if isinstance(value, list) else [value]


def _ovs_port(row: dict[str, Any], bridge: str, interface: dict[str, Any]) -> OvsPort:
    mtu = interface.get("mtu")
    return OvsPort(
        name=row["name"],
        bridge=bridge,
        external_ids=mapping(interface.get("external_ids")),
        mtu=mtu if isinstance(mtu, int) else None,
        error=interface.get("error") or "",
    )


def _below(path: str, roots: list[str]) -> bool:
    return any(path.startswith(f"{root}/") for root in roots)


def _walk(folder: Path, root: Path, depth: int) -> Iterator[str]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        yield str(path.relative_to(root))
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            # A folder of another user's, such as lost+found, or one that has gone meanwhile.
            with contextlib.suppress(PermissionError, FileNotFoundError):
                yield from _walk(path, root, depth - 1)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT)
    return done.stdout
