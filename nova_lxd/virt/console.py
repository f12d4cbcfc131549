"""The servers' console logs.

LXD hands out what a running guest wrote since the last request, once (measured on 5.0.2: the
request drains liblxc's ring buffer of 128 KiB).  So what was read is kept, in a file that only
nova-compute's user can read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import nova.conf
from oslo_concurrency import lockutils
from oslo_utils import fileutils, units

from nova_lxd.virt.model import InstanceState
from nova_lxd.virt.session import Session

CONF = nova.conf.CONF

KEPT = units.Mi
"""Bytes kept of one log: the last ones."""


def merge(kept: bytes, read: bytes, *, running: bool) -> bytes:
    """Add what LXD answered to what is kept.

    Of a stopped server LXD repeats the end of the log at every request, or the whole of it.
    """
    if running:
        whole = kept + read
    elif kept.endswith(read):
        whole = kept
    elif read.startswith(kept):
        whole = read
    else:
        whole = kept + read
    return whole[-KEPT:]


class ConsoleLogs:
    """Reads and keeps the logs of this host's servers, each since its last start."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def read(self, current: Callable[[], InstanceState], uuid: str) -> str:
        """Return a server's log, every byte as the character of that number.

        Nova encodes what a driver returns with latin-1, and fails on any other character; so it
        gets back exactly the bytes that the guest wrote.

        :param current: reads the container whose console it is
        :raises NotFound: LXD has no such instance
        """
        with _locked(uuid):
            state = current()
            running = state.status != "Stopped"
            read = self._session.console_log(state.name)
            file = _folder(uuid) / "console.log"
            kept = file.read_bytes() if file.exists() else b""
            log = merge(kept, read, running=running)
            if log != kept:
                _write(file, log)
        return log.decode("latin-1")

    def discard(self, uuid: str) -> None:
        """Forget a server's log, before it starts anew or when it is gone."""
        with _locked(uuid):
            shutil.rmtree(_folder(uuid), ignore_errors=True)


def _locked(uuid: str) -> AbstractContextManager[Any]:
    lock: AbstractContextManager[Any] = lockutils.lock(f"lxd-console-{uuid}")
    return lock


def _folder(uuid: str) -> Path:
    return Path(CONF.instances_path) / uuid


def _write(file: Path, content: bytes) -> None:
    fileutils.ensure_tree(str(file.parent), mode=0o700)
    partial = file.with_suffix(".part")
    partial.touch(mode=0o600)
    partial.write_bytes(content)
    partial.replace(file)
