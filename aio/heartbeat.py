"""Whether a heartbeat was written by the process that runs now, not by the one before it."""

from __future__ import annotations

from datetime import UTC, datetime

from aio.process import started_at


def is_fresh(stamp: str | None, pid: int | None) -> bool:
    """Tell whether ``stamp`` (ISO time, UTC) is younger than process ``pid``.

    No stamp at all is fresh: the service has registered in an empty database and not reported yet.
    """
    if not pid:
        return False
    return stamp is None or epoch(stamp) >= int(started_at(pid))


def epoch(stamp: str) -> float:
    """Return the seconds since the epoch of an ISO time in UTC, with or without a zone."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).replace(tzinfo=UTC).timestamp()
