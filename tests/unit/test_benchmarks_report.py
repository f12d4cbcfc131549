"""Ratios with their intervals, and what the documentation shows of them."""

from __future__ import annotations

import json
import statistics

import pytest

from benchmarks import report, stats
from benchmarks.stats import Cost


def costs(*milliseconds: float, cpu: float | None = None) -> list[Cost]:
    return [Cost(value / 1000, cpu) for value in milliseconds]


def test_a_ratio_is_that_of_the_pairs() -> None:
    row = stats.paired("spawn", costs(10, 20, 90), "raw", costs(10, 10, 30, cpu=0.005), 1.1)

    assert (row.ours_ms, row.peer_ms) == pytest.approx((20, 10))
    assert (row.ratio, row.n, row.target) == (pytest.approx(2), 3, 1.1)
    assert (row.ours_cpu_ms, row.peer_cpu_ms) == (None, pytest.approx(5))
    assert row.ci_low <= row.ratio <= row.ci_high


def test_contestants_must_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        stats.paired("spawn", costs(10, 20), "raw", costs(10), None)


def test_an_interval_holds_the_median_and_widens_with_the_spread() -> None:
    calm, wild = [1.0, 1.1, 0.9] * 10, [0.1, 1.0, 5.0] * 10
    for values in (calm, wild):
        low, high = stats.interval(values)
        assert low <= statistics.median(values) <= high
    assert stats.interval([1.0] * 5) == (1.0, 1.0)
    spread = [high - low for low, high in map(stats.interval, (calm, wild))]
    assert spread[0] < spread[1]


def test_a_row_survives_its_file() -> None:
    row = stats.paired("spawn", costs(10), "raw", costs(8), None)
    kept = json.loads(json.dumps(row.as_dict()))
    assert stats.row_of(kept) == row
    assert stats.cells(row)[-3:] == ["1.25 [1.25, 1.25]", "", "1"]


def test_only_benchmarks_with_rows_have_a_table() -> None:
    row = stats.paired("spawn", costs(10), "raw", costs(8), 1.1).as_dict()
    found = report.tables({"a": {"rows": [row]}, "b": {"cycles": 50}})
    assert list(found) == ["a"]
    assert "spawn,raw," in found["a"]


def test_the_documentation_shows_what_was_measured() -> None:
    """Nobody edited a table by hand, or forgot to make it anew."""
    shown = {file.stem: file.read_text() for file in report.DOCUMENTATION.glob("*.csv")}
    assert shown == report.tables(report.load(report.RESULTS))
