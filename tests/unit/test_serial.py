"""Serial consoles without LXD: who is let in, for how long, and what is left of it."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from unittest import mock

import nova.conf
import pytest
from nova import exception as nova_exception

from nova_lxd import exception
from nova_lxd.virt import serial, terminal
from nova_lxd.virt.model import InstanceState

CONF = nova.conf.CONF
REFUSED = b"HTTP/1.1 403 Forbidden\r\n\r\n"
ACCEPTED = b"HTTP/1.1 200 OK\r\n\r\n"


class Terminal:
    """A console that answers with what is typed, in capitals, until it is told to end."""

    def __init__(self):
        self.written = queue.Queue()
        self.calls = []
        self.ended = False

    def read(self):
        return self.written.get()

    def write(self, content):
        if self.ended:
            raise exception.LXDUnreachable("it has ended")
        if content:
            self.written.put(content.upper())

    def hang_up(self):
        self.calls.append("hang up")
        self.written.put(b"")

    def is_over(self, seconds):
        self.calls.append("is over")
        return True

    def close(self):
        self.calls.append("close")


class Session:
    """Attaches to consoles of its own; ``refusal`` is raised instead."""

    def __init__(self):
        self.terminals = []
        self.refusal = None

    def init_pid(self, name):
        return 4711

    def attach(self, name):
        if self.refusal:
            raise self.refusal
        self.terminals.append(Terminal())
        return self.terminals[-1]


@pytest.fixture
def session():
    return Session()


@pytest.fixture(autouse=True)
def privileged():
    """The privileged helper: every terminal is unblocked at once."""
    with (
        mock.patch("nova_lxd.privsep.start"),
        mock.patch("nova_lxd.privsep.unblock_console", return_value=True) as unblock,
        mock.patch("nova_lxd.privsep.wake_console"),
    ):
        yield unblock


@pytest.fixture
def set_option():
    with contextlib.ExitStack() as undo:

        def set_option(group, **values):
            for name, value in values.items():
                CONF.set_override(name, value, group=group)
                undo.callback(CONF.clear_override, name, group=group)

        set_option("serial_console", enabled=True)
        yield set_option


@pytest.fixture
def consoles(session, set_option, monkeypatch):
    monkeypatch.setattr(terminal, "ASK", 0.05)
    consoles = serial.SerialConsoles(session)
    yield consoles
    consoles.stop()
    wait(lambda: not threads())


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lxd-serial")]


def wait(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def find(status="Running"):
    return lambda: InstanceState(name="one", uuid="uuid-one", status=status)


def connect(address, said=b""):
    client = socket.create_connection(address[:2], timeout=30)
    client.sendall(said)
    return client


def request(path):
    return f"CONNECT {path} HTTP/1.1\r\n\r\n".encode()


def let_in(address):
    client = connect(address, request(address[2]))
    assert client.recv(len(ACCEPTED), socket.MSG_WAITALL) == ACCEPTED
    return client


def rest(client):
    """Read to the end; what the other side had not read when it closed is a reset."""
    with contextlib.closing(client), contextlib.suppress(ConnectionResetError):
        return client.makefile("rb").read()


def test_a_client_types_and_leaves(consoles, session):
    client = let_in(consoles.open(find(), "uuid-one"))
    client.sendall(b"hello")
    assert client.recv(5, socket.MSG_WAITALL) == b"HELLO"
    client.close()
    wait(lambda: not consoles._bridges)
    assert session.terminals[0].calls == ["hang up", "is over", "close"]


@pytest.mark.parametrize(
    "said",
    [
        b"CONNECT nobody-knows-it HTTP/1.1\r\n\r\n",
        b"CONNECT  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"\xff" * 100 + b"\r\n\r\n",
        b"x" * 256,
    ],
)
def test_strangers_learn_nothing(consoles, session, said):
    client = connect(consoles.open(find(), "uuid-one"), said)
    assert rest(client) == REFUSED
    assert session.terminals == []


def test_a_path_with_more_behind_it_opens_nothing(consoles, session):
    address = consoles.open(find(), "uuid-one")
    assert rest(connect(address, request(address[2]) + b"rm -rf /\r\n\r\n")) == REFUSED
    assert session.terminals == []


@pytest.mark.parametrize("said", [b"", b"CONNECT half"])
def test_who_says_nothing_is_sent_away(consoles, monkeypatch, said):
    monkeypatch.setattr(serial, "HANDSHAKE", 0.1)
    assert rest(connect(consoles.open(find(), "uuid-one"), said)) == REFUSED


def test_strangers_are_bounded(consoles, monkeypatch):
    monkeypatch.setattr(consoles, "_strangers", threading.BoundedSemaphore(2))
    address = consoles.open(find(), "uuid-one")
    waiting = [connect(address) for _ in range(2)]
    wait(lambda: len(threads()) == 3)
    assert rest(connect(address, request(address[2]))) in (b"", None)
    for client in waiting:
        client.close()
    wait(lambda: len(threads()) == 1)
    let_in(address).close()


def test_a_second_client_takes_over(consoles, session):
    address = consoles.open(find(), "uuid-one")
    first = let_in(address)
    second = let_in(address)
    assert rest(first) == b""
    assert session.terminals[0].calls == ["hang up", "is over", "close"]
    second.sendall(b"me")
    assert second.recv(2, socket.MSG_WAITALL) == b"ME"
    second.close()


def test_a_console_that_has_ended_is_noticed_without_typing(consoles, session):
    client = let_in(consoles.open(find(), "uuid-one"))
    session.terminals[0].ended = True
    assert rest(client) == b""


def test_the_end_of_the_service_ends_all(consoles, session):
    address = consoles.open(find(), "uuid-one")
    client = let_in(address)
    consoles.stop()
    assert rest(client) == b""
    assert session.terminals[0].calls[-1] == "close"
    with pytest.raises(OSError, match="refused"):
        connect(address)


def test_a_console_that_cannot_be_made_harmless_is_closed(consoles, session, privileged):
    privileged.side_effect = PermissionError("no such capability")
    assert rest(let_in(consoles.open(find(), "uuid-one"))) == b""
    wait(lambda: session.terminals[0].calls[-1:] == ["close"])


def test_what_lxd_refuses_is_refused(consoles, session):
    session.refusal = exception.LXDError("Instance is frozen")
    address = consoles.open(find(), "uuid-one")
    assert rest(connect(address, request(address[2]))) == REFUSED


def test_a_server_that_is_gone_takes_its_path_with_it(consoles):
    def gone():
        raise exception.NotFound("no such instance")

    host, port, path = consoles.open(find(), "uuid-one")
    consoles._paths._passes[path].find = gone
    assert rest(connect((host, port), request(path))) == REFUSED
    assert consoles._paths.find(path) is None


@pytest.mark.parametrize("status", ["Stopped", "Frozen", "Error"])
def test_a_server_that_does_not_run_has_none(consoles, status):
    with pytest.raises(exception.NotRunning, match="one is"):
        consoles.open(find(status), "uuid-one")


def test_disabled(consoles, set_option):
    set_option("serial_console", enabled=False)
    consoles.start()
    assert threads() == []
    with pytest.raises(nova_exception.ConsoleTypeUnavailable):
        consoles.open(find(), "uuid-one")


def test_no_port_is_free(consoles, set_option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        set_option("serial_console", port_range=f"{port}:{port + 1}")
        with pytest.raises(exception.ConfigurationError, match="port_range"):
            consoles.start()


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def paths(clock, set_option):
    set_option("consoleauth", token_ttl=60)
    return serial.Paths(clock)


def test_a_path_opens_its_server_alone(paths):
    one, other = paths.give("uuid-one", find()), paths.give("uuid-two", find())
    assert one != other
    assert len(one) >= 43, "256 bits"
    assert paths.find(one)[0] == "uuid-one"
    assert paths.find(other)[0] == "uuid-two"
    assert paths.find("") is None


def test_paths_are_bounded_and_forgotten(paths, clock):
    given = set()
    for _ in range(100):
        given.add(paths.give("uuid-one", find()))
        assert len(paths._passes) <= 2
        clock.now += 13
    assert len(given) > 10, "none is given out for ever"


def test_a_path_lives_as_long_as_the_last_token(paths, clock):
    path = paths.give("uuid-one", find())
    clock.now += 59
    assert paths.give("uuid-one", find()) == path
    clock.now += 59
    assert paths.give("uuid-one", find()) != path
    assert paths.find(path)
    clock.now += 2
    assert paths.find(path) is None
