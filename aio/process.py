"""Processes that we own: start them, know that they live, stop them with all they started."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aio.errors import AioError

#: Environment variable that marks every process we start, and what those start in turn.
OWNER = "NOVA_LXD_AIO_OWNER"
#: Environment variable with the service's name, likewise.
SERVICE = "NOVA_LXD_AIO_SERVICE"
_START_TIME = 19  # index of field 22 of /proc/PID/stat behind the command's closing bracket


def boot_id() -> str:
    """Return what the kernel calls this boot; process ids mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Return when process ``pid`` started, in clock ticks since boot; None if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[_START_TIME])


def started_at(pid: int) -> float:
    """Return when process ``pid`` started, in seconds since the epoch; 0 if it does not run."""
    ticks = start_time(pid)
    if ticks is None:
        return 0
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Return the proportional set size of process ``pid`` in bytes, 0 if it does not run."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def environment(pid: int) -> dict[str, str]:
    """Return the environment that process ``pid`` was started with, empty if it is gone."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.split(b"=", 1) for item in raw.split(b"\0") if b"=" in item)
    return {os.fsdecode(key): os.fsdecode(value) for key, value in pairs}


def all_pids() -> list[int]:
    """Return the ids of all processes of the machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def session(pid: int) -> int:
    """Return the session of process ``pid``, 0 if it is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def pids_by_service(owners: Container[str], leaders: Mapping[int, str]) -> dict[str, list[int]]:
    """Return process ids by service, with all that each of them started.

    ``leaders`` maps the services' process ids to their names: a process that set its title has
    overwritten the mark in its environment, but it is still in the session of its service.
    """
    found: dict[str, list[int]] = {}
    for pid in all_pids():
        env = environment(pid)
        name = env.get(SERVICE) if env.get(OWNER) in owners else leaders.get(session(pid))
        if name:
            found.setdefault(name, []).append(pid)
    return found


def memory_by_service(owners: Container[str], leaders: Mapping[int, str]) -> dict[str, int]:
    """Return bytes (proportional set size) by service; see ``pids_by_service``."""
    found = pids_by_service(owners, leaders)
    return {name: sum(map(memory, pids)) for name, pids in found.items()}


def owned_by(owner: str) -> list[int]:
    """Return the live processes that carry ``owner`` as their mark, except this one.

    Some services overwrite their environment with a title; they are known by the configuration
    file below ``owner`` that the title still names.
    """
    config = f"--config-file={owner}/".encode()
    marked = (
        pid
        for pid in all_pids()
        if environment(pid).get(OWNER) == owner or config in command_line(pid)
    )
    return [pid for pid in marked if pid != os.getpid() and start_time(pid) is not None]


def command_line(pid: int) -> bytes:
    """Return the arguments of process ``pid`` as the kernel shows them, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def parent(pid: int) -> int:
    """Return the parent's id of process ``pid``, 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def wait_until(
    condition: Callable[[], object],
    seconds: float,
    what: str,
    *,
    interval: float = 0.1,
    log: Callable[[], str] = str,
    hint: str = "",
) -> None:
    """Poll ``condition`` until it is true; after ``seconds`` raise AioError naming ``what``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AioError(f"waited {seconds:.0f} s for {what}", log=log(), hint=hint)
        time.sleep(interval)


def kill(pids: Iterable[int], seconds: float = 10) -> None:
    """Ask processes to end with SIGTERM; what still runs after ``seconds`` gets SIGKILL."""
    alive = {pid: start for pid in pids if (start := start_time(pid)) is not None}
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
        for pid in _still(alive):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(AioError):
            wait_until(lambda: not _still(alive), patience, "processes to end")


def _still(started: Mapping[int, int]) -> list[int]:
    return [pid for pid, start in started.items() if start_time(pid) == start]


def members(leader: int) -> list[int]:
    """Return the live processes of a session, also when its leader has ended."""
    found = (pid for pid in all_pids() if session(pid) == leader)
    return [pid for pid in found if start_time(pid) is not None]


def tail(path: Path, lines: int = 15) -> str:
    """Return the last ``lines`` of a log, empty if there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 64 * 1024))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _identity(user: str, groups: Sequence[str]) -> dict[str, Any]:
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": groups, "cwd": "/"}


class Process:
    """A process that outlives us, found again by its pid file.

    The pid file holds pid, start time and boot, so that a foreign process that inherited the
    number is never taken for ours.
    """

    def __init__(self, name: str, run: Path, log: Path, *, owner: str) -> None:
        self.name = name
        self.pid_file = run / f"{name}.pid"
        self.log_file = log / f"{name}.log"
        self._owner = owner
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Id of the live process, None when it does not run."""
        if self._child:
            self._child.poll()  # reaps it, should it have ended
        try:
            record = json.loads(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        started = start_time(record["pid"])
        # One that ended before it could be looked at has no start on record.
        same = record["boot"] == boot_id() and started is not None and started == record["started"]
        return record["pid"] if same else None

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        user: str = "root",
        groups: Sequence[str] = (),
    ) -> None:
        """Start ``argv`` in a session of its own, unless it runs already.

        Another ``user`` than root gets these groups beside its own, and no capability.
        """
        if self.pid:
            return
        for file in (self.pid_file, self.log_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                argv,
                env={
                    **(os.environ if env is None else env),
                    OWNER: self._owner,
                    SERVICE: self.name,
                },
                **({} if user == "root" else _identity(user, groups)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._remember(self._child.pid)

    def _remember(self, pid: int) -> None:
        record = {"pid": pid, "started": start_time(pid), "boot": boot_id()}
        scratch = self.pid_file.with_suffix(".new")
        scratch.write_text(json.dumps(record))
        scratch.replace(self.pid_file)

    def wait_ready(self, ready: Callable[[], object], seconds: float = 60) -> None:
        """Wait until ``ready`` answers true; fail at once when the process ends before."""

        def ready_or_dead() -> bool:
            if not self.pid:
                raise AioError(
                    f"{self.name} ended while starting ({self.log_file})", log=self.tail()
                )
            return bool(ready())

        wait_until(ready_or_dead, seconds, f"{self.name} to get ready", log=self.tail)

    def stop(self, seconds: float = 10) -> None:
        """End the process and its session; harmless when it does not run."""
        pid = self.pid
        if pid:
            kill([pid], seconds)
            kill(members(pid), 2)
        if self._child:
            self._child.poll()
        self.pid_file.unlink(missing_ok=True)

    def tail(self, lines: int = 15) -> str:
        """Return the last ``lines`` of the log."""
        return tail(self.log_file, lines)
