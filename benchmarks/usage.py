"""What the parts of the one-node cloud take: memory, CPU time, and requests to LXD."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock
from urllib import parse

import psutil
import websocket

from aio.cloud import Cloud
from aio.process import all_pids, command_line, memory, parent, pids_by_service
from nova_lxd.virt.session import Session, Timeouts
from nova_lxd.virt.session.streams import BROKEN
from nova_lxd.virt.session.transport import Transport

MIB = 1024 * 1024
Parts = dict[str, list[int]]
"""Name of a part -> ids of its processes."""

_MONITOR = b"[lxc monitor] "
_DEEPEST = 50  # generations; a chain of parents is never that long
_LAG = 1.0  # seconds that LXD's log may be late
_COLLECTIONS = ("instances", "profiles", "operations", "images", "storage-pools")


def parts(cloud: Cloud) -> Parts:
    """Find the processes of the running cloud.

    ``nova-compute`` is its one process, ``helpers`` are its privileged ones; ``lxd`` is the daemon
    with what it forks, ``containers`` are liblxc's monitors with all that runs below them.
    """
    folder = str(cloud.lxd.folder).encode()
    guests = below({pid for pid in all_pids() if command_line(pid).startswith(_MONITOR + folder)})
    leaders = cloud.leaders()
    found: Parts = {"containers": sorted(guests)}
    for service, pids in pids_by_service(cloud.owners, leaders).items():
        for pid in set(pids) - guests:
            found.setdefault(part_of(service, is_leader=pid in leaders), []).append(pid)
    return found


def below(roots: set[int], parents: Mapping[int, int] | None = None) -> set[int]:
    """Return these processes and all their descendants.

    :param parents: of each process, its parent; the machine's when it is not given
    """
    parents = {pid: parent(pid) for pid in all_pids()} if parents is None else parents
    return {pid for pid in parents if roots.intersection(_line(pid, parents))}


def _line(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    for _ in range(_DEEPEST):
        yield pid
        pid = parents.get(pid, 0)


def part_of(service: str, *, is_leader: bool = True) -> str:
    """Name the part to which a process of a service belongs."""
    if service == "nova-compute":
        return service if is_leader else "helpers"
    if service == "lxd":
        return service
    kinds = {"nova": "nova control plane", "neutron": "neutron"}
    return kinds.get(service.partition("-")[0], "other services")


def memory_mib(found: Parts) -> dict[str, float]:
    """Return the proportional set size of each part."""
    return {name: round(sum(map(memory, pids)) / MIB, 2) for name, pids in sorted(found.items())}


def resident_mib(pids: Iterable[int]) -> float:
    """Return the resident set size of processes, which counts what they share for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += psutil.Process(pid).memory_info().rss
    return round(total / MIB, 2)


def used_mib() -> float:
    """Return what the machine's memory lacks: the kernel's part is in no process's set."""
    memory = psutil.virtual_memory()
    return round((memory.total - memory.available) / MIB, 2)


def cpu_seconds(found: Parts) -> dict[str, float]:
    """Return the CPU time of each part so far, with that of children that have ended."""
    return {name: sum(map(_cpu, pids)) for name, pids in found.items()}


def _cpu(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def shares(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> Any:
    """Return which share of one core each part took."""
    return {
        name: round((after[name] - before.get(name, 0.0)) / seconds, 4) for name in sorted(after)
    }


def watch(found: Parts, seconds: float) -> tuple[float, dict[str, float]]:
    """Look on, and return for how long, and which share of one core each part took."""
    before, start = cpu_seconds(found), time.monotonic()
    time.sleep(seconds)
    after, taken = cpu_seconds(found), time.monotonic() - start
    return taken, shares(before, after, taken)


class RequestLog:
    """Which requests LXD handles, by its own account.

    LXD sends its log to whoever listens, with the debug messages that it does not write to its
    file; one of them is each request that it begins to handle.
    """

    def __init__(self, socket: str) -> None:
        self._session = Session(socket, "nova", Timeouts(60, 60, 60))

    @contextlib.contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """Count the requests of the block; the counter is complete at its end."""
        seen: Counter[str] = Counter()
        stopping = threading.Event()
        connection = self._session.open_websocket("/1.0/events", {"type": "logging"})
        reader = threading.Thread(target=_count, args=(connection, seen, stopping), daemon=True)
        reader.start()
        try:
            yield seen
            time.sleep(_LAG)
            if not reader.is_alive():
                raise RuntimeError("LXD's log broke off")
        finally:
            stopping.set()
            reader.join()
            connection.shutdown()


def _count(connection: Any, seen: Counter[str], stopping: threading.Event) -> None:
    connection.settimeout(_LAG)
    while not stopping.is_set():
        try:
            name = request_of(connection.recv())
        except websocket.WebSocketTimeoutException:
            continue
        except BROKEN:
            return
        if name:
            seen[name] += 1


def request_of(message: str | bytes) -> str | None:
    """Name the request that a message of LXD's log is about; None for one about something else."""
    try:
        said = json.loads(message)["metadata"]
        if said["message"] != "Handling API request":
            return None
        method, url = said["context"]["method"], parse.urlsplit(said["context"]["url"])
    except (ValueError, KeyError, TypeError):
        return None
    recursion = parse.parse_qs(url.query).get("recursion", ["0"])[0]
    return request(method, url.path.split("/")[2:], recursion)


def request(method: str, path: Sequence[str], recursion: str = "0") -> str:
    """Name a request to LXD by what it is about, whichever of them it is.

    >>> request("GET", ["instances", "instance-0000002a", "state"])
    'GET instances/*/state'
    >>> request("GET", ["instances"], "1")
    'GET instances?recursion=1'
    """
    pairs = itertools.pairwise(path)
    words = [*path[:1], *("*" if before in _COLLECTIONS else word for before, word in pairs)]
    return f"{method} {'/'.join(words)}" + (f"?recursion={recursion}" if recursion != "0" else "")


@contextlib.contextmanager
def asked() -> Iterator[Counter[str]]:
    """Count what the driver in this process asks of LXD in the block."""
    seen: Counter[str] = Counter()
    ask = Transport.request

    def counted(self: Transport, method: str, *path: str, **kwargs: Any) -> Any:
        recursion = (kwargs.get("params") or {}).get("recursion", "0")
        seen[request(method, path, recursion)] += 1
        return ask(self, method, *path, **kwargs)

    with mock.patch.object(Transport, "request", counted):
        yield seen
