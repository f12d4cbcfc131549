"""When the parts of a build were done: they overlap, so their durations do not add up."""

from __future__ import annotations

from oslo_utils import timeutils


class Timeline:
    """Remembers when each part was done, in seconds since the object was made."""

    def __init__(self) -> None:
        self._watch = timeutils.StopWatch().start()
        self._done: dict[str, float] = {}

    def done(self, part: str) -> None:
        """Note that ``part`` is done now."""
        self._done[part] = self._watch.elapsed()

    def elapsed(self) -> float:
        """Return the seconds since the beginning."""
        return float(self._watch.elapsed())

    def __str__(self) -> str:
        """Return the parts in the order in which they were done: ``container 0.21 s, ...``."""
        parts = sorted(self._done.items(), key=lambda item: item[1])
        return ", ".join(f"{part} {seconds:.2f} s" for part, seconds in parts)
