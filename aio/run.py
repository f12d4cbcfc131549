"""Run a command to its end, with errors that name it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from aio.errors import AioError


def run(
    *argv: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    check: bool = True,
    stdin: str = "",
    hint: str = "",
) -> str:
    """Run a command and return what it wrote to its standard output.

    ``env`` is added to our own environment. A failure raises AioError with the command and what
    it said last; with ``check=False`` a non-zero exit status is ignored.
    """
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise AioError(f"{argv[0]} is not installed", hint=hint) from None
    except subprocess.TimeoutExpired:
        raise AioError(f"{shlex.join(argv)} took longer than {timeout:.0f} s", hint=hint) from None
    if check and done.returncode:
        raise failure(argv, done.returncode, done.stderr or done.stdout, hint)
    return done.stdout


def failure(argv: Sequence[str], status: int, said: str, hint: str = "") -> AioError:
    """Return the error for a command that ended with ``status``."""
    last = "\n".join(said.splitlines()[-15:])
    return AioError(f"{shlex.join(argv)} failed with status {status}", log=last, hint=hint)
