"""What the benchmark of periodic work makes of what it measured."""

from __future__ import annotations

from collections import Counter

from benchmarks import periodic
from benchmarks.stats import Cost
from benchmarks.threads import BATCH, _of_one

COUNTS = (10, 200)


def measured(name: str, seconds: float, *, of_each: bool):
    """Stand in for a work that takes our driver three times as long as a bare client."""
    work = periodic.Work(name, print, print, 1.5, of_each)
    return [
        periodic.Measured(
            work,
            count,
            [Cost(seconds * (count if of_each else 1), 0.0)] * 3,
            [Cost(seconds * (count if of_each else 1) / 3, 0.0)] * 3,
            Counter({"GET instances": count if of_each else 1}),
        )
        for count in COUNTS
    ]


ALL = [*measured("sync", 0.002, of_each=True), *measured("audit", 0.1, of_each=False)]


def test_rows_are_against_raw_at_every_number_and_against_the_fewest() -> None:
    found = {(row.row, row.peer): round(row.ratio, 6) for row in periodic.rows(ALL)}
    assert found == {
        ("sync, 10", "raw LXD"): 3,
        ("sync, 200", "raw LXD"): 3,
        ("audit, 200", "raw LXD"): 3,
        ("sync, each of 200", "ours, 10"): 1,
        ("audit, 200", "ours, 10"): 1,
    }


def test_growth_is_told_as_a_whole_and_for_each_server() -> None:
    sync = [line for line in periodic.series(ALL) if line["work"] == "sync"]
    assert [line["servers"] for line in sync] == [10, 200]
    assert [line["ours_ms"] for line in sync] == [20, 400]
    assert [line["ours_ms_for_each"] for line in sync] == [2, 2]
    assert [line["requests"] for line in sync] == [10, 200]


def test_requests_are_those_beside_the_most_servers() -> None:
    found = periodic.requests(ALL)
    assert found == {"sync": {"GET instances": 200}, "audit": {"GET instances": 1}}


def test_a_batch_is_told_by_its_servers() -> None:
    assert _of_one(Cost(8.0, 4.0)) == Cost(8.0 / BATCH, 4.0 / BATCH)
    assert _of_one(Cost(8.0)) == Cost(8.0 / BATCH)
