"""Instances' consoles, to be typed at."""

from __future__ import annotations

import contextlib
from typing import Any

import websocket

from nova_lxd import exception
from nova_lxd.virt.session.streams import BROKEN, Streams

_SIZE = {"width": 80, "height": 24}
_ENDS = ("control", "0")
"""LXD begins when the last is open, and would die of an operation that ends without the first."""


class Terminals(Streams):
    """Attaches to consoles."""

    def init_pid(self, name: str) -> int:
        """Return the host's process id of a running instance's init."""
        return int(self.get("instances", name, "state")["pid"])

    def attach(self, name: str) -> Terminal:
        """Attach to a running instance's console; the caller must detach.

        LXD attaches one client at a time; a second one is told so by the console itself.

        :raises LXDError: it does not run, or is frozen
        """
        body = {**_SIZE, "type": "console"}
        operation = self.start_operation("POST", "instances", name, "console", json=body)
        with contextlib.ExitStack() as opened:
            ends = self._open(opened, operation)
            opened.pop_all()
        return Terminal(self, operation["id"], ends["0"], ends["control"])

    def _open(self, opened: contextlib.ExitStack, operation: dict[str, Any]) -> dict[str, Any]:
        path = f"/1.0/operations/{operation['id']}/websocket"
        secrets = operation["metadata"]["fds"]
        ends: dict[str, Any] = {}

        def open_end(end: str) -> None:
            ends[end] = self.open_websocket(path, {"secret": secrets[end]})
            opened.callback(ends[end].shutdown)

        try:
            for end in _ENDS:
                open_end(end)
        except exception.LXDUnreachable:
            # What is never opened lasts as long as LXD does, so it is tried once more.
            for end in _ENDS:
                if end not in ends:
                    with contextlib.suppress(exception.LXDUnreachable):
                        open_end(end)
            raise
        return ends


class Terminal:
    """An instance's console.  One thread may read while another one writes."""

    def __init__(self, session: Terminals, operation: str, data: Any, control: Any) -> None:
        self._session = session
        self._operation = operation
        self._data = data
        self._control = control
        data.settimeout(None)

    def read(self) -> bytes:
        """Wait for what the guest writes; nothing when the console is over."""
        try:
            while True:
                opcode, content = self._data.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    return b""
                if content:
                    return bytes(content)
        except BROKEN:
            return b""

    def write(self, content: bytes) -> None:
        """Type.  Nothing typed is a question: of a guest that has stopped, it ends the console.

        LXD itself does not tell of that: the console of a guest that stops or reboots stays open
        and mute (5.0.2).

        :raises LXDUnreachable: the console is over
        """
        try:
            self._data.send_binary(content)
        except BROKEN as error:
            raise exception.LXDUnreachable(f"the console has ended: {error}") from error

    def hang_up(self) -> None:
        """Stop reading and writing; LXD notices when the guest, or a waker, writes next."""
        with contextlib.suppress(*BROKEN):
            self._data.abort()

    def is_over(self, seconds: float) -> bool:
        """Wait until LXD is done with the console."""
        try:
            self._session.await_operation(self._operation, "a console's end", seconds)
        except exception.DeadlineExceeded:
            return False
        except exception.LXDDriverError:
            # A console of a guest that wrote to nobody, or that is gone, ends with an error.
            return True
        return True

    def close(self) -> None:
        """Close what is open.

        With the console not over it is the last resort: LXD ends it, but 5.0.2 can die of doing so
        while the guest writes ("concurrent write to websocket connection").
        """
        for end in (self._data, self._control):
            with contextlib.suppress(*BROKEN):
                end.shutdown()
