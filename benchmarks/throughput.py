"""TCP between two servers of ours against two plain namespaces that are wired by the same chain.

Run as root from the repository root with the cloud's virtual environment; it needs ``iperf3``
(``apt-get install iperf3``)::

    eval "$(python3 aio env)"; python benchmarks/throughput.py [-n 100] [--wiring hybrid|native]

It starts a LXD and an Open vSwitch of its own and removes them.  All servers and namespaces are
there at once, and one pair at a time speaks, in turns, every other round in the other direction.
Between each guest and the switch are a veth pair, a linux bridge and another pair (``hybrid``), or
one pair (``native``).  iperf3 is the host's, with the host's limits, for both: only its network
namespace is a server's.  The figure is the time for 1 GiB at the rate that was received.

The plain chain is made with ``ip``, and gets the one thing without which this switch passes no TCP:
checksums are finished before a packet comes to it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nova.network import model as network_model

from benchmarks import contest as contests
from benchmarks import wires as wirings
from benchmarks.contest import PROJECT, Contest
from benchmarks.stats import Cost, Row, paired, table
from benchmarks.wires import BRIDGE, MTU, WIRINGS, Wires, device, ip

WARM_UPS = 2
TARGET = 1.10
PATIENCE = 60
ADDRESSES = ("fd00::1", "fd00::2")
"""A guest's DHCP client leaves IPv6 alone; each pair is alone in its VLAN."""
_PORT = 5201
_LISTEN = "0A"
_BITS_PER_GIB = 8 * 2**30


@dataclass(frozen=True)
class Pair:
    """Two guests of one chain, by processes that live in their network namespaces."""

    client: int
    server: int


def main() -> None:
    """Run the benchmark and write its results."""
    results = Path(__file__).parent / "results" / "throughput.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=100, help="counted rounds")
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    parser.add_argument("--wiring", choices=WIRINGS, help="only this one")
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    if not shutil.which("iperf3"):
        parser.exit(1, "iperf3 is not installed: apt-get install iperf3\n")
    chosen = [options.wiring] if options.wiring else WIRINGS
    with (
        wirings.wires() as wires,
        contests.contest() as contest,
        contextlib.ExitStack() as stack,
    ):
        pairs = {}
        for wiring in chosen:
            pairs[wiring, "ours"] = _servers(contest, wires, wiring)
            pairs[wiring, "plain"] = _namespaces(stack, wires, wiring)
        rows = _measure(pairs, options.n, options.seconds)
    print(table(rows))
    for row in rows:
        ours, peer = (_BITS_PER_GIB / 1000 / ms for ms in (row.ours_ms, row.peer_ms))
        print(f"{row.row}: {ours:.0f} Mbit/s, {row.peer}: {peer:.0f} Mbit/s")
    contests.write(rows, options.output, datapath="userspace", iperf3=_version())


def _measure(pairs: dict[tuple[str, str], Pair], rounds: int, seconds: int) -> list[Row]:
    times: dict[tuple[str, str], list[Cost]] = {key: [] for key in pairs}
    for number in range(rounds + WARM_UPS):
        keys = list(pairs)
        # Neighbours change places, so that neither is always the first one.
        for key in keys if number // 2 % 2 else reversed(keys):
            taken = _seconds_per_gib(pairs[key], seconds, back=bool(number % 2))
            if number >= WARM_UPS:
                times[key].append(Cost(taken))
    return [
        paired(f"1 GiB, {wiring}", times[wiring, "ours"], "plain namespaces", plain, TARGET)
        for (wiring, name), plain in times.items()
        if name == "plain"
    ]


