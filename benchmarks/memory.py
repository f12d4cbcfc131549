"""Whether nova-compute grows with the number of servers that it has made and removed.

Run as root against a running cloud that nobody else uses::

    eval "$(python3 aio env)"; python benchmarks/memory.py [-n 1000] [--with-ports 100]

Servers are ordered by tens through the real Nova API, and removed when all of them are there; the
first ``--with-ports`` have a port, the others none, since a port takes Neutron longer than anything
else.  After every fifty it reads the memory of nova-compute, of its privileged helpers and of LXD.
The growth is the slope of a straight line through the second half of the samples (least squares),
in MiB for 1,000 servers; the first half fills pools and caches.  What of it is Nova's own shows the
same with Nova's fake driver::

    python3 aio --compute-driver fake.FakeDriverWithoutFakeNodes up
    python benchmarks/memory.py --output benchmarks/results/memory-fake.json

Writes benchmarks/results/memory.json and ends with status 1 when nova-compute grows by more than
4 MiB for 1,000 servers.  It says nothing of long times without work, nor of other actions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import openstack

from aio.cloud import Cloud
from aio.settings import DEFAULT_STATE, Settings
from benchmarks import cloud as clouds
from benchmarks import contest as contests
from benchmarks import room, usage

NAME = f"{clouds.PREFIX}memory"
BATCH = 10
EVERY = 50
PARTS = ("nova-compute", "helpers", "lxd")
"""Nova's fake driver has no helpers."""
LIMIT = 4.0
"""MiB for 1,000 servers."""

Sample = dict[str, float]


def main() -> int:
    """Make and remove servers, and see how nova-compute grows."""
    options = _options()
    settings = Settings(state=Path(os.environ.get("NOVA_LXD_AIO_STATE", DEFAULT_STATE)))
    api, cloud = openstack.connect(), Cloud(settings)
    start = time.monotonic()
    with clouds.network(api) as network, room.flavor(api, NAME) as flavor:
        samples = [_sample(cloud, 0)]
        for done in range(BATCH, options.n + 1, BATCH):
            has_port = done <= options.with_ports
            _cycle(api, flavor, [{"uuid": network}] if has_port else "none")
            if done % EVERY == 0:
                samples.append(_sample(cloud, done))
    growth = {name: slope(samples, name) for name in samples[0] if name != "servers"}
    limit = {"what": "growth of nova-compute, MiB for 1,000 servers", "limit": LIMIT}
    limit["value"] = growth["nova-compute"]
    report = {"series": samples, "growth": growth, "limits": [limit]}
    report |= {"with_ports": options.with_ports, "seconds": round(time.monotonic() - start)}
    print(json.dumps(report, indent=1))
    contests.write([], options.output, more=report)
    return int(growth["nova-compute"] > LIMIT)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=1000, help="servers")
    parser.add_argument("--with-ports", type=int, default=100, help="how many of them have one")
    results = Path(__file__).parent / "results" / "memory.json"
    parser.add_argument("--output", type=Path, default=results)
    return parser.parse_args()


def _sample(cloud: Cloud, servers: int) -> Sample:
    """Read proportional set sizes, and the resident set size of nova-compute, in MiB."""
    parts = usage.parts(cloud)
    sizes = usage.memory_mib({name: parts.get(name, []) for name in PARTS})
    resident = usage.resident_mib(parts["nova-compute"])
    sample = {"servers": servers, "nova-compute resident": resident, **sizes}
    print(json.dumps(sample), flush=True)
    return sample


def _cycle(api: Any, flavor: str, networks: Any) -> None:
    """Make servers and remove them; all of them must be fine in between."""
    clouds.order(api, NAME, flavor, networks, BATCH)
    clouds.until_built(api, pause=0.5)
    servers = clouds.servers(api)
    if [server.status for server in servers] != ["ACTIVE"] * BATCH:
        raise RuntimeError(str([(server.status, server.fault) for server in servers]))
    clouds.delete_servers(api)


def slope(samples: Sequence[Sample], name: str) -> float:
    """Fit a line to the second half of the samples; MiB for 1,000 servers."""
    late = samples[len(samples) // 2 :]
    fit = statistics.linear_regression([s["servers"] for s in late], [s[name] for s in late])
    return round(1000 * fit.slope, 2)


if __name__ == "__main__":
    sys.exit(main())
