"""Medians, percentiles and a bootstrap interval of paired ratios."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One line of the table: ours against a peer, in milliseconds."""

    row: str
    ours_ms: float
    ours_p95_ms: float
    peer: str
    peer_ms: float
    peer_p95_ms: float
    ratio: float
    ci_low: float
    ci_high: float
    n: int
    target: float

    def as_dict(self) -> dict[str, object]:
        """Give the row as JSON wants it."""
        return {key: round(v, 3) if isinstance(v, float) else v for key, v in asdict(self).items()}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def paired(
    row: str, ours: Sequence[float], peer_name: str, peer: Sequence[float], target: float
) -> Row:
    """Compare runs that were interleaved: the ratio is the median of the pairs' ratios.

    :param ours: seconds
    :param peer: seconds, one for each of ``ours``
    """
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    chance = random.Random(1)
    medians = sorted(
        statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES)
    )
    return Row(
        row=row,
        ours_ms=statistics.median(ours) * 1000,
        ours_p95_ms=percentile(ours, 0.95) * 1000,
        peer=peer_name,
        peer_ms=statistics.median(peer) * 1000,
        peer_p95_ms=percentile(peer, 0.95) * 1000,
        ratio=statistics.median(ratios),
        ci_low=medians[int(0.025 * _RESAMPLES)],
        ci_high=medians[int(0.975 * _RESAMPLES)],
        n=len(ratios),
        target=target,
    )


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for a terminal."""
    lines = [f"{'':34}{'ours p50/p95 ms':>18}{'peer p50/p95 ms':>18}  ratio [95 %]        target"]
    lines += [
        f"{r.row + ' vs ' + r.peer:34}{r.ours_ms:>10.0f}/{r.ours_p95_ms:<7.0f}"
        f"{r.peer_ms:>10.0f}/{r.peer_p95_ms:<7.0f}  "
        f"{r.ratio:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]  <= {r.target:.2f}  n={r.n}"
        for r in rows
    ]
    return "\n".join(lines)
