"""What is done to the terminals of a container's monitor, on a stand-in that has some."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys

import pytest

from nova_lxd import monitor

_PARENT = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
print(child.pid, flush=True)
child.wait()
"""


@contextlib.contextmanager
def process(name, terminals):
    """Run a process of this name that has the terminals open; yield its child's id."""
    parent = subprocess.Popen(
        [name, "-c", _PARENT],
        executable=sys.executable,
        stdout=subprocess.PIPE,
        pass_fds=terminals,
        text=True,
    )
    child = int(parent.stdout.readline())
    try:
        yield child
    finally:
        os.kill(child, 9)
        parent.wait()
        parent.stdout.close()


@pytest.fixture
def terminals():
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def blocks(terminal):
    return not fcntl.fcntl(terminal, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_clients_terminal_is_unblocked_once(terminals):
    with process("[lxc monitor] /var/lib/lxd/containers one", terminals) as init:
        assert monitor.unblock(init)
        assert not any(map(blocks, terminals)), "the open files are shared, not copied"
        assert not monitor.unblock(init), "it is no new one"


def test_a_waker_reaches_the_client(terminals):
    with process("[lxc monitor] /var/lib/lxd/containers one", terminals) as init:
        monitor.wake(init)
        assert os.read(terminals[0], 10) == b"\0"


def test_a_full_terminal_does_not_block_the_waker(terminals):
    slave = terminals[1]
    with process("[lxc monitor] /var/lib/lxd/containers one", terminals) as init:
        monitor.unblock(init)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(slave, b"x" * 4096)
        monitor.wake(init)


def test_other_processes_are_left_alone(terminals):
    with process("python3", terminals) as init:
        assert not monitor.unblock(init)
        monitor.wake(init)
        assert all(map(blocks, terminals))


def test_a_container_that_is_gone(terminals):
    with process("[lxc monitor] /var/lib/lxd/containers one", terminals) as init:
        pass
    assert not monitor.unblock(init)
    monitor.wake(init)
