"""liblxc's monitor: the process beside each container through which its console passes.

It is one loop that also answers LXD, and it writes to terminals that block.  A client that stops
reading, or vanishes with output on its way, or types more than a guest reads, blocks that loop for
ever, since the monitor holds both ends of the client's terminal: LXD then takes five seconds for
every look at the container, and says that it deleted one that still runs (measured on 5.0.2 with
liblxc 5.0.2).  So its terminals are told not to block; what has no room is dropped.

Only root can: these functions run in a privsep daemon.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import stat
from collections.abc import Iterator

_PIDFD_GETFD = 438
"""Number of the system call, on every architecture; Linux 5.6 and later."""
_MULTIPLEXER = (5, 2)
_PTS = range(136, 144)
_HOST_PTS = "/dev/pts/ptmx"
_NAME = b"[lxc monitor] "

_libc = ctypes.CDLL(None, use_errno=True)


def unblock(init: int) -> bool:
    """Let no terminal of a container's console block its monitor.

    The guest's own end stays as it is: the monitor shares it with the guest's processes.

    :param init: process id of the container's init on the host
    :returns: whether a client's terminal was found that would have blocked
    :raises OSError: the host has no terminals of its own, or the kernel is too old
    """
    found = False
    for terminal, is_client in _terminals(init):
        flags = fcntl.fcntl(terminal, fcntl.F_GETFL)
        fcntl.fcntl(terminal, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        found |= is_client and not flags & os.O_NONBLOCK
    return found


def wake(init: int) -> None:
    """Write a NUL, which terminals ignore, to whoever is attached; the guest does not see it."""
    unblock(init)
    for terminal, is_client in _terminals(init):
        if is_client:
            with contextlib.suppress(OSError):
                os.write(terminal, b"\0")


def _terminals(init: int) -> Iterator[tuple[int, bool]]:
    """Yield the terminals that can block, and whether each is a client's.

    A client's terminal is the host's; the guest's end lies in a devpts of its own.
    """
    host = os.stat(_HOST_PTS).st_dev
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), _monitor(init) as monitor:
        for name in os.listdir(f"/proc/{monitor}/fd"):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(f"/proc/{monitor}/fd/{name}")
                is_client = _is_slave(status) and status.st_dev == host
                if is_client or _is_master(status):
                    with _copied(monitor, int(name)) as terminal:
                        yield terminal, is_client


@contextlib.contextmanager
def _monitor(init: int) -> Iterator[int]:
    with open(f"/proc/{init}/stat", "rb") as file:
        parent = int(file.read().rpartition(b")")[2].split()[1])
    with open(f"/proc/{parent}/cmdline", "rb") as file:
        if not file.read().startswith(_NAME):
            raise ProcessLookupError(f"{parent} is no container's monitor")
    yield parent


@contextlib.contextmanager
def _copied(process: int, number: int) -> Iterator[int]:
    """Copy another process's file descriptor, so that both are one open file."""
    handle = os.pidfd_open(process)
    try:
        copy = _libc.syscall(_PIDFD_GETFD, handle, number, 0)
        if copy < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(handle)
    try:
        yield copy
    finally:
        os.close(copy)


def _is_master(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and _device(status) == _MULTIPLEXER


def _is_slave(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and _device(status)[0] in _PTS


def _device(status: os.stat_result) -> tuple[int, int]:
    return os.major(status.st_rdev), os.minor(status.st_rdev)
