"""Serial consoles: where nova-serialproxy finds them, and who is let in.

One TCP port serves all servers of the host.  Nova tells the proxy, and nobody else, a path that
opens one server's console, and the proxy says it before anything else: ``CONNECT PATH HTTP/1.1``.
Whoever finds the port without knowing a path learns nothing.
"""

from __future__ import annotations

import contextlib
import hmac
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import nova.conf
from nova import exception as nova_exception
from oslo_log import log as logging

from nova_lxd import exception, privsep
from nova_lxd.virt.model import InstanceState
from nova_lxd.virt.session import Session
from nova_lxd.virt.terminal import Bridge

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

Find = Callable[[], InstanceState]
"""Reads the container whose console it is; NotFound when the server is gone."""

_REQUEST = re.compile(rb"CONNECT ([\w-]+) HTTP/1\.1\r\n\r\n")
_LONGEST = 256
"""Bytes of a request; Nova's has 65."""
_REFUSED = b"HTTP/1.1 403 Forbidden\r\n\r\n"
"""Nova's proxy waits for an answer for ever, at full speed, when it gets none."""
HANDSHAKE = 10.0
"""Seconds in which a client must have said its path."""
_STRANGERS = 32
"""Clients that have not said one yet; more are sent away."""
_PATIENCE = 15.0
"""Seconds that the end of a console may take."""
_WATCH = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,
}
"""A proxy whose host has died is noticed after a minute; seconds, probes, milliseconds."""


@dataclass(slots=True)
class _Pass:
    """What a path opens: one server, for as long as Nova's token for it may live."""

    uuid: str
    find: Find
    made: float
    expires: float


class Paths:
    """The paths that open a console.  At most two open one server's.

    Nova asks for one whenever a token is made and whenever one is used, so a server's is given out
    again during a token's lifetime after it was made, and lives as long after the last time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passes: dict[str, _Pass] = {}
        self._lock = threading.Lock()

    def give(self, uuid: str, find: Find) -> str:
        """Return a path for a server."""
        now, lifetime = self._clock(), CONF.consoleauth.token_ttl
        with self._lock:
            self._passes = {path: it for path, it in self._passes.items() if it.expires > now}
            for path, it in self._passes.items():
                if it.uuid == uuid and now < it.made + lifetime:
                    it.expires = now + lifetime
                    return path
            path = secrets.token_urlsafe(32)
            self._passes[path] = _Pass(uuid, find, now, now + lifetime)
            return path

    def find(self, said: str) -> tuple[str, Find] | None:
        """Return the server that a path opens, and the way to its container."""
        found = None
        with self._lock:
            for path, it in self._passes.items():
                if hmac.compare_digest(path, said) and it.expires > self._clock():
                    found = it.uuid, it.find
        return found

    def forget(self, uuid: str) -> None:
        """Let no path open a server's console any more."""
        with self._lock:
            self._passes = {path: it for path, it in self._passes.items() if it.uuid != uuid}


