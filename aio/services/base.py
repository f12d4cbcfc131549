"""What a service is: declared once, then started, watched and stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aio import account
from aio.process import Process
from aio.settings import Settings


def _nothing(settings: Settings) -> dict[str, str]:
    return {}


def _root(settings: Settings) -> str:
    return "root"


@dataclass(frozen=True)
class Service:
    """One process of the cloud.

    ``command`` returns its arguments, ``healthy`` tells whether it does its work (it gets the
    settings and the process), ``configs`` are the files below etc/ that it reads, ``sources`` what
    else makes a restart necessary when it changes, ``env`` what it needs beside PATH, ``folders``
    what it wants to find below data/, ``ports`` the names of the ports on which it listens,
    ``patience`` how many seconds a start may take on a slow machine and ``grace`` a stop,
    ``user`` whom it runs as, ``groups`` what that one needs to be in if it is not root.
    """

    name: str
    package: str
    command: Callable[[Settings], Sequence[str]]
    healthy: Callable[[Settings, Process], bool]
    configs: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    env: Callable[[Settings], Mapping[str, str]] = field(default=_nothing)
    folders: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    patience: float = 180
    grace: float = 10
    user: Callable[[Settings], str] = field(default=_root)
    groups: tuple[str, ...] = ()


class Unit:
    """A service of one cloud."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.name = service.name
        self._settings = settings
        owner = str(settings.state)
        self.process = Process(service.name, settings.run, settings.log, owner=owner)
        self._key_file = settings.run / f"{service.name}.key"

    @property
    def pid(self) -> int | None:
        """Id of the process, None when it does not run."""
        return self.process.pid

    def start(self) -> None:
        """Start it; when it runs with an older configuration or older code, start it anew."""
        key = self._key()
        if self.pid and (not self._key_file.exists() or self._key_file.read_text() != key):
            self.stop()
        user = self.service.user(self._settings)
        for folder in (self._settings.data / name for name in self.service.folders):
            folder.mkdir(parents=True, exist_ok=True)
            account.give(folder, user)
        command, groups = self.service.command(self._settings), self.service.groups
        self.process.start(command, self._environment(), user=user, groups=groups)
        self._key_file.write_text(key)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ}
        own = self.service.env(self._settings)
        ours = {"HOME": str(self._settings.data), "OVS_RUNDIR": str(self._settings.ovs / "run")}
        return {**ours, "PATH": self._settings.path, **kept, **own}

    def _key(self) -> str:
        files = [self._settings.etc / name for name in self.service.configs]
        for source in self.service.sources:
            files += sorted(source.rglob("*.py"))
        digest = hashlib.sha256(repr(self.service.command(self._settings)).encode())
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def healthy(self) -> bool:
        """Tell whether it runs and does its work."""
        return bool(self.pid) and self.service.healthy(self._settings, self.process)

    def wait(self) -> None:
        """Wait until it is healthy; AioError with the log's last lines when it is not in time."""
        self.process.wait_ready(self.healthy, self.service.patience)

    def stop(self) -> None:
        """Stop it; harmless when it does not run."""
        self.process.stop(self.service.grace)
        self._key_file.unlink(missing_ok=True)


def runs(settings: Settings, process: Process) -> bool:
    """Health of a service that nobody can ask: it runs."""
    return bool(process.pid)
