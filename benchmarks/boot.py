"""Create to ACTIVE through the real API: our driver against Nova's fake driver in the same cloud.

Run against a running cloud; it swaps nova-compute between the drivers, in blocks that take turns::

    eval "$(python3 aio env)"; python benchmarks/boot.py [-n 20]

Writes benchmarks/results/boot.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import openstack

from benchmarks.servers import _network, _until
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
    with _network(cloud) as network:
        try:
            for _ in range(0, count, BLOCK):
                for driver in DRIVERS:
                    _use(driver)
                    _boot(cloud, network)  # not counted: the service has just started
                    times[driver] += [_boot(cloud, network) for _ in range(BLOCK)]
        finally:
            _use(DRIVERS[0])
    row = paired("create to ACTIVE", times[DRIVERS[0]], "fake driver", times[DRIVERS[1]], 1.5)
    print(table([row]))
    machine = {"cpus": os.cpu_count(), "loadavg": os.getloadavg(), "kernel": os.uname().release}
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    document = {"rows": [row.as_dict()], "machine": machine}
    (results / "boot.json").write_text(json.dumps(document, indent=1) + "\n")


def _use(driver: str) -> None:
    """Restart nova-compute with this driver."""
    subprocess.run(
        [sys.executable, "aio", "--compute-driver", driver, "up"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _boot(cloud: Any, network: str) -> Cost:
    image = cloud.image.find_image("busybox", ignore_missing=False).id
    flavor = cloud.compute.find_flavor("m1.nano", ignore_missing=False).id
    start = time.perf_counter()
    server = cloud.compute.create_server(
        name="bench-boot", image_id=image, flavor_id=flavor, networks=[{"uuid": network}]
    )
    _until(lambda: cloud.compute.get_server(server.id).status != "BUILD", "the server")
    seconds = time.perf_counter() - start
    status = cloud.compute.get_server(server.id).status
    if status != "ACTIVE":
        raise RuntimeError(f"the server became {status}")
    cloud.compute.delete_server(server.id)
    _until(lambda: not list(cloud.compute.servers(name="bench-boot")), "the deletion")
    return Cost(seconds)


if __name__ == "__main__":
    main()
