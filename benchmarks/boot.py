"""Create to ACTIVE through the real API: our driver against Nova's fake driver in the same cloud.

Run against a running cloud; it swaps nova-compute between the drivers, in blocks that take turns::

    eval "$(python3 aio env)"; python benchmarks/boot.py [-n 20]

Of our boots it also takes the parts from nova-compute's log: what Nova says that the spawn took,
and when in it Nova had made the ports in Neutron (``allocation``), the ports were plugged, the
container was made, and both were done and Neutron had wired the ports (``network``).  A spawn
cannot be shorter than the longer of these, and the start.
The fake driver plugs nothing and waits for nobody.  Writes benchmarks/results/boot.json.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import openstack
import tenacity

from aio.settings import DEFAULT_STATE, Settings
from benchmarks import cloud as clouds
from benchmarks.contest import write
from benchmarks.stats import Cost, paired, table

DRIVERS = ("lxd.LXDDriver", "fake.FakeDriverWithoutFakeNodes")
ROOT = Path(__file__).resolve().parents[1]
BLOCK = 5


def main() -> None:
    """Measure in blocks, ours and the fake driver's in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=20, help="servers for each driver")
    count = parser.parse_args().n
    cloud = openstack.connect()
    times: dict[str, list[Cost]] = {driver: [] for driver in DRIVERS}
    settings = Settings(state=Path(os.environ.get("NOVA_LXD_AIO_STATE", DEFAULT_STATE)))
    log = Log(settings.log / "nova-compute.log")
    with clouds.network(cloud) as network:
        try:
            for _ in range(0, count, BLOCK):
                for driver in DRIVERS:
                    _use(driver)
                    _warm_up(cloud, network)
                    times[driver] += [_boot(cloud, network) for _ in range(BLOCK)]
        finally:
            _use(DRIVERS[0])
    builds = log.builds()
    rows = [
        paired("create to ACTIVE", times[DRIVERS[0]], "fake driver", times[DRIVERS[1]], 1.5),
        paired(
            "spawn in the cloud",
            [Cost(build["spawn"]) for build in builds],
            "its network + start",
            [Cost(build["built"]) for build in builds],
            1.1,
        ),
    ]
    medians = {part: statistics.median(build[part] for build in builds) for part in builds[0]}
    print(table(rows))
    print("seconds from the beginning of the spawn:", medians)
    write(rows, ROOT / "benchmarks" / "results" / "boot.json", more={"seconds_of_parts": medians})


class Log:
    """What nova-compute logs from now on."""

    _BUILT = re.compile(
        r"\[instance: (?P<server>\S+)\] Built in (?P<built>[\d.]+) s \((?P<parts>.*)\)"
    )
    _SPAWN = re.compile(
        r"\[instance: (?P<server>\S+)\] Took (?P<spawn>[\d.]+) seconds to spawn the instance"
    )

    def __init__(self, file: Path) -> None:
        self._file = file
        self._begin = file.stat().st_size

    def builds(self) -> list[dict[str, float]]:
        """Return each build's parts, by name, in seconds."""
        with self._file.open() as file:
            file.seek(self._begin)
            text = file.read()
        spawns = {found["server"]: float(found["spawn"]) for found in self._SPAWN.finditer(text)}
        builds = []
        for found in self._BUILT.finditer(text):
            whole = {"spawn": spawns[found["server"]], "built": float(found["built"])}
            builds.append(whole | _parts(found["parts"]))
        return builds


def _parts(text: str) -> dict[str, float]:
    """Read ``ports 0.35 s, container 0.42 s``."""
    words = (part.split() for part in text.split(", "))
    return {part: float(seconds) for part, seconds, _ in words}


def _use(driver: str) -> None:
    """Restart nova-compute with this driver."""
    subprocess.run(
        [sys.executable, "aio", "--compute-driver", driver, "up"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _warm_up(cloud: Any, network: str) -> None:
    """Boot one that is not counted; a service that has just started may fail the first."""
    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(RuntimeError),
        stop=tenacity.stop_after_attempt(3),
        reraise=True,
    )(_boot, cloud, network)


def _boot(cloud: Any, network: str) -> Cost:
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
    return Cost(seconds)


if __name__ == "__main__":
    main()
