"""The daemon: a unix socket, a thread for every connection, and death on demand."""

from __future__ import annotations

import contextlib
import http.server
import io
import socket
import socketserver
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib import parse

from .answers import Answer, Refusal, refusal
from .faults import Call, Fault, Faults
from .request import Request
from .routes import answer
from .state import State


class FakeLXD:
    """A fake daemon that lives in ``folder``; as a context manager it is started and stopped.

    :ivar socket: path of its unix socket
    :ivar state: what it holds; survives ``stop`` and ``start``
    :ivar faults: what shall go wrong, and what was called
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.socket = self.folder / "unix.socket"
        self.state = State(self.folder)
        self.faults = Faults()
        self.faults.on_clear(self.start)
        self._server: _Server | None = None
        self._lock = threading.RLock()

    @property
    def calls(self) -> list[Call]:
        """Every request since the start or the last ``faults.forget_calls()``."""
        return list(self.faults.calls)

    def __enter__(self) -> FakeLXD:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.faults.on_clear(lambda: None)
        self.faults.clear()
        self.stop()

    def start(self) -> None:
        """Listen; harmless when it does."""
        with self._lock:
            if self._server is None:
                self.socket.unlink(missing_ok=True)
                self._server = _Server(self)

    def stop(self) -> None:
        """Die as by SIGKILL: connections break, operations are lost, the socket file stays."""
        with self._lock:
            server, self._server = self._server, None
        if server:
            self.state.operations.abandon()
            server.die()

    def restart_later(self, seconds: float) -> None:
        """Die now and come back after some seconds."""
        self.stop()
        timer = threading.Timer(seconds, self.start)
        timer.daemon = True
        timer.start()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, fake: FakeLXD) -> None:
        self.fake = fake
        self._open: set[socket.socket] = set()
        super().__init__(str(fake.socket), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error."""

    def die(self) -> None:
        """Close the listening socket and every connection."""
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Drop(Exception):
    """Close the connection without an answer."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""

    def address_string(self) -> str:
        return "unix"

    def handle_any(self) -> None:
        """Answer one request, or fail it as planned."""
        try:
            self._send(self._answer())
        except _Drop:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

    def _answer(self) -> Answer:
        fake = self.server.fake
        url = parse.urlsplit(self.path)
        fault = fake.faults.take(Call(self.command, url.path))
        kind = fault.kind if fault else None
        if fault and kind:
            self._strike_before(fault.seconds, kind)
        body = _Body(cast(BinaryIO, self.rfile), self.headers)
        query = dict(parse.parse_qsl(url.query, keep_blank_values=True))
        headers = _Headers(self.headers.items())
        stream = cast(BinaryIO, io.BufferedReader(body))
        request = Request(self.command, url.path, query, headers, stream, fault)
        if fault and isinstance(fault.kind.value, int):
            result = refusal(Refusal(fault.kind.value, fault.text))
        else:
            result = answer(fake.state, request)
        while stream.read(1 << 16):
            pass
        return _strike_after(result, kind)

    def _strike_before(self, seconds: float, kind: Fault) -> None:
        fake = self.server.fake
        if kind is Fault.DROPPED:
            raise _Drop
        if kind is Fault.DOWN:
            fake.stop()
            raise _Drop
        if kind is Fault.RESTART:
            fake.restart_later(seconds)
            raise _Drop
        if kind is Fault.SLOW:
            time.sleep(seconds)

    def _send(self, result: Answer) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(result.status)
            self.send_header("Content-Type", result.content_type)
            for key, value in result.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(result.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(result.body)


def _strike_after(result: Answer, kind: Fault | None) -> Answer:
    if kind is Fault.DROPPED_AFTER:
        raise _Drop
    if kind is Fault.BROKEN_JSON:
        return Answer(result.status, result.body[: len(result.body) // 2], headers=result.headers)
    return result


class _Headers(dict[str, str]):
    """Headers by name, whatever its case."""

    def __init__(self, items: Any) -> None:
        super().__init__({key.lower(): value for key, value in items})

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key.lower(), default)


class _Body(io.RawIOBase):
    """The request's body: as long as ``Content-Length`` says, or in chunks."""

    def __init__(self, raw: BinaryIO, headers: Any) -> None:
        self._raw = raw
        self._chunked = "chunked" in (headers.get("Transfer-Encoding") or "").lower()
        self._left = 0 if self._chunked else int(headers.get("Content-Length") or 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left == 0 and self._chunked:
            self._next_chunk()
        data = self._raw.read(min(self._left, len(buffer))) if self._left else b""
        if self._left and not data:
            raise ConnectionError("unexpected EOF")
        self._left -= len(data)
        buffer[: len(data)] = data
        if self._chunked and self._left == 0 and data:
            self._raw.readline()
        return len(data)

    def _next_chunk(self) -> None:
        line = self._raw.readline()
        if not line:
            raise ConnectionError("unexpected EOF")
        self._left = int(line.split(b";")[0], 16)
        if self._left == 0:
            self._chunked = False
            self._raw.readline()
