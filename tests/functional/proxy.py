"""A proxy before LXD's socket: it notes what the driver asks, and lets single calls fail."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import socketserver
import threading
import uuid
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib import parse

from tests.fake_lxd.faults import Call, Fault, Faults

_DEADLINE = 300
_HOP = ("connection", "transfer-encoding", "content-length")
"""Headers of an answer that are about the connection that brought it."""
_JSON = [("Content-Type", "application/json")]
_GENERAL = (
    (re.compile(r"instance-[0-9a-f]{8}"), "NAME"),
    (re.compile(r"[0-9a-f]{64}"), "IMAGE"),
    (re.compile(r"flavor-[0-9a-f]{16}"), "PROFILE"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
)


class Proxy:
    """Listens on a socket of its own and asks the LXD behind another.

    It knows some of the fake LXD's faults: HTTP_500 and DROPPED strike before LXD hears of the
    request; DROPPED_AFTER when LXD has done all of it; OPERATION_FAILURE answers that an operation
    has begun, and then that it failed, of which LXD never hears.
    """

    def __init__(self, path: Path, lxd: Path) -> None:
        """Do nothing yet; ``start`` listens."""
        self.path = path
        self.lxd = lxd
        self.faults = Faults()
        self.background: set[Call] = set()
        """The calls that LXD was seen to answer with an operation."""
        self.failed: set[str] = set()
        """The operations that only the proxy knows, and that failed."""

    def start(self) -> None:
        """Listen until ``stop``."""
        self.path.unlink(missing_ok=True)
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        """End every connection and every thread."""
        self._server.shutdown()
        self._thread.join(60)
        self._server.end()
        self._server.server_close()
        self.path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 64

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.open: set[socket.socket] = set()
        super().__init__(str(proxy.path), _Handler)

    def end(self) -> None:
        """Wake the threads that wait for another request; ``server_close`` joins them."""
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address) -> None:
        """A client that goes away in the middle is one of the things that are tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, *args) -> None:
        pass

    def _serve(self) -> None:
        proxy = self.server.proxy
        body = self._body()
        path = parse.urlsplit(self.path).path
        failed = proxy.failed.intersection(path.split("/"))
        call = Call(self.command, general(path))
        rule = proxy.faults.take(call)
        kind = rule.kind if rule else None
        if kind is Fault.HTTP_500:
            refusal = {"type": "error", "error": rule.text, "error_code": 500}
            self._answer(500, _JSON, json.dumps(refusal).encode())
        elif kind is Fault.DROPPED:
            self._drop()
        elif kind is Fault.OPERATION_FAILURE:
            self._begin_to_fail()
        elif failed:
            self._tell(_operation(failed.pop(), "Failure", 400, "injected fault"))
        elif self.headers.get("Upgrade"):
            self._tunnel(closed=kind is Fault.DROPPED_AFTER)
        else:
            self._forward(call, body, dropped=kind is Fault.DROPPED_AFTER)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _body(self) -> bytes:
        """Read the whole body; LXD gets one that came in chunks in one piece."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        # A client that went away leaves a line that is no number.
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        body = b"".join(pieces)
        del self.headers["Transfer-Encoding"]
        self.headers["Content-Length"] = str(len(body))
        return body

    def _forward(self, call: Call, body: bytes, *, dropped: bool) -> None:
        with contextlib.closing(_Upstream(self.server.proxy.lxd)) as lxd:
            lxd.request(self.command, self.path, body, dict(self.headers))
            answer = lxd.getresponse()
            content = answer.read()
            if answer.status == 202:
                self.server.proxy.background.add(call)
            if not dropped:
                headers = [item for item in answer.getheaders() if item[0].lower() not in _HOP]
                self._answer(answer.status, headers, content)
                return
            if answer.status == 202 and json.loads(content)["metadata"]["class"] == "task":
                lxd.request("GET", json.loads(content)["operation"] + f"/wait?timeout={_DEADLINE}")
                lxd.getresponse().read()
        self._drop()

    def _tunnel(self, *, closed: bool) -> None:
        """Open a websocket and carry its bytes both ways."""
        with contextlib.closing(_Upstream(self.server.proxy.lxd)) as lxd:
            lxd.connect()
            lines = [self.requestline, *(f"{key}: {text}" for key, text in self.headers.items())]
            lxd.sock.sendall("\r\n".join([*lines, "", ""]).encode())
            if not closed:
                back = threading.Thread(target=_pump, args=(lxd.sock, self.connection))
                back.start()
                _pump(self.connection, lxd.sock)
                back.join(_DEADLINE)
        self._drop()

    def _begin_to_fail(self) -> None:
        operation = str(uuid.uuid4())
        self.server.proxy.failed.add(operation)
        begun = {"type": "async", "operation": f"/1.0/operations/{operation}"}
        begun["metadata"] = _operation(operation, "Running", 103, "")
        self._answer(202, _JSON, json.dumps(begun).encode())

    def _tell(self, metadata: dict) -> None:
        self._answer(200, _JSON, json.dumps({"type": "sync", "metadata": metadata}).encode())

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for key, text in [*headers, ("Content-Length", str(len(content)))]:
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(content)

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class _Upstream(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def general(path: str) -> str:
    """Take out of a path what differs between two runs of one action."""
    for pattern, word in _GENERAL:
        path = pattern.sub(word, path)
    return path


def _operation(identifier: str, status: str, code: int, err: str) -> dict:
    return {"id": identifier, "class": "task", "status": status, "status_code": code, "err": err}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