class SerialConsoles:
    """Lets Nova's proxy in to the consoles of this host's servers, one client at a server's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._paths = Paths()
        self._strangers = threading.BoundedSemaphore(_STRANGERS)
        self._lock = threading.Lock()
        self._bridges: dict[str, Bridge] = {}
        self._listener: socket.socket | None = None
        self._address: tuple[str, int] = ("", 0)

    def start(self) -> None:
        """Listen from now on, if consoles are enabled; harmless when it does.

        :raises ConfigurationError: the privileged helper does not start, or no port is free
        """
        if not CONF.serial_console.enabled:
            return
        privsep.start(privsep.console)
        with self._lock:
            if self._listener is None:
                self._listener = _listen()
                self._address = self._listener.getsockname()[:2]
                listen = threading.Thread(
                    target=self._accept, args=(self._listener,), name="lxd-serial", daemon=True
                )
                listen.start()

    def stop(self) -> None:
        """Listen no more, and end every console."""
        with self._lock:
            listener, self._listener = self._listener, None
            bridges = list(self._bridges.values())
        if listener:
            _close(listener)
        for bridge in bridges:
            bridge.stop()
        deadline = time.monotonic() + _PATIENCE
        for bridge in bridges:
            bridge.wait(max(0.0, deadline - time.monotonic()))

    def open(self, find: Find, uuid: str) -> tuple[str, int, str]:
        """Return host, port and path that lead Nova's proxy to a running server's console.

        :raises ConsoleTypeUnavailable: consoles are not enabled
        :raises NotFound: the server has no container
        :raises NotRunning: it is off, or frozen, where LXD attaches nobody
        """
        if not CONF.serial_console.enabled:
            raise nova_exception.ConsoleTypeUnavailable(console_type="serial")
        state = find()
        if state.status != "Running":
            raise exception.NotRunning(f"{state.name} is {state.status.lower()}")
        self.start()
        return *self._address, self._paths.give(uuid, find)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                if listener is not self._listener:
                    return
                # Out of file descriptors, or a client that left early.
                time.sleep(0.1)
                continue
            if not self._strangers.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(
                target=self._welcome, args=(client,), name="lxd-serial-client", daemon=True
            ).start()

    def _welcome(self, client: socket.socket) -> None:
        """Serve one client from its first byte to its last."""
        with contextlib.closing(client):
            try:
                found = self._paths.find(_said(client))
            finally:
                self._strangers.release()
            try:
                if found:
                    self._serve(client, *found)
                    return
            except (exception.LXDDriverError, *privsep.ERRORS) as error:
                LOG.warning("A serial console cannot be opened: %s", error)
            with contextlib.suppress(OSError):
                client.sendall(_REFUSED)

    def _serve(self, client: socket.socket, uuid: str, find: Find) -> None:
        """Bridge a client to the server, in the place of the one that is there."""
        _watch(client)
        bridge = Bridge(self._session, client)
        with self._lock:
            if self._listener is None:
                return
            before, self._bridges[uuid] = self._bridges.get(uuid), bridge
        try:
            if before:
                before.stop()
                if not before.wait(_PATIENCE):
                    raise exception.DeadlineExceeded(
                        f"the console of {uuid} was not given up within {_PATIENCE:g} s"
                    )
            bridge.run(find().name)
        except exception.NotFound:
            self._paths.forget(uuid)
            raise
        finally:
            bridge.end()
            with self._lock:
                if self._bridges.get(uuid) is bridge:
                    del self._bridges[uuid]


def _listen() -> socket.socket:
    """Listen on the first free port of Nova's range, whose end is not part of it."""
    options = CONF.serial_console
    host = options.proxyclient_address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    first, end = map(int, options.port_range.split(":"))
    for port in range(first, end):
        with contextlib.suppress(OSError, OverflowError):
            return socket.create_server((host, port), family=family)
    raise exception.ConfigurationError(
        f"[serial_console]port_range: no port of {options.port_range} is free at "
        f"[serial_console]proxyclient_address, {host}, or that is no address of this host"
    )


def _said(client: socket.socket) -> str:
    """Read the path that a client says; empty when it says something else, or nothing in time."""
    deadline = time.monotonic() + HANDSHAKE
    request = b""
    with contextlib.suppress(OSError):
        while len(request) < _LONGEST and not request.endswith(b"\r\n\r\n"):
            client.settimeout(max(0.001, deadline - time.monotonic()))
            received = client.recv(_LONGEST - len(request))
            if not received or time.monotonic() > deadline:
                break
            request += received
        client.settimeout(None)
    match = _REQUEST.fullmatch(request)
    return match[1].decode() if match else ""


def _watch(client: socket.socket) -> None:
    """Notice a client that has gone without a word."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _WATCH.items():
        client.setsockopt(socket.IPPROTO_TCP, option, value)


def _close(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
