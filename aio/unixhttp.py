"""JSON over HTTP on a unix socket: the little of LXD's API that a bootstrap needs."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any


class RequestFailed(Exception):
    """LXD refused a request, or its operation failed; the text is LXD's."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class UnixClient:
    """Requests to a LXD; every request has a connection of its own, so threads may share it.

    ``timeout`` is in seconds, for a request and again for the operation that it starts.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """Return the metadata of ``path``; raises RequestFailed or OSError."""
        return self.request("GET", path)

    def post(self, path: str, body: object) -> Any:
        """Create something at ``path``; raises RequestFailed or OSError."""
        return self.request("POST", path, body)

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send a request, wait for the operation it may start, return the metadata."""
        answer = self._send(method, path, body)
        if answer.get("type") != "async":
            return answer.get("metadata")
        wait = f"{answer['operation'].split('?')[0]}/wait?timeout={self._timeout:.0f}"
        operation = self._send("GET", wait)["metadata"]
        if operation["status_code"] != http.client.OK:
            raise RequestFailed(operation["err"] or f"operation is {operation['status']}")
        return operation["metadata"]

    def _send(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = _Connection(self._path, self._timeout + 5)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (http.client.HTTPException, ValueError) as error:
            raise RequestFailed(f"LXD's answer to {method} {path} is unreadable: {error}") from None
        finally:
            connection.close()
        if answer.get("type") == "error":
            raise RequestFailed(answer["error"])
        return answer
