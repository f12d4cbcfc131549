"""Nova's serial proxy, the real one, with a thread for each client instead of a process.

A process of its own would see neither the test's database nor its message bus.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import websocket
from nova.console import websocketproxy

_KEPT = 20_000
"""Characters kept of what a browser has seen."""


class Proxy:
    """Listens from its making until ``stop``."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = websocketproxy.NovaWebSocketProxy(
            listen_host="127.0.0.1",
            listen_port=self.port,
            file_only=True,
            RequestHandlerClass=websocketproxy.NovaProxyRequestHandler,
        )
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, address = self._listener.accept()
                serve = threading.Thread(
                    target=self._serve, args=(client, address), name="proxy-client", daemon=True
                )
                serve.start()

    def _serve(self, client: socket.socket, address: tuple[str, int]) -> None:
        with contextlib.closing(client):
            self._server.top_new_client(client, address)


class Browser:
    """A tenant at a serial console: a websocket, and what was seen on it."""

    def __init__(self, url: str) -> None:
        self._websocket = websocket.create_connection(url, timeout=30, subprotocols=["binary"])
        self.seen = ""

    def type(self, text: str) -> None:
        self._websocket.send_binary(text.encode())

    def read(self, seconds: float) -> bool:
        """Take in what comes within ``seconds``; False when the console has ended."""
        self._websocket.settimeout(seconds)
        try:
            opcode, data = self._websocket.recv_data()
        except websocket.WebSocketTimeoutException:
            return True
        except (websocket.WebSocketException, OSError):
            return False
        if opcode in (1, 2):
            self.seen = (self.seen + data.decode("utf-8", "replace"))[-_KEPT:]
        return opcode in (1, 2)

    def wait_for(self, text: str, again: str = "", seconds: float = 60) -> None:
        """Read until ``text`` is seen; what is typed ``again`` and again may be lost at first."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s for {text!r}, saw {self.seen[-500:]!r}")
            if again:
                self.type(again)
            if not self.read(1):
                raise AssertionError(f"the console has ended; seen was {self.seen[-500:]!r}")

    def wait_end(self, seconds: float = 60) -> None:
        """Read until the console ends."""
        deadline = time.monotonic() + seconds
        while self.read(1):
            if time.monotonic() > deadline:
                raise AssertionError(f"the console goes on; seen was {self.seen[-500:]!r}")

    def log_in(self) -> None:
        """Get the busybox image's shell, and an end of what runs in it."""
        self.wait_for("# ", again="\x03\r")

    def ask(self, command: str, answer: str) -> None:
        """Type a command and wait for its answer."""
        self.seen = ""
        self.type(f"{command}\r")
        self.wait_for(answer)

    def close(self) -> None:
        self._websocket.close(timeout=5)

    def vanish(self) -> None:
        """Go away without a word."""
        self._websocket.shutdown()
