"""A client at a server's console: bytes both ways until one of the two has gone.

The danger is the end (measured on LXD 5.0.2).  LXD must not be asked to end a console on which the
guest may be writing: it can die of that, and all requests with it.  So the client's side is hung
up, and a NUL written to liblxc's terminal lets LXD notice; then it ends the console by itself.  And
nothing may block the container's monitor: see :mod:`nova_lxd.monitor`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

from oslo_log import log as logging

from nova_lxd import exception, privsep
from nova_lxd.virt.session import Session
from nova_lxd.virt.session.terminals import Terminal

LOG = logging.getLogger(__name__)

ASK = 1.0
"""Seconds without typing after which LXD is asked whether the console is over."""
_ATTACH = 10.0
"""Seconds that LXD gets to attach, and to end what was attached."""
_CHUNK = 4096
_ACCEPTED = b"HTTP/1.1 200 OK\r\n\r\n"


class Bridge:
    """Connects one client to the console of one container, in the thread that calls ``run``."""

    def __init__(self, session: Session, client: socket.socket) -> None:
        self._session = session
        self._client = client
        self._over = threading.Event()
        self._stopping = False

    def stop(self) -> None:
        """Send the client away; ``run`` ends soon."""
        self._stopping = True
        _shut(self._client)

    def end(self) -> None:
        """Say that ``run`` has ended, or will not be called."""
        self._over.set()

    def wait(self, seconds: float) -> bool:
        """Wait until somebody says so."""
        return self._over.wait(seconds)

    def run(self, name: str) -> None:
        """Let the client in and serve it to the end; then nothing of the console is left.

        :param name: the container's
        :raises LXDDriverError: it was not let in, and has had no answer
        """
        if self._stopping:
            return
        init = self._session.init_pid(name)
        terminal = self._session.attach(name)
        reader = threading.Thread(
            target=self._copy_out, args=(terminal,), name="lxd-serial-out", daemon=True
        )
        try:
            self._answer()
            reader.start()
            if self._unblock(init):
                self._copy_in(terminal)
            else:
                LOG.warning("LXD does not attach to the console of %s: is somebody else?", name)
        finally:
            _shut(self._client)
            _detach(terminal, init, name)
            reader.join(_ATTACH)

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            self._client.sendall(_ACCEPTED)

    def _unblock(self, init: int) -> bool:
        """Wait until liblxc has made the client's terminal, and let it never block."""
        deadline = time.monotonic() + _ATTACH
        while time.monotonic() < deadline:
            if privsep.unblock_console(init):
                return True
            time.sleep(0.01)
        return False

    def _copy_out(self, terminal: Terminal) -> None:
        """Show what the guest writes; a client that is slower than that misses some of it."""
        with contextlib.suppress(OSError):
            while content := terminal.read():
                self._client.sendall(content)
        _shut(self._client)

    def _copy_in(self, terminal: Terminal) -> None:
        """Type what the client sends; without any, ask whether the guest still runs."""
        poll = select.poll()
        poll.register(self._client, select.POLLIN)
        with contextlib.suppress(OSError, exception.LXDUnreachable):
            while not self._stopping:
                typed = self._client.recv(_CHUNK) if poll.poll(ASK * 1000) else None
                if typed == b"":
                    return
                terminal.write(typed or b"")


def _detach(terminal: Terminal, init: int, name: str) -> None:
    """End the console in LXD, in the way that LXD survives."""
    terminal.hang_up()
    try:
        privsep.wake_console(init)
    except privsep.ERRORS as error:
        LOG.warning("The console of %s is left without a wake: %s", name, error)
    if not terminal.is_over(_ATTACH):
        LOG.warning("LXD has not ended the console of %s; it is told to", name)
    terminal.close()


def _shut(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
