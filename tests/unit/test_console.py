"""Console logs: every byte once, although LXD hands each out once while a server runs."""

import stat

import nova.conf
import pytest

from nova_lxd.virt import console
from nova_lxd.virt.model import InstanceState

CONF = nova.conf.CONF


class Guest:
    """Answers as LXD 5.0.2 does: drains while running, repeats the rest once stopped."""

    def __init__(self):
        self.status = "Running"
        self.unread = b""
        self.rest = b""

    def state(self, name):
        return InstanceState(name=name, uuid="u", status=self.status)

    def console_log(self, name):
        if self.status == "Stopped":
            return self.rest
        drained, self.unread = self.unread, b""
        return drained

    def stop(self):
        self.status, self.rest, self.unread = "Stopped", self.unread, b""


@pytest.fixture
def guest():
    return Guest()


@pytest.fixture
def logs(guest, tmp_path):
    CONF.set_override("instances_path", str(tmp_path))
    yield console.ConsoleLogs(guest)
    CONF.clear_override("instances_path")


def test_what_was_read_once_is_read_again(guest, logs):
    guest.unread = b"one\n"
    assert logs.read(lambda: guest.state("i"), "u") == "one\n"
    guest.unread = b"two\n"
    assert logs.read(lambda: guest.state("i"), "u") == "one\ntwo\n"
    assert logs.read(lambda: guest.state("i"), "u") == "one\ntwo\n"


def test_a_line_repeated_by_the_guest_is_kept_twice(guest, logs):
    for _ in range(2):
        guest.unread = b"tick\n"
        log = logs.read(lambda: guest.state("i"), "u")
    assert log == "tick\ntick\n"


def test_the_end_of_a_stopped_server_is_added_once(guest, logs):
    guest.unread = b"up\n"
    logs.read(lambda: guest.state("i"), "u")
    guest.unread = b"bye\n"
    guest.stop()
    assert [logs.read(lambda: guest.state("i"), "u") for _ in range(3)] == ["up\nbye\n"] * 3


def test_a_whole_log_replaces_the_kept_beginning():
    assert console.merge(b"up\n", b"up\nbye\n", running=False) == b"up\nbye\n"


def test_the_last_bytes_are_kept():
    assert console.merge(b"a" * console.KEPT, b"end", running=True)[-4:] == b"aend"
    assert len(console.merge(b"a" * console.KEPT, b"end", running=True)) == console.KEPT


@pytest.mark.parametrize("written", ["up … ok".encode(), b"\xff\xfe ok", bytes(range(256))])
def test_nova_gets_the_very_bytes(guest, logs, written):
    guest.unread = written
    assert logs.read(lambda: guest.state("i"), "u").encode("latin-1") == written


def test_nobody_else_can_read_it_and_discard_leaves_nothing(guest, logs, tmp_path):
    guest.unread = b"secret"
    logs.read(lambda: guest.state("i"), "u")
    modes = {
        p.name: stat.S_IMODE(p.stat().st_mode) for p in [tmp_path / "u", *tmp_path.glob("u/*")]
    }
    assert modes == {"u": 0o700, "console.log": 0o600}
    logs.discard("u")
    assert list(tmp_path.iterdir()) == []
    logs.discard("u")
