"""The small clients: OpenStack's APIs over TCP and LXD's over a unix socket."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aio import api, heartbeat
from aio.api import Api, ApiError
from aio.process import started_at
from aio.settings import Ports, Settings
from aio.unixhttp import RequestFailed, UnixClient

Answer = tuple[int, Any]


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's table and remembers what it was asked."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, body, dict(self.headers)))  # type: ignore[attr-defined]
        found = self.server.answers[f"{self.command} {self.path}"]  # type: ignore[attr-defined]
        status, content = found(body) if callable(found) else found
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("X-Subject-Token", "token")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: object) -> None:
        pass


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The same on a unix socket."""

    daemon_threads = True


Started = Callable[[socketserver.BaseServer], Any]


@pytest.fixture
def started() -> Iterator[Started]:
    servers: list[socketserver.BaseServer] = []

    def start(server: Any) -> Any:
        server.seen, server.answers = [], {}
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cloud(started: Started, tmp_path: Path) -> tuple[Any, Api]:
    server = started(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    port = server.server_address[1]
    server.answers["POST /v3/auth/tokens"] = (201, {})
    return server, Api(Settings(state=tmp_path, ports=Ports(keystone=port, neutron=port)))


def test_one_token_serves_all_requests(cloud: tuple[Any, Api]) -> None:
    server, client = cloud
    server.answers["GET /v2.0/agents"] = (200, {"agents": []})
    assert client.get("neutron", "/agents") == {"agents": []}
    client.get("neutron", "/agents")
    paths = [path for _, path, _, _ in server.seen]
    assert paths == ["/v3/auth/tokens", "/v2.0/agents", "/v2.0/agents"]
    assert server.seen[-1][3]["X-Auth-Token"] == "token"


def test_ensure_makes_what_is_missing_and_keeps_what_exists(cloud: tuple[Any, Api]) -> None:
    server, client = cloud
    networks: list[dict[str, str]] = []

    def create(body: bytes) -> Answer:
        networks.append({**json.loads(body)["network"], "id": "1"})
        return 201, {"network": networks[-1]}

    server.answers["GET /v2.0/networks"] = lambda body: (200, {"networks": networks})
    server.answers["POST /v2.0/networks"] = create
    for _ in range(2):
        made = client.ensure("neutron", "/networks", {"network": {"name": "public"}})
        assert made == {"name": "public", "id": "1"}
    assert len(networks) == 1


def test_a_refusal_tells_status_and_text(cloud: tuple[Any, Api]) -> None:
    server, client = cloud
    server.answers["GET /v2.0/agents"] = (409, {"error": "in use"})
    with pytest.raises(ApiError, match="in use") as caught:
        client.get("neutron", "/agents")
    assert caught.value.status == 409


def test_nothing_listening_is_status_0() -> None:
    assert api.status("http://127.0.0.1:1/") == 0
    with pytest.raises(ApiError) as caught:
        api.http("GET", "http://127.0.0.1:1/")
    assert caught.value.status == 0


def test_a_file_is_sent_as_it_is(cloud: tuple[Any, Api], tmp_path: Path) -> None:
    server, client = cloud
    server.answers["PUT /v2.0/file"] = (204, b"")
    (tmp_path / "image").write_bytes(b"\x00\x01" * 5000)
    with (tmp_path / "image").open("rb") as content:
        client.request("PUT", "neutron", "/file", content)
    assert server.seen[-1][3]["Content-Type"] == "application/octet-stream"


@pytest.fixture
def lxd(started: Started, tmp_path: Path) -> tuple[Any, UnixClient]:
    path = tmp_path / "socket"
    return started(UnixServer(str(path), Handler)), UnixClient(path, timeout=5)


def test_lxds_metadata_is_returned(lxd: tuple[Any, UnixClient]) -> None:
    server, client = lxd
    server.answers["GET /1.0/projects"] = (200, {"type": "sync", "metadata": ["/1.0/projects/a"]})
    assert client.get("/1.0/projects") == ["/1.0/projects/a"]


def test_an_operation_is_waited_for(lxd: tuple[Any, UnixClient]) -> None:
    server, client = lxd
    started = {"type": "async", "operation": "/1.0/operations/7?project=nova"}
    ended = {"status_code": 200, "status": "Success", "err": "", "metadata": {"fingerprint": "f"}}
    server.answers["POST /1.0/images"] = (202, started)
    server.answers["GET /1.0/operations/7/wait?timeout=5"] = (200, {"metadata": ended})
    assert client.post("/1.0/images", {}) == {"fingerprint": "f"}


def test_a_failed_operation_tells_why(lxd: tuple[Any, UnixClient]) -> None:
    server, client = lxd
    started = {"type": "async", "operation": "/1.0/operations/7"}
    ended = {"status_code": 400, "status": "Failure", "err": "no space left", "metadata": None}
    server.answers["POST /1.0/images"] = (202, started)
    server.answers["GET /1.0/operations/7/wait?timeout=5"] = (200, {"metadata": ended})
    with pytest.raises(RequestFailed, match="no space left"):
        client.post("/1.0/images", {})


@pytest.mark.parametrize(
    ("answer", "text"),
    [((404, {"type": "error", "error": "not found"}), "not found"), ((200, b"?"), "unreadable")],
)
def test_lxds_refusals_and_rubbish_are_errors(
    lxd: tuple[Any, UnixClient], answer: Answer, text: str
) -> None:
    server, client = lxd
    server.answers["GET /1.0/x"] = answer
    with pytest.raises(RequestFailed, match=text):
        client.get("/1.0/x")


def test_a_heartbeat_of_an_earlier_process_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        heartbeat, "started_at", lambda pid: heartbeat.epoch("2026-11-23T01:00:00Z")
    )
    assert not heartbeat.is_fresh("2026-11-23T00:59:59.000000", 1)
    assert heartbeat.is_fresh("2026-11-23T01:00:00.000000", 1)
    assert heartbeat.is_fresh("2026-11-23 01:00:05", 1)
    assert heartbeat.is_fresh(None, 1)
    assert not heartbeat.is_fresh(None, None)


def test_a_process_started_when_it_did() -> None:
    assert started_at(2**22 + 1) == 0
    assert started_at(1) > 0
