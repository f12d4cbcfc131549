"""Create to ACTIVE through the real API: our driver against Nova's fake driver in the same cloud.

Run against a running cloud; it swaps nova-compute between the drivers, in blocks that take turns::

    eval "$(python3 aio env)"; python benchmarks/boot.py [-n 20]

Of our boots it also takes the parts from nova-compute's log: what Nova says that the spawn took,
and when in it Nova had made the ports in Neutron (``allocation``), the ports were plugged, the
container was made, and both were done and Neutron had wired the ports (``network``).

A spawn cannot be shorter than the longer of Neutron's wiring and the container's creation, and the
start after both.  How long these took is told by LXD's events and by the log of Nova's API, not by
the driver: the last row compares the spawn with that.

The fake driver plugs nothing and waits for nobody.  So ours is also measured in a cloud in which it
does not wait for Neutron's agent either: ``vif_plugging_timeout`` is 0 there, which operators may
set who would rather have a server start before its port works.

Writes benchmarks/results/boot.json.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import openstack
import tenacity

from aio.cloud import Cloud
from aio.lxd import LxdDaemon
from aio.services import nova
from aio.settings import DEFAULT_STATE, Settings
from benchmarks import cloud as clouds
from benchmarks.contest import write
from benchmarks.stats import Cost, paired, table
from benchmarks.tail import Tail
from benchmarks.witness import Spawn, epoch, watching

ROOT = Path(__file__).resolve().parents[1]
BLOCK = 5
_PATIENCE = "vif_plugging_timeout = "


@dataclass(frozen=True)
class Contestant:
    """A driver, and what ``vif_plugging_timeout`` is to be, if not the cloud's own."""

    driver: str
    patience: int | None = None


@dataclass(frozen=True)
class Boot:
    """One server that became ACTIVE."""

    server: str
    cost: Cost


OURS = Contestant("lxd.LXDDriver")
HASTY = Contestant(OURS.driver, patience=0)
FAKE = Contestant("fake.FakeDriverWithoutFakeNodes")


def main() -> None:
    """Measure in blocks, the contestants in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=20, help="servers for each contestant")
    count = parser.parse_args().n
    settings = Settings(state=Path(os.environ.get("NOVA_LXD_AIO_STATE", DEFAULT_STATE)))
    log = Log(settings.log / "nova-compute.log")
    with watching(LxdDaemon(settings.lxd), settings.log / "nova-api.log") as witness:
        boots = _take_turns(settings, count)
        servers = {boot.server for boot in boots[OURS]}
        spawns = log.spawns(servers)
        bounds = witness.bounds(spawns)
    costs = {contestant: [boot.cost for boot in those] for contestant, those in boots.items()}
    proved = [(spawn, bound) for spawn, bound in zip(spawns, bounds, strict=True) if bound]
    took = [Cost(spawn.seconds) for spawn, _ in proved]
    least = [Cost(bound) for _, bound in proved]
    rows = [
        paired("create to ACTIVE", costs[OURS], "fake driver", costs[FAKE], 1.5),
        paired("without waiting for Neutron", costs[HASTY], "fake driver", costs[FAKE], 1.5),
        paired("spawn in the cloud", took, "longer of network and create, + start", least, 1.1),
    ]
    builds = log.builds(servers)
    medians = {part: statistics.median(build[part] for build in builds) for part in builds[0]}
    print(table(rows))
    print("seconds from the beginning of the spawn:", medians)
    write(rows, ROOT / "benchmarks" / "results" / "boot.json", more={"seconds_of_parts": medians})


def _take_turns(settings: Settings, count: int) -> dict[Contestant, list[Boot]]:
    """Boot ``count`` servers for each contestant, a block at a time."""
    cloud = openstack.connect()
    boots: dict[Contestant, list[Boot]] = {OURS: [], HASTY: [], FAKE: []}
    with clouds.network(cloud) as network:
        try:
            for _ in range(0, count, BLOCK):
                for contestant, those in boots.items():
                    _use(settings, contestant)
                    _warm_up(cloud, network)
                    those += [_boot(cloud, network) for _ in range(BLOCK)]
        finally:
            _use(settings, OURS)
    return boots


class Log:
    """What nova-compute logs from now on."""

    _BUILT = re.compile(
        r"\[instance: (?P<server>\S+)\] Built in (?P<built>[\d.]+) s \((?P<parts>.*)\)"
    )
    _SPAWN = re.compile(
        r"^(?P<end>\S+ \S+) .*\[instance: (?P<server>\S+)\] "
        r"Took (?P<spawn>[\d.]+) seconds to spawn the instance",
        re.MULTILINE,
    )

    def __init__(self, file: Path) -> None:
        self._tail = Tail(file)

    def builds(self, servers: Collection[str]) -> list[dict[str, float]]:
        """Return the parts of these servers' builds, by name, in seconds."""
        text = self._tail.text()
        spawns = {found["server"]: float(found["spawn"]) for found in self._SPAWN.finditer(text)}
        builds = []
        for found in self._of(self._BUILT, text, servers):
            whole = {"spawn": spawns[found["server"]], "built": float(found["built"])}
            builds.append(whole | _parts(found["parts"]))
        return builds

    def spawns(self, servers: Collection[str]) -> list[Spawn]:
        """Return when Nova began to spawn these servers, and how long it says that it took."""
        found = self._of(self._SPAWN, self._tail.text(), servers)
        times = [(epoch(item["end"]), float(item["spawn"])) for item in found]
        return [Spawn(end - took, took) for end, took in times]

    @staticmethod
    def _of(what: re.Pattern[str], text: str, servers: Collection[str]) -> list[re.Match[str]]:
        return [found for found in what.finditer(text) if found["server"] in servers]


def _parts(text: str) -> dict[str, float]:
    """Read ``ports 0.35 s, container 0.42 s``."""
    words = (part.split() for part in text.split(", "))
    return {part: float(number) for part, number, _ in words}


def _use(settings: Settings, contestant: Contestant) -> None:
    """Restart nova-compute with this driver and patience."""
    subprocess.run(
        [sys.executable, "aio", "--compute-driver", contestant.driver, "up"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    if contestant.patience is None:
        return
    file = settings.etc / "compute" / "nova.conf"
    file.write_text(re.sub(f"{_PATIENCE}.*", f"{_PATIENCE}{contestant.patience}", file.read_text()))
    unit = Cloud(settings).unit(nova.COMPUTE)
    unit.stop()
    unit.start()
    unit.wait()


def _warm_up(cloud: Any, network: str) -> None:
    """Boot one that is not counted; a service that has just started may fail the first."""
    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(RuntimeError),
        stop=tenacity.stop_after_attempt(3),
        reraise=True,
    )(_boot, cloud, network)


def _boot(cloud: Any, network: str) -> Boot:
    image = cloud.image.find_image("busybox", ignore_missing=False).id
    flavor = cloud.compute.find_flavor("m1.nano", ignore_missing=False).id
    start = time.perf_counter()
    server = cloud.compute.create_server(
        name="bench-boot", image_id=image, flavor_id=flavor, networks=[{"uuid": network}]
    )
    clouds.until(lambda: cloud.compute.get_server(server.id).status != "BUILD", "the server")
    seconds = time.perf_counter() - start
    settled = cloud.compute.get_server(server.id)
    cloud.compute.delete_server(server.id)
    clouds.until(lambda: not list(cloud.compute.servers(name="bench-boot")), "the deletion")
    if settled.status != "ACTIVE":
        raise RuntimeError(f"the server became {settled.status}: {settled.fault}")
    return Boot(server.id, Cost(seconds))


if __name__ == "__main__":
    main()
