"""What the benchmark of boots makes of LXD's events and the log of Nova's API."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.witness import Spawn, Witness

BEGIN = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)
SPAWN = Spawn(BEGIN.timestamp(), 1.5)
REPORT = "{} 7 INFO nova.api [None a b] Creating event network-vif-plugged:port for instance s1\n"


def event(kind: str, begin: float, end: float, status: str = "Success") -> str:
    """Give what ``lxc monitor`` prints of an operation, seconds after ``BEGIN``."""
    created, now = (f"2026-11-30T12:00:{at:012.9f}Z" for at in (begin, end))
    told = {"id": f"{kind} {begin}", "description": kind, "status": status}
    return json.dumps({"timestamp": now, "metadata": told | {"created_at": created}}) + "\n\n"


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    """Watch one spawn, whose container is made after 0.6 s and whose start takes 0.25."""
    log, operations = tmp_path / "log", tmp_path / "operations"
    log.write_text(report(0.2))
    watched = Witness(operations, log)
    operations.write_text(
        event("Creating instance", 0.5, 0.55, "Running")
        + event("Creating instance", 0.5, 0.6)
        + event("Starting instance", 1.2, 1.45)
        + event("Starting instance", 7.0, 7.5)
    )
    return watched


def report(at: float) -> str:
    local = datetime.fromtimestamp(BEGIN.timestamp() + at)
    return REPORT.format(local.isoformat(sep=" ", timespec="milliseconds"))


@pytest.mark.parametrize(("wired", "bound"), [(1.0, 1.25), (0.4, 0.85)])
def test_the_longer_of_network_and_creation_counts(
    witness: Witness, tmp_path: Path, wired: float, bound: float
) -> None:
    with (tmp_path / "log").open("a") as log:
        log.write(report(wired))

    assert witness.bounds([SPAWN]) == [pytest.approx(bound, abs=1e-5)]


def test_a_spawn_whose_wiring_was_not_seen_proves_nothing(witness: Witness) -> None:
    assert witness.bounds([SPAWN]) == [None]
