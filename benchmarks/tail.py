"""What is written to a log from now on."""

from __future__ import annotations

from pathlib import Path


class Tail:
    """The end of a file that grows; what it held before is not read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._begin = file.stat().st_size

    def text(self) -> str:
        """Return what came since."""
        with self._file.open() as file:
            file.seek(self._begin)
            return file.read()
