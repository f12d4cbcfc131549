"""Websockets: LXD's events, and the ends of its operations that stream.

pylxd's own (ws4py) runs a thread for each and cannot wait with a bound; websocket-client can.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib import parse

import websocket

from nova_lxd import exception
from nova_lxd.virt.model import LifecycleEvent
from nova_lxd.virt.session.transport import Transport

BROKEN = (websocket.WebSocketException, OSError)
"""What a websocket that breaks raises."""


class EventStream:
    """What happens to the instances of one LXD project, as it happens."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def next(self, seconds: float) -> LifecycleEvent | None:
        """Wait for the next event of an instance; None when ``seconds`` bring none.

        :raises LXDUnreachable: the stream has ended
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._connection.settimeout(left)
            try:
                # Pings count: LXD sends one every ten seconds, so what hides them may never return.
                kind, frame = self._connection.recv_data_frame(control_frame=True)
            except websocket.WebSocketTimeoutException:
                return None
            except BROKEN as error:
                raise exception.LXDUnreachable(f"LXD's events have ended: {error}") from error
            if kind == websocket.ABNF.OPCODE_TEXT and (event := _event(frame.data)):
                return event
        return None

    def abort(self) -> None:
        """End the stream; a thread that waits for an event is woken."""
        with contextlib.suppress(*BROKEN):
            self._connection.abort()


class Streams(Transport):
    """Opens what LXD streams."""

    @contextlib.contextmanager
    def events(self) -> Iterator[EventStream]:
        """Listen to what happens to our project's instances from now on.

        :raises LXDUnreachable: nothing answers
        """
        query = {"type": "lifecycle", "project": self.project}
        connection = self.open_websocket("/1.0/events", query)
        try:
            yield EventStream(connection)
        finally:
            connection.shutdown()

    def open_websocket(self, path: str, query: dict[str, str]) -> Any:
        """Open a websocket of LXD; the caller must close it.

        :raises LXDUnreachable: nothing answers, or LXD refuses
        """
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.settimeout(self.timeouts.request)
        try:
            peer.connect(self.endpoint)
            return websocket.create_connection(
                f"ws://localhost{path}?{parse.urlencode(query)}",
                socket=peer,
                suppress_origin=True,
                timeout=self.timeouts.request,
            )
        except BROKEN as error:
            peer.close()
            raise exception.LXDUnreachable(
                f"GET {path}: LXD at {self.endpoint} opens no websocket: {error}"
            ) from error


def _event(message: bytes) -> LifecycleEvent | None:
    """Read one of LXD's messages; None for one that is about something else."""
    try:
        metadata = json.loads(message)["metadata"]
        path = parse.urlsplit(metadata["source"]).path
        action = str(metadata["action"])
    except (ValueError, KeyError, TypeError):
        return None
    kind, _, name = path.removeprefix("/1.0/").partition("/")
    if kind != "instances" or not name or "/" in name:
        return None
    return LifecycleEvent(parse.unquote(name), action)
