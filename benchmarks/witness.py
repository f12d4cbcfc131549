"""What LXD and Nova's API tell of a spawn by themselves; nobody asks the driver."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from aio.lxd import LxdDaemon
from benchmarks.tail import Tail

_EVENT = re.compile(r"^(?P<time>\S+ \S+) .* Creating event network-vif-plugged:", re.MULTILINE)


@dataclass(frozen=True)
class Operation:
    """One of LXD's, with its begin and end in seconds since the epoch."""

    kind: str
    begin: float
    end: float


@dataclass(frozen=True)
class Spawn:
    """When a spawn began, in seconds since the epoch, and how many seconds it took."""

    begin: float
    seconds: float


class Witness:
    """Notes LXD's operations, and what Neutron reports to Nova's API, while its block runs."""

    def __init__(self, operations: Path, api_log: Path) -> None:
        self._operations = operations
        self._api_log = Tail(api_log)

    def bounds(self, spawns: Sequence[Spawn]) -> list[float | None]:
        """Return the seconds that each spawn needs at least, None where a part is not known.

        That is the longer of its wait for Neutron and of its container's creation, and the start.
        """
        wired = [epoch(found["time"]) for found in _EVENT.finditer(self._api_log.text())]
        operations = self._read()
        return [_bound(spawn, wired, operations) for spawn in spawns]

    def _read(self) -> list[Operation]:
        lines = filter(None, self._operations.read_text().splitlines())
        done = filter(_is_success, map(json.loads, lines))
        return list({event["metadata"]["id"]: _operation(event) for event in done}.values())


def _bound(spawn: Spawn, wired: Sequence[float], operations: Sequence[Operation]) -> float | None:
    end = spawn.begin + spawn.seconds
    reports = [time for time in wired if spawn.begin < time < end]
    within = [item for item in operations if spawn.begin < item.begin < end]
    made, starts = (
        [item for item in within if item.kind == kind]
        for kind in ("Creating instance", "Starting instance")
    )
    if not (len(reports) == len(made) == len(starts) == 1):
        return None
    return max(reports[0], made[0].end) - spawn.begin + starts[0].end - starts[0].begin


@contextlib.contextmanager
def watching(lxd: LxdDaemon, api_log: Path) -> Iterator[Witness]:
    """Listen to LXD through its own client while the block runs."""
    command = ["lxc", "monitor", "--type=operation", "--all-projects", "--format=json"]
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        monitor = subprocess.Popen(command, stdout=file, env=os.environ | lxd.env)
        try:
            yield Witness(Path(file.name), api_log)
        finally:
            monitor.terminate()
            monitor.wait()


def epoch(text: str) -> float:
    """Read ISO 8601, in the host's own time if it names no zone; seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def _is_success(event: dict[str, Any]) -> bool:
    return bool(event["metadata"]["status"] == "Success")


def _operation(event: dict[str, Any]) -> Operation:
    """Read the end of an operation; ``updated_at`` is not the time of its end."""
    begin = epoch(event["metadata"]["created_at"])
    return Operation(event["metadata"]["description"], begin, epoch(event["timestamp"]))
