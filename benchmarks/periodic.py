"""What Nova asks of the driver again and again, with ever more running servers on the host.

Run as root from the repository root with the cloud's virtual environment::

    eval "$(python3 aio env)"; python benchmarks/periodic.py [-n 30] [--servers 10 50 100 200]

It starts a LXD of its own and removes it.  The servers are the driver's, running, without ports;
each has a quarter of the usual range of ids, because a host's usual ids are enough for 151.  At
every number of servers the driver's methods and a bare client's requests take turns in one process.
The numbers come one after the other, so whatever else the machine did is in a comparison of two.

The power sync is what Nova's periodic task does: it asks for the number of servers, then for the
state of each, with as many threads as Nova has for that.  What Nova and its database do with the
answers is in no figure.  One more server is built and removed beside the others, because that may
depend on their number, too.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nova import context as nova_context
from nova import objects
from nova.compute import power_state
from nova.compute.provider_tree import ProviderTree

from benchmarks import contest as contests
from benchmarks import usage
from benchmarks.contest import CONF, IMAGE_ID, PROJECT, Contest
from benchmarks.stats import Cost, Row, paired, table
from nova_lxd.virt import idmap
from nova_lxd.virt.model import IMAGE_ID_KEY

WARM_UPS = 3
SERVERS = (10, 50, 100, 200)
ID_RANGE = 16384
GROWTH = 1.15
"""How much more the most servers may cost than the fewest: nothing, but for what is measured."""
_VOLUMES = "nova.objects.BlockDeviceMappingList.bdms_by_instance_uuid"


@dataclass(frozen=True)
class Work:
    """Something that Nova wants of the driver, and the requests of a bare client that tell it."""

    name: str
    ours: Callable[[], object]
    raw: Callable[[], object]
    target: float
    of_each: bool = False
    """It tells something of each server, so what it costs for one of them must not grow."""


@dataclass(frozen=True)
class Measured:
    """What a work cost at one number of servers."""

    work: Work
    servers: int
    ours: list[Cost]
    raw: list[Cost]
    requests: dict[str, int]
    """What LXD is asked, and how often."""

    def seconds(self) -> list[Cost]:
        """Return our costs: for each server, if that is what counts."""
        share = self.servers if self.work.of_each else 1
        return [Cost(cost.seconds / share, (cost.cpu or 0) / share) for cost in self.ours]


def main() -> None:
    """Run the benchmark and write its results."""
    results = Path(__file__).parent / "results" / "periodic.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=30, help="counted rounds at each number")
    parser.add_argument("--servers", type=int, nargs="+", default=SERVERS, help="ever more")
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    small_ranges = mock.patch.object(idmap, "SIZE", ID_RANGE)
    no_volumes = mock.patch(_VOLUMES, return_value={})
    measured: list[Measured] = []
    with small_ranges, contests.contest() as contest, no_volumes:
        contest.driver._session.describe_image(contest.fingerprint, {IMAGE_ID_KEY: IMAGE_ID})
        servers: list[objects.Instance] = []
        for count in options.servers:
            _fill(contest, servers, count)
            measured += _measure(list(_works(contest, servers)), count, options.n)
            print(f"{count} servers: done", flush=True)
        # Before the servers are removed: that takes minutes, and may fail.
        found = rows(measured)
        print(table(found))
        more = {"series": series(measured), "requests": requests(measured)}
        contests.write(found, options.output, more=more)


def rows(measured: Sequence[Measured]) -> list[Row]:
    """Compare with the bare client, and the most servers with the fewest."""
    fewest, most = (choose(each.servers for each in measured) for choose in (min, max))
    at_first = {each.work.name: each for each in measured if each.servers == fewest}
    against_raw = [
        paired(
            f"{each.work.name}, {each.servers}", each.ours, "raw LXD", each.raw, each.work.target
        )
        for each in measured
        if each.work.of_each or each.servers == most
    ]
    growth = [
        paired(
            f"{each.work.name}, {'each of ' if each.work.of_each else ''}{most}",
            each.seconds(),
            f"ours, {fewest}",
            at_first[each.work.name].seconds(),
            GROWTH,
        )
        for each in measured
        if each.servers == most
    ]
    return against_raw + growth


def series(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Tell how the medians grow with the number of servers."""
    return [
        {
            "work": each.work.name,
            "servers": each.servers,
            "ours_ms": _median_ms(each.ours),
            "raw_ms": _median_ms(each.raw),
            "ours_ms_for_each": round(_median_ms(each.ours) / each.servers, 3),
            "requests": sum(each.requests.values()),
        }
        for each in measured
    ]


