"""Create and delete servers, one after the other: the host is the same before and after.

Run as root against a running cloud that nobody else uses, on a machine where nothing else changes::

    eval "$(python3 aio env)"; python benchmarks/cycles.py [-n 50]

It compares, line by line, links, network namespaces, Open vSwitch, firewall and ipsets, mounts,
everything in nova-compute's LXD project, the open files of nova-compute and its helpers, and the
helpers' threads.  A few servers come first, so that the image is in LXD's store and nova-compute
has the connections that it works with.  Prints the figures, writes benchmarks/results/cycles.json
and ends with status 1 when anything stays different.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aio.settings import DEFAULT_STATE, Settings
from aio.tenant import Tenant
from benchmarks import inventory
from benchmarks.inventory import Inventory

NAME = "bench-cycle"
WARM_UPS = 5
SETTLE = 300.0
"""Seconds for Neutron's agents to take away what the last server had, and for the host to rest."""
PAUSE = 5.0
Take = Callable[[], Inventory]


def main() -> int:
    """Take the inventory, create and delete, and take it again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=50, help="servers")
    count = parser.parse_args().n
    settings = Settings(state=Path(os.environ.get("NOVA_LXD_AIO_STATE", DEFAULT_STATE)))
    os.environ["PATH"] = settings.path  # the firewall of the flavour that Neutron's agent uses
    tenant = Tenant(settings)
    try:
        report = _compare(settings, tenant, count)
    finally:
        problems = tenant.take_down()
    report |= {"problems": problems, "loadavg": os.getloadavg()}
    print(json.dumps(report, indent=1))
    results = Path(__file__).parent / "results" / "cycles.json"
    results.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if report["differences"] or problems else 0


def _compare(settings: Settings, tenant: Tenant, count: int) -> dict[str, Any]:
    flavor = tenant.flavor(NAME)["id"]
    network = tenant.network(NAME, "10.98.0.0/24")["id"]

    def take() -> Inventory:
        return inventory.take(settings)

    for _ in range(WARM_UPS):
        _cycle(tenant, flavor, network)
    before = at_rest(take)
    start = time.monotonic()
    for _ in range(count):
        _cycle(tenant, flavor, network)
    seconds = time.monotonic() - start
    after = settled(take, before)
    pairs = zip(inventory.counts(before).items(), inventory.counts(after).values(), strict=True)
    return {
        "cycles": count,
        "seconds": round(seconds, 1),
        "lines_before_and_after": {kind: [old, new] for (kind, old), new in pairs},
        "differences": inventory.differences(before, after),
    }


def _cycle(tenant: Tenant, flavor: str, network: str) -> None:
    server = tenant.boot(NAME, flavor, [{"uuid": network}])["id"]
    tenant.wait(server)
    tenant.remove(server)


def at_rest(take: Take, seconds: float = SETTLE, pause: float = PAUSE) -> Inventory:
    """Return the first inventory that is the same a moment later; the last one at the deadline."""
    deadline = time.monotonic() + seconds
    latest = take()
    while time.monotonic() < deadline:
        time.sleep(pause)
        former, latest = latest, take()
        if former == latest:
            break
    return latest


def settled(
    take: Take, before: Inventory, seconds: float = SETTLE, pause: float = PAUSE
) -> Inventory:
    """Return the first inventory that is as before; the last one at the deadline."""
    deadline = time.monotonic() + seconds
    latest = take()
    while latest != before and time.monotonic() < deadline:
        time.sleep(pause)
        latest = take()
    return latest


if __name__ == "__main__":
    sys.exit(main())
