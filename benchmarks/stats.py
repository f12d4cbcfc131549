"""Medians, percentiles and a bootstrap interval of paired ratios."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from prettytable import PrettyTable

_RESAMPLES = 2000


@dataclass(frozen=True)
class Cost:
    """What one call took: seconds by the clock, and of CPU time where that can be told."""

    seconds: float
    cpu: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table: ours against a peer, in milliseconds; CPU time is the mean.

    ``target`` is None where a peer is there to look at only.
    """

    row: str
    ours_ms: float
    ours_p95_ms: float
    ours_cpu_ms: float | None
    peer: str
    peer_ms: float
    peer_p95_ms: float
    peer_cpu_ms: float | None
    ratio: float
    ci_low: float
    ci_high: float
    n: int
    target: float | None

    def as_dict(self) -> dict[str, object]:
        """Give the row as JSON wants it."""
        return {key: round(v, 3) if isinstance(v, float) else v for key, v in asdict(self).items()}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def paired(
    row: str, ours: Sequence[Cost], peer_name: str, peer: Sequence[Cost], target: float | None
) -> Row:
    """Compare runs that were interleaved: the ratio is the median of the pairs' ratios.

    :param peer: one for each of ``ours``
    """
    ratios = [a.seconds / b.seconds for a, b in zip(ours, peer, strict=True)]
    low, high = interval(ratios)
    return Row(
        row=row,
        **_figures("ours", ours),
        peer=peer_name,
        **_figures("peer", peer),
        ratio=statistics.median(ratios),
        ci_low=low,
        ci_high=high,
        n=len(ratios),
        target=target,
    )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the bootstrap's interval, at 95 %, of the median of ``values``."""
    chance = random.Random(1)
    medians = sorted(
        statistics.median(chance.choices(values, k=len(values))) for _ in range(_RESAMPLES)
    )
    return medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES)]


def _figures(who: str, costs: Sequence[Cost]) -> dict[str, Any]:
    seconds = [cost.seconds for cost in costs]
    cpu = [cost.cpu for cost in costs if cost.cpu is not None]
    return {
        f"{who}_ms": statistics.median(seconds) * 1000,
        f"{who}_p95_ms": percentile(seconds, 0.95) * 1000,
        f"{who}_cpu_ms": statistics.mean(cpu) * 1000 if cpu else None,
    }


HEADER = (
    "",
    "against",
    "p50",
    "p95",
    "CPU",
    "its p50",
    "its p95",
    "its CPU",
    "ratio [95 %]",
    "target",
    "n",
)


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for a terminal."""
    shown = PrettyTable(HEADER)
    shown.align = "r"
    shown.align[HEADER[0]] = shown.align[HEADER[1]] = "l"
    shown.add_rows(list(map(cells, rows)))
    return f"{shown.get_string()}\nms; CPU is the mean, of the caller and LXD"


def row_of(kept: dict[str, Any]) -> Row:
    """Return the row that was kept as JSON."""
    known = {field.name for field in fields(Row)}
    return Row(**{key: kept.get(key) for key in known})


def cells(row: Row) -> list[str]:
    """Return what people read of a row."""
    times = [row.ours_ms, row.ours_p95_ms, row.ours_cpu_ms]
    times += [row.peer_ms, row.peer_p95_ms, row.peer_cpu_ms]
    return [
        row.row,
        row.peer,
        *("" if time is None else f"{time:.{0 if time >= 20 else 1}f}" for time in times),
        f"{row.ratio:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]",
        "" if row.target is None else f"{row.target:.2f}",
        str(row.n),
    ]
