"""Types commands in front of a reader."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

from aio.cloud import Cloud
from aio.errors import AioError
from aio.settings import Settings
from aio.tenant import SECONDS

_RULE = "=" * 78


class Terminal:
    """Shows commands and what they answer, as a person at a shell in ``folder`` would see them."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._folder = folder
        self._env = {
            **os.environ,
            **Cloud(settings).exports(),
            "PATH": settings.path,
            "COLUMNS": "120",
        }

    def title(self, text: str) -> None:
        """Begin a chapter."""
        print(f"\n{_RULE}\n{text}\n{_RULE}", flush=True)

    def say(self, text: str) -> None:
        """Tell what happens and why."""
        for line in textwrap.wrap(" ".join(text.split()), 76):
            print(f"# {line}", flush=True)

    def type(self, command: str, *, fails: bool = False, seconds: float = SECONDS) -> str:
        """Run a shell command in front of the reader and return its output.

        ``fails`` says that the story wants it to fail. Raises AioError when it ends otherwise.
        """
        print(f"\n$ {command}", flush=True)
        try:
            done = subprocess.run(
                ["bash", "-c", command],
                env=self._env,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AioError(f"'{command}' took longer than {seconds:.0f} s") from None
        print(done.stdout.rstrip(), flush=True)
        if bool(done.returncode) != fails:
            expected = "succeeded, and should not have" if fails else "failed"
            raise AioError(f"'{command}' {expected} (status {done.returncode})")
        return done.stdout

    def value(self, command: str) -> str:
        """Type a command that prints one value, and return it."""
        return self.type(command).strip()
