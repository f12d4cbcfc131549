"""Many servers at once through the real Nova API: all ACTIVE, id maps disjoint, nothing left.

Run against a running cloud::

    eval "$(python3 aio env)"; python benchmarks/servers.py [--count 40]

Prints the figures, writes benchmarks/results/servers.json and ends with status 1 when a server
failed, two id maps overlap, one lies outside root's range in /etc/subuid, or something is left
behind.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openstack

PREFIX = "bench-"
DEADLINE = 900


def main() -> int:
    """Create, check and delete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--flavor", default="m1.nano")
    parser.add_argument("--image", default="busybox")
    options = parser.parse_args()
    cloud = openstack.connect()
    with _network(cloud) as network:
        _boot_one(cloud, options, network)  # the image is in LXD's store from here on
        before = _traces()
        report = _round(cloud, options, network)
        report["left_behind"] = _difference(before)
    print(json.dumps(report, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "servers.json").write_text(json.dumps(report, indent=1) + "\n")
    bad = report["failed"] or report["overlaps"] or report["outside"] or report["left_behind"]
    return 1 if bad else 0


@contextlib.contextmanager
def _network(cloud: Any) -> Iterator[str]:
    """Lend a tenant network to the servers of one run."""
    network = cloud.network.create_network(name=f"{PREFIX}net")
    try:
        cloud.network.create_subnet(
            network_id=network.id, ip_version=4, cidr="10.99.0.0/22", name=f"{PREFIX}subnet"
        )
        yield network.id
    finally:
        _delete(cloud)
        cloud.network.delete_network(network)


def _boot_one(cloud: Any, options: argparse.Namespace, network: str) -> None:
    server = _order(cloud, options, network, 1)
    _until(lambda: cloud.compute.get_server(server.id).status != "BUILD", "the first server")
    _delete(cloud)


def _order(cloud: Any, options: argparse.Namespace, network: str, count: int) -> Any:
    return cloud.compute.create_server(
        name=PREFIX + "server",
        image_id=cloud.image.find_image(options.image, ignore_missing=False).id,
        flavor_id=cloud.compute.find_flavor(options.flavor, ignore_missing=False).id,
        networks=[{"uuid": network}],
        min_count=count,
        max_count=count,
    )


def _round(cloud: Any, options: argparse.Namespace, network: str) -> dict[str, Any]:
    start = time.monotonic()
    _order(cloud, options, network, options.count)
    active: dict[str, float] = {}

    def settled() -> bool:
        servers = _servers(cloud)
        for server in servers:
            if server.status == "ACTIVE":
                active.setdefault(server.id, time.monotonic() - start)
        return len(servers) == options.count and all(s.status != "BUILD" for s in servers)

    _until(settled, f"{options.count} servers")
    seconds = time.monotonic() - start
    faults = [str(s.fault) for s in _servers(cloud) if s.status != "ACTIVE"]
    ranges = _id_ranges()
    start = time.monotonic()
    _delete(cloud)
    times = sorted(active.values())
    return {
        "servers": options.count,
        "active": len(active),
        "failed": faults,
        "seconds_until_all": round(seconds, 1),
        "seconds_p50": round(statistics.median(times), 1) if times else None,
        "seconds_delete_all": round(time.monotonic() - start, 1),
        "id_maps": len(ranges),
        "overlaps": _overlaps(ranges),
        "outside": _outside(ranges),
    }


def _servers(cloud: Any) -> list[Any]:
    return [s for s in cloud.compute.servers(details=True) if s.name.startswith(PREFIX)]


def _delete(cloud: Any) -> None:
    for server in _servers(cloud):
        cloud.compute.delete_server(server)
    _until(lambda: not _servers(cloud), "the deletion")


def _id_ranges() -> list[tuple[int, int]]:
    listed = subprocess.check_output(
        ["lxc", "query", "/1.0/instances?project=nova&recursion=1"], text=True
    )
    ranges = []
    for instance in json.loads(listed):
        maps = json.loads(instance["config"]["volatile.idmap.current"])
        ranges += [(entry["Hostid"], entry["Maprange"]) for entry in maps if entry["Isuid"]]
    return sorted(ranges)


def _overlaps(ranges: list[tuple[int, int]]) -> list[str]:
    pairs = itertools.pairwise(ranges)
    return [f"{a} and {b}" for a, b in pairs if a[0] + a[1] > b[0]]


def _outside(ranges: list[tuple[int, int]]) -> list[str]:
    lines = Path("/etc/subuid").read_text().splitlines()
    low, size = next(map(int, line.split(":")[1:]) for line in lines if line.startswith("root:"))
    return [str(r) for r in ranges if r[0] < low or r[0] + r[1] > low + size]


def _traces() -> dict[str, set[str]]:
    """What a server leaves on a host when somebody forgets to remove it."""
    links = json.loads(subprocess.check_output(["ip", "-j", "link"], text=True))
    lxc = ["lxc", "query"]
    return {
        "links": {link["ifname"] for link in links},
        "ovs ports": {
            p for p in _output("ovs-vsctl", "list-ports", "br-int").split() if p[:3] == "qvo"
        },
        "instances": set(json.loads(_output(*lxc, "/1.0/instances?project=nova"))),
        "profiles": set(json.loads(_output(*lxc, "/1.0/profiles?project=nova"))),
        "iptables": {
            line.split()[0]
            for line in _output("iptables-save", "-t", "filter").splitlines()
            if line.startswith(":neutron-openvswi-")
        },
    }


def _output(*command: str) -> str:
    return subprocess.check_output(command, text=True)


def _difference(before: dict[str, set[str]]) -> dict[str, list[str]]:
    """Wait for the agents to clean up after the last port, then say what is still there."""

    def left() -> dict[str, list[str]]:
        after = _traces()
        return {k: sorted(after[k] - before[k]) for k in after if after[k] - before[k]}

    try:
        _until(lambda: not left(), "the host to be clean", 120)
    except TimeoutError:
        return left()
    return {}


def _until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still waiting for {what} after {seconds} s")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
