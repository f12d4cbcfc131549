"""The plots of the documentation, as SVG that only changes when a figure does."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
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
        if "-" not in name  # another state of the code, kept to compare
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


def scale(documents: Documents) -> str:
    """Draw what grows with the number of servers, and what must not."""
    if "scale" not in documents:
        return ""
    steps = [step for step in documents["scale"]["series"] if step["servers"]]
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    (rate, wait), (memory, tasks) = figure.subplots(2, 2)
    _lines(rate, steps, {"created": "create_per_second"})
    _finish(rate, "servers a second, of each order")
    _lines(wait, steps, {"p50": "active_p50_s", "p95": "active_p95_s"})
    _finish(wait, "seconds from the order to ACTIVE")
    _stack(memory, steps)
    _finish(memory, "MiB in all, by part", legend="upper left")
    for name in steps[0]["periodic"]:
        _line(tasks, name, steps, [step["periodic"][name]["ms"] for step in steps])
    tasks.set_yscale("log")
    _finish(tasks, "ms of one round of a periodic task")
    return _svg(figure)


def memory(documents: Documents) -> str:
    """Draw how nova-compute and LXD grow while servers come and go."""
    if "memory" not in documents:
        return ""
    samples = documents["memory"]["series"]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    for name in samples[0]:
        if name != "servers":
            _line(axes, name, samples, [sample[name] for sample in samples])
    if control := documents.get("memory-fake", {}).get("series"):
        values = [sample["nova-compute"] for sample in control]
        _line(axes, "nova-compute, fake driver", control, values)
    _finish(axes, "MiB", "servers made and removed")
    return _svg(figure)


def _lines(axes: Any, steps: Sequence[dict[str, Any]], names: Mapping[str, str]) -> None:
    for label, key in names.items():
        _line(axes, label, steps, [step[key] for step in steps])


def _line(axes: Any, label: str, steps: Sequence[dict[str, Any]], values: Sequence[float]) -> None:
    axes.plot([step["servers"] for step in steps], values, "o-", label=label, markersize=3)


def _stack(axes: Any, steps: Sequence[dict[str, Any]]) -> None:
    """Draw the parts above each other, the largest at the bottom."""
    last = steps[-1]["memory_mib"]
    names = sorted(set(last) - {"host"}, key=last.__getitem__, reverse=True)
    parts = [[step["memory_mib"].get(name, 0) for step in steps] for name in names]
    axes.stackplot([step["servers"] for step in steps], *parts, labels=names)


def _finish(
    axes: Any, title: str, below: str = "servers on the host", legend: str = "best"
) -> None:
    axes.set_title(title, fontsize="medium", loc="left")
    axes.set_xlabel(below)
    axes.set_ylim(bottom=0 if axes.get_yscale() == "linear" else None)
    axes.legend(frameon=False, fontsize="small", loc=legend)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


PLOTS: dict[str, Callable[[Documents], str]] = {
    "ratios": ratios,
    "scale": scale,
    "memory": memory,
}
"""Name of the file -> what draws it; an empty text means that there is nothing to draw."""
