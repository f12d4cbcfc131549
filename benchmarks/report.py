"""Turns the kept results into what the documentation shows: a table for each, and plots.

``python3 aio bench --report`` runs it.  It reads benchmarks/results/*.json, writes the tables as
CSV and the plots as SVG to doc/source/performance, and prints all rows.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stats import HEADER, Row, cells, row_of, table

RESULTS = Path(__file__).parent / "results"
DOCUMENTATION = Path(__file__).parents[1] / "doc" / "source" / "performance"
Documents = Mapping[str, dict[str, Any]]
"""Name of a benchmark -> what it wrote."""


def main() -> None:
    """Write tables and plots."""
    from benchmarks import plots

    documents = load(RESULTS)
    DOCUMENTATION.mkdir(exist_ok=True)
    for name, text in tables(documents).items():
        (DOCUMENTATION / f"{name}.csv").write_text(text)
    for name, plot in plots.PLOTS.items():
        if picture := plot(documents):
            (DOCUMENTATION / f"{name}.svg").write_text(picture)
    print(table([row for document in documents.values() for row in rows(document)]))


def load(folder: Path) -> Documents:
    """Read all results."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def rows(document: dict[str, Any]) -> list[Row]:
    """Return the rows of one benchmark; some have none."""
    return [row_of(row) for row in document.get("rows", ())]


def tables(documents: Documents) -> dict[str, str]:
    """Return a CSV file for each benchmark that has rows."""
    return {name: _csv(found) for name, document in documents.items() if (found := rows(document))}


def _csv(found: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(map(cells, found))
    return text.getvalue()


if __name__ == "__main__":
    main()
