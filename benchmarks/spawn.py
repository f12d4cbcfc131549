"""driver.spawn() and destroy() against the raw LXD API: same image, pool and limits, no NIC.

Run as root from the repository root with the cloud's virtual environment::

    eval "$(python3 aio env)"; python benchmarks/spawn.py [-n 30]

It starts a LXD of its own and removes it.  The contestants take turns in one process.  The bare
client has no profile; servers of a flavor share one, so it is there already for all but the first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import contest as contests
from benchmarks.contest import Contest, Step
from benchmarks.stats import Row, table

WARM_UPS = 5
NEIGHBOUR = 1_000_000
"""The number of a server that is there all the time."""


def main() -> None:
    """Run the benchmark and write benchmarks/results/spawn.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=30, help="counted rounds")
    rounds = parser.parse_args().n
    with contests.contest() as contest:
        rows = _measure(contest, rounds)
    print(table(rows))
    contests.write(rows, Path(__file__).parent / "results" / "spawn.json")


def _measure(contest: Contest, rounds: int) -> list[Row]:
    """Measure the only server of a flavor, which brings a profile and takes it away, and others."""
    rows = _duel(contest, rounds, ", only one of its flavor")
    neighbour = contests.server(NEIGHBOUR)
    contests.spawn(contest.driver, neighbour)
    rows = _duel(contest, rounds, "") + rows
    contest.driver.destroy(None, neighbour, None)
    return rows


def _duel(contest: Contest, rounds: int, of_which: str) -> list[Row]:
    def steps(number: int) -> Iterator[Step]:
        driver, server = contest.driver, contests.server(number)
        yield Step(
            f"spawn{of_which}",
            lambda: contests.spawn(driver, server),
            lambda: contests.raw_spawn(contest),
        )
        yield Step(
            f"destroy{of_which}",
            lambda: driver.destroy(None, server, None),
            lambda: contests.raw_destroy(contest),
        )

    return contests.duel(steps, "raw LXD", 1.10, rounds=rounds, warm_ups=WARM_UPS)


if __name__ == "__main__":
    main()
