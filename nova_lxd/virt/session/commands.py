"""Commands that run inside instances."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import websocket

from nova_lxd import exception
from nova_lxd.virt.session.streams import Streams

_KEPT = 4096
"""Bytes kept of what a command says: it is the guest's, and may never end."""
_KILL = 9


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    status: int
    """Its exit status."""
    said: str
    """The beginning of its standard error; a guest's words, not to be trusted."""


class Commands(Streams):
    """Runs single commands, with bounds on time and output."""

    def run(self, name: str, command: Sequence[str], stdin: bytes, seconds: float) -> Outcome:
        """Run a command as root inside a running instance and wait for its end.

        :param stdin: goes through a websocket of its own: unlike the command it shows up in no list
            of processes and of operations
        :raises GuestCannot: the instance has no such command
        :raises DeadlineExceeded: it did not end in ``seconds``; it was killed
        """
        body = {"command": list(command), "wait-for-websocket": True, "interactive": False}
        operation = self.start_operation("POST", "instances", name, "exec", json=body)
        what = f"{command[0]} in {name}"
        with contextlib.ExitStack() as stack:
            try:
                ends = self._ends(stack, operation)
                said = _Drain(ends["2"])
                _Drain(ends["1"])
                ends["0"].send_binary(stdin)
                # An empty text message is LXD's end of file.
                ends["0"].send("")
            except (exception.LXDUnreachable, websocket.WebSocketException, OSError) as error:
                self._cancel(operation["id"])
                raise exception.LXDUnreachable(f"{what}: {error}") from error
            status = self._outcome(operation["id"], what, seconds, ends["control"])
            return Outcome(status, said.text())

    def _ends(self, stack: contextlib.ExitStack, operation: dict[str, Any]) -> dict[str, Any]:
        """Open all the ends of a command.

        It begins when its three streams are open (LXD 5.0.2), and one that is done at once would
        leave no operation to connect to: so the control end comes first.
        """
        path = f"/1.0/operations/{operation['id']}/websocket"
        secrets = operation["metadata"]["fds"]
        ends = {}
        for end in sorted(secrets, reverse=True):
            ends[end] = self.open_websocket(path, {"secret": secrets[end]})
            stack.callback(ends[end].shutdown)
        return ends

    def _outcome(self, operation: str, what: str, seconds: float, control: Any) -> int:
        try:
            result = self.await_operation(operation, what, seconds)
        except exception.DeadlineExceeded:
            with contextlib.suppress(websocket.WebSocketException, OSError):
                control.send(json.dumps({"command": "signal", "signal": _KILL}))
            raise
        except exception.LXDError as error:
            if "not found" in str(error).lower():
                raise exception.GuestCannot(str(error)) from error
            raise
        return int(result["metadata"]["return"])

    def _cancel(self, operation: str) -> None:
        with contextlib.suppress(exception.LXDDriverError):
            self.request("DELETE", "operations", operation)


class _Drain:
    """Reads one end of a command to its end, and keeps the beginning."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._kept = b""
        self._thread = threading.Thread(target=self._read, name="lxd-command", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while data := self._connection.recv():
                room = _KEPT - len(self._kept)
                self._kept += (data.encode() if isinstance(data, str) else data)[:room]

    def text(self) -> str:
        """Return what was kept once the command has ended."""
        self._thread.join(1)
        return self._kept.decode("utf-8", "replace").strip()