def requests(measured: Sequence[Measured]) -> dict[str, dict[str, int]]:
    """Tell what each work asks of LXD while there are the most servers."""
    most = max(each.servers for each in measured)
    return {each.work.name: each.requests for each in measured if each.servers == most}


def _median_ms(costs: Sequence[Cost]) -> float:
    return round(statistics.median(cost.seconds for cost in costs) * 1000, 3)


def _fill(contest: Contest, servers: list[objects.Instance], count: int) -> None:
    """Build servers until there are so many."""
    new = [contests.server(number) for number in range(len(servers), count)]
    for server in new:
        server.host, server.kernel_id, server.ramdisk_id = CONF.host, None, None
        server.power_state = power_state.RUNNING
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(functools.partial(contests.spawn, contest.driver), new))
    servers += new


def _works(contest: Contest, servers: Sequence[objects.Instance]) -> Iterator[Work]:
    driver, api = contest.driver, contest.client.api
    context = nova_context.get_admin_context()
    tree = ProviderTree()
    tree.new_root(CONF.host, "00000000-0000-4000-8000-000000000000")
    pool, one_more = api.storage_pools["default"].resources, contests.server(10_000)

    def bulk() -> None:
        api.instances.get(params=PROJECT | {"recursion": "1"})

    def capacity() -> None:
        api.resources.get()
        pool.get()

    yield Work("power sync", lambda: _sync(driver, servers), bulk, 1.5, of_each=True)
    yield Work("list of servers", driver.list_instance_uuids, bulk, 1.5, of_each=True)
    yield Work("resources", lambda: driver.get_available_resource(CONF.host), capacity, 1.5)
    yield Work("inventory", lambda: driver.update_provider_tree(tree, CONF.host), capacity, 1.5)
    yield Work(
        "image cache",
        lambda: driver.manage_image_cache(context, servers),
        lambda: api.images.get(params=PROJECT | {"recursion": "1"}),
        1.5,
    )
    yield Work(
        "spawn", lambda: contests.spawn(driver, one_more), lambda: contests.raw_spawn(contest), 1.10
    )
    yield Work(
        "destroy",
        lambda: driver.destroy(context, one_more, None),
        lambda: contests.raw_destroy(contest),
        1.10,
    )


def _sync(driver: Any, servers: Sequence[objects.Instance]) -> None:
    """Ask what Nova asks in a power sync."""
    driver.get_num_instances()
    with ThreadPoolExecutor(CONF.sync_power_state_pool_size) as pool:
        states = Counter(info.state for info in pool.map(driver.get_info, servers))
    if states != {power_state.RUNNING: len(servers)}:
        raise RuntimeError(f"not all of {len(servers)} servers run: {states}")


def _measure(works: Sequence[Work], servers: int, rounds: int) -> list[Measured]:
    ours: dict[str, list[Cost]] = defaultdict(list)
    raw: dict[str, list[Cost]] = defaultdict(list)
    sent: dict[str, Counter[str]] = {}
    for number in range(rounds + WARM_UPS):
        for work in works:
            with usage.asked() as asked:
                costs = contests.both(work.ours, work.raw, number)
            for found, cost in zip((ours, raw), costs, strict=True):
                found[work.name].append(cost)
            sent[work.name] = asked
    return [
        Measured(
            work, servers, ours[work.name][WARM_UPS:], raw[work.name][WARM_UPS:], sent[work.name]
        )
        for work in works
    ]


if __name__ == "__main__":
    main()