def _seconds_per_gib(pair: Pair, seconds: int, *, back: bool) -> float:
    """Measure one way; TCP finds its window in some milliseconds."""
    command = _inside(pair.client, "iperf3", "--client", ADDRESSES[1], "--json")
    command += ["--time", str(seconds), *(["--reverse"] if back else [])]
    limit = seconds + PATIENCE
    with _running(*_inside(pair.server, "iperf3", "--server", "--one-off")):
        _until(lambda: _listens(pair.server), "iperf3 to listen")
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit)
    report = json.loads(done.stdout)
    if "error" in report:
        raise RuntimeError(f"iperf3: {report['error']}")
    return float(_BITS_PER_GIB / report["end"]["sum_received"]["bits_per_second"])


# -- the two kinds of guests


def _servers(contest: Contest, wires: Wires, wiring: str) -> Pair:
    """Build two servers with the driver; LXD's end takes them away."""
    pids = []
    for number in _numbers(wiring, first=0):
        server = contests.server(number)
        contests.spawn(contest.driver, server, wires.port(wiring, number))
        state = contest.client.api.instances[server.name].state.get(params=PROJECT)
        pids.append(state.json()["metadata"]["pid"])
    return _ready(wires, wiring, pids, first=0)


def _namespaces(stack: contextlib.ExitStack, wires: Wires, wiring: str) -> Pair:
    """Make two network namespaces, which end with the processes in them."""
    pids = []
    for number in _numbers(wiring, first=2):
        pids.append(stack.enter_context(_namespace()))
        _wire(wires, wires.port(wiring, number), pids[-1])
    return _ready(wires, wiring, pids, first=2)


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    ours = os.readlink("/proc/self/ns/net")
    with _running("unshare", "--net", "sleep", "infinity") as holder:
        _until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != ours, "unshare")
        yield holder.pid


def _numbers(wiring: str, first: int) -> Sequence[int]:
    start = 4 * WIRINGS.index(wiring) + first
    return range(start, start + 2)


def _wire(wires: Wires, vif: network_model.VIF, pid: int) -> None:
    """Make with ``ip`` the chain that the driver and os-vif make of a port."""
    tap, guest_end = vif["devname"], device("tin", vif)
    ovs_end, sender = tap, guest_end
    _veth(tap, guest_end)
    if vif.is_hybrid_plug_enabled():
        bridge, sender, ovs_end = (device(kind, vif) for kind in ("qbr", "qvb", "qvo"))
        _veth(ovs_end, sender)
        ip("link", "add", bridge, "type", "bridge")
        for link in (tap, sender):
            ip("link", "set", link, "master", bridge, "up")
        ip("link", "set", bridge, "up")
    subprocess.run(["ethtool", "-K", sender, "tx", "off"], check=True, stdout=subprocess.DEVNULL)
    ip("link", "set", ovs_end, "up")
    wires.ovs.vsctl("add-port", BRIDGE, ovs_end)
    ip("link", "set", guest_end, "netns", str(pid), "name", "eth0")


def _veth(one: str, other: str) -> None:
    size = ["mtu", str(MTU)]
    ip("link", "add", one, *size, "type", "veth", "peer", "name", other, *size)


def _ready(wires: Wires, wiring: str, pids: Sequence[int], first: int) -> Pair:
    """Give two guests their addresses and a VLAN of their own."""
    numbers = _numbers(wiring, first)
    for number, address, pid in zip(numbers, ADDRESSES, pids, strict=True):
        end = device("qvo" if wiring == "hybrid" else "tap", wires.port(wiring, number))
        wires.ovs.vsctl("set", "port", end, f"tag={numbers[0] + 1}")
        for words in ("link set eth0 up", f"addr add {address}/64 dev eth0 nodad"):
            subprocess.run(_inside(pid, "ip", *words.split()), check=True)
    return Pair(*pids)


def _inside(pid: int, *command: str) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", *command]


def _listens(pid: int) -> bool:
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp6").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{_PORT:04X}") and row[3] == _LISTEN for row in rows)


@contextlib.contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE} s for {what}")
        time.sleep(0.01)


def _version() -> str:
    said = subprocess.run(["iperf3", "--version"], check=True, capture_output=True, text=True)
    return said.stdout.split()[1]


if __name__ == "__main__":
    main()
