"""A HTTP client for a unix socket that shows what was answered, unjudged."""

from __future__ import annotations

import http.client
import json
import socket
import uuid
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer; ``body`` is parsed when it is JSON."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def metadata(self) -> Any:
        """The result."""
        return self.body["metadata"]

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and text of an error."""
        assert self.body["type"] == "error", self.body
        assert self.body["error_code"] == self.status
        return self.status, self.body["error"]

    @property
    def failure(self) -> str:
        """Text of an operation that failed."""
        assert self.body["type"] == "sync", self.body
        assert (self.metadata["status"], self.metadata["status_code"]) == ("Failure", 400)
        return self.metadata["err"]

    @property
    def succeeded(self) -> bool:
        """Whether a request or an operation went well."""
        if self.body["type"] == "error":
            return False
        return (self.metadata or {}).get("status_code", 200) == 200


class Client:
    """Speaks for one project."""

    def __init__(self, path: str, project: str) -> None:
        self.path = path
        self.project = project

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; ``project`` is added unless the path has a query of its own."""
        target = path if "?" in path else f"{path}?project={self.project}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = _Connection(self.path)
        try:
            names = {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method, target, body, names)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        parsed = (
            json.loads(data) if response.headers["Content-Type"] == "application/json" else data
        )
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, parsed)

    def get(self, path: str) -> Answer:
        """Send a GET."""
        return self.call("GET", path)

    def run(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request that begins an operation, and wait for the operation's end."""
        started = self.call(method, path, body, **headers)
        return self.end(started) if started.body["type"] == "async" else started

    def end(self, started: Answer) -> Answer:
        """Wait for the operation that an answer announced."""
        assert started.status == 202
        assert started.headers["location"] == started.body["operation"]
        return self.get(f"{started.body['operation']}/wait?timeout=60")

    def act(self, name: str, action: str, **more: Any) -> Answer:
        """Change an instance's power state."""
        return self.run("PUT", f"/1.0/instances/{name}/state", {"action": action, **more})

    def upload(self, metadata: bytes, rootfs: bytes | None, **headers: str) -> Answer:
        """Upload a split image, or with ``rootfs`` None a unified one."""
        if rootfs is None:
            return self.run("POST", "/1.0/images", metadata, **headers)
        boundary = uuid.uuid4().hex
        body = b""
        for name, content in (("metadata", metadata), ("rootfs", rootfs)):
            disposition = f'form-data; name="{name}"; filename="{name}.tar"'
            body += f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
            body += content + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return self.run("POST", "/1.0/images", body, Content_Type=kind, **headers)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("lxd", timeout=90)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
