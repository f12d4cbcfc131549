"""The plots of the documentation, as SVG that only changes when a figure does."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.stats import Row, row_of

mpl.rcParams.update({"svg.hashsalt": "nova-lxd", "font.size": 9, "axes.grid": True})
mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.3})

OURS, PEER, TARGET = "tab:blue", "tab:gray", "tab:red"
WIDEST = 2.5
"""Where the axis of ratios ends; the interval of what takes either 10 ms or 1 s goes on."""
Documents = Mapping[str, dict[str, Any]]


def ratios(documents: Documents) -> str:
    """Draw every ratio that has a target, with its interval; left of the red mark is good."""
    found = [
        (name, row)
        for name, document in documents.items()
        for row in map(row_of, document.get("rows", ()))
        if row.target is not None
    ]
    figure = Figure(figsize=(8, 0.9 + 0.21 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, (_, row) in enumerate(found):
        _mark(axes, place, row)
    axes.set_yticks(range(len(found)), [f"{name}: {row.row}" for name, row in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.axvline(1, color=PEER, linewidth=1)
    axes.set_xlim(0, WIDEST)
    axes.set_xlabel("our time : the peer's (1 = as fast; the red mark is the target)")
    return _svg(figure)


def _mark(axes: Any, place: int, row: Row) -> None:
    axes.plot([row.ci_low, row.ci_high], [place, place], color=OURS, linewidth=2)
    axes.plot(row.ratio, place, "o", color=OURS, markersize=4)
    axes.plot(row.target, place, "|", color=TARGET, markersize=9, markeredgewidth=1.5)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


PLOTS: dict[str, Callable[[Documents], str]] = {"ratios": ratios}
"""Name of the file -> what draws it; an empty text means that there is nothing to draw."""
