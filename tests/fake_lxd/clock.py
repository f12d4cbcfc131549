"""Time stamps as LXD writes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

EPOCH = "1970-01-01T00:00:00Z"
NEVER = "0001-01-01T00:00:00Z"


def stamp(nanoseconds: int) -> str:
    """Word a point in time, given in nanoseconds since the epoch."""
    seconds, rest = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09}".rstrip("0").rstrip(".") + "Z"


def now() -> str:
    """Word the present moment."""
    return stamp(time.time_ns())
