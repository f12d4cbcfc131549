"""driver.spawn() and destroy() against the raw LXD API: same image, pool and limits, no NIC.

Run as root from the repository root with the cloud's virtual environment::

    eval "$(python3 aio env)"; python benchmarks/spawn.py [-n 30]

It starts a LXD of its own and removes it.  The contestants take turns in one process.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import contest as contests
from benchmarks.contest import Contest, timed
from benchmarks.stats import Row, paired, table

WARM_UPS = 5


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
    driver = contest.driver
    times: dict[str, list[float]] = {"spawn": [], "raw spawn": [], "destroy": [], "raw destroy": []}
    for number in range(rounds + WARM_UPS):
        server = contests.server(number)
        turns = {
            "spawn": lambda server=server: contests.spawn(driver, server),
            "raw spawn": lambda: _raw_spawn(contest),
            "destroy": lambda server=server: driver.destroy(None, server, None),
            "raw destroy": lambda: _raw_destroy(contest),
        }
        order = list(turns) if number % 2 else ["raw spawn", "spawn", "raw destroy", "destroy"]
        for name in order:
            seconds = timed(turns[name])
            if number >= WARM_UPS:
                times[name].append(seconds)
    return [
        paired("spawn", times["spawn"], "raw LXD", times["raw spawn"], 1.10),
        paired("destroy", times["destroy"], "raw LXD", times["raw destroy"], 1.10),
    ]


def _raw_spawn(contest: Contest) -> None:
    contests.raw_create(contest, "raw")
    contests.raw_state(contest, "raw", "start")


def _raw_destroy(contest: Contest) -> None:
    contests.raw_state(contest, "raw", "stop", force=True)
    contests.raw_delete(contest, "raw")


if __name__ == "__main__":
    main()
