"""spawn() and destroy() by several threads at once, against the raw LXD API by as many.

Run as root from the repository root with the cloud's virtual environment::

    eval "$(python3 aio env)"; python benchmarks/threads.py [-n 12] [--threads 1 4 8]

It starts a LXD of its own and removes it.  Each contestant builds a batch of servers, as many at a
time as there are threads, and removes it when both have built theirs; they take turns in one
process.  A figure is the time of a batch by its servers: the inverse of a rate.  Same image, pool
and limits, no NIC; Nova's own work around a build is in no figure.

The bare client names its containers' ids, always the same ones: of several creations at once LXD
gives some the same range, or one that is not the host's, and those do not start.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import contest as contests
from benchmarks.contest import Contest, Step
from benchmarks.stats import Cost, Row, paired, table
from nova_lxd.virt import idmap

WARM_UPS = 1
THREADS = (1, 4, 8)
BATCH = 16
FIRST_ID = 100_000 + 100 * idmap.SIZE
"""Of the bare client: the driver takes the lowest that are free."""
TARGETS = {"spawn": 1 / 0.9, "destroy": 1.10}
"""At least 0.9 of the raw rate; a removal may take a tenth longer."""


def main() -> None:
    """Run the benchmark and write its results."""
    results = Path(__file__).parent / "results" / "threads.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=12, help="counted batches of each contestant")
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    rows: list[Row] = []
    with contests.contest() as contest:
        for threads in options.threads:
            rows += _measure(contest, threads, options.n)
    print(table(rows))
    contests.write(rows, options.output)


def _measure(contest: Contest, threads: int, rounds: int) -> list[Row]:
    ours: dict[str, list[Cost]] = defaultdict(list)
    raw: dict[str, list[Cost]] = defaultdict(list)
    with ThreadPoolExecutor(threads) as pool:
        for number in range(rounds + WARM_UPS):
            for step in _round(contest, pool, number):
                costs = contests.both(step.ours, step.raw, number)
                if number >= WARM_UPS:
                    for found, cost in zip((ours, raw), costs, strict=True):
                        found[step.name].append(_of_one(cost))
    return [
        paired(f"{name}, {threads} threads", ours[name], "raw LXD", raw[name], target)
        for name, target in TARGETS.items()
    ]


def _round(contest: Contest, pool: ThreadPoolExecutor, number: int) -> Iterator[Step]:
    """Yield what is done to one batch of each contestant."""
    driver = contest.driver
    servers = [contests.server(BATCH * number + place) for place in range(BATCH)]

    def all_of(call: Callable[[Any], object], items: Iterable[Any]) -> Callable[[], object]:
        return lambda: list(pool.map(call, items))

    yield Step(
        "spawn",
        all_of(lambda server: contests.spawn(driver, server), servers),
        all_of(lambda place: _raw_spawn(contest, place), range(BATCH)),
    )
    yield Step(
        "destroy",
        all_of(lambda server: driver.destroy(None, server, None), servers),
        all_of(lambda place: contests.raw_destroy(contest, _raw_name(place)), range(BATCH)),
    )


def _of_one(batch: Cost) -> Cost:
    return Cost(batch.seconds / BATCH, None if batch.cpu is None else batch.cpu / BATCH)


def _raw_spawn(contest: Contest, place: int) -> None:
    ids = {"security.idmap.base": str(FIRST_ID + idmap.SIZE * place)}
    contests.raw_spawn(contest, _raw_name(place), ids)


def _raw_name(place: int) -> str:
    return f"raw-{place}"


if __name__ == "__main__":
    main()
