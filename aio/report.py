"""What the person at the terminal sees: stages, seconds, counters."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

_WIDTH = 44
_QUIET = 10.0  # seconds between progress lines when the output is no terminal


class Reporter:
    """Prints one line for each stage; on a terminal a long stage counts on that line."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._live = self._out.isatty()
        self._stage = ""
        self._began = self._printed = 0.0

    @contextmanager
    def stage(self, number: int, total: int, title: str) -> Iterator[None]:
        """Show that a stage runs, then how many seconds it took or that it failed."""
        self._stage = f"[{number:2}/{total}] {title}"
        self._began = self._printed = time.monotonic()
        if self._live:
            self._rewrite(self._stage)
        try:
            yield
        except BaseException:
            self._finish("failed after")
            raise
        self._finish("")

    def progress(self, text: str) -> None:
        """Show how far a long stage is, for example ``12 of 40 packages``."""
        now = time.monotonic()
        if self._live:
            self._rewrite(f"{self._stage}: {text}")
        elif now - self._printed >= _QUIET:
            self._printed = now
            self.line(f"        {now - self._began:5.0f} s  {text}")

    def count(self, done: int, total: int, what: str) -> None:
        """Show a progress bar, as ``#####----- 12/24 what``."""
        filled = 0 if not total else round(20 * done / total)
        self.progress(f"{'#' * filled}{'-' * (20 - filled)} {done}/{total} {what}")

    def line(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._out, flush=True)

    def _finish(self, verdict: str) -> None:
        seconds = time.monotonic() - self._began
        if self._live:
            self._rewrite("")
        self.line(f"{self._stage:.<{_WIDTH}} {verdict:>12} {seconds:6.1f} s")

    def _rewrite(self, text: str) -> None:
        print(f"\r\033[K{text[:110]}", end="", file=self._out, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, tuple("-" * width for width in widths), *rows]
    padded = (zip(line, widths, strict=True) for line in lines)
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in line).rstrip() for line in padded
    )
