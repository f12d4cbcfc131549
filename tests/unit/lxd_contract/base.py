"""What every part of the contract needs."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Iterator

import pytest

from . import guests
from .client import Client

POOL = "default"
ROOT = {"root": {"type": "disk", "path": "/", "pool": POOL, "size": "64MiB"}}
ID_BASE = 1000000


class ContractBase:
    """A throw-away project; a subclass gives the fixture ``lxd_socket``: a path."""

    @pytest.fixture
    def lxd(self, lxd_socket: str) -> Iterator[Client]:
        """A client for a project of its own."""
        client = Client(lxd_socket, f"contract-{uuid.uuid4().hex[:8]}")
        body = {"name": client.project, "config": {"features.images": "true"}}
        assert client.call("POST", "/1.0/projects", body).status == 201
        try:
            yield client
        finally:
            _empty(client)


def add_image(lxd: Client, *, deaf: bool = True, **properties: str) -> str:
    """Upload a root file system; return its fingerprint."""
    metadata, rootfs = guests.metadata(**properties), guests.rootfs(deaf=deaf)
    assert lxd.upload(metadata, rootfs).succeeded
    return hashlib.sha256(metadata + rootfs).hexdigest()


def add_instance(lxd: Client, name: str = "c1", image: str | None = None, **body: object) -> None:
    """Create an instance; without an image it has no root file system and cannot start."""
    source = {"type": "image", "fingerprint": image} if image else {"type": "none"}
    whole = {"name": name, "source": source, "profiles": [], "devices": ROOT, **body}
    result = lxd.run("POST", "/1.0/instances", whole)
    assert result.succeeded, result.body


def _empty(lxd: Client) -> None:
    for url in lxd.get("/1.0/instances").metadata:
        name = url.split("?")[0].rsplit("/", 1)[-1]
        with contextlib.suppress(AssertionError):
            lxd.act(name, "stop", force=True)
        assert lxd.run("DELETE", f"/1.0/instances/{name}").succeeded
    for url in lxd.get("/1.0/images").metadata:
        assert lxd.run("DELETE", url.split("?")[0]).succeeded
    for url in lxd.get("/1.0/profiles").metadata:
        if "/default" not in url:
            assert lxd.call("DELETE", url.split("?")[0]).succeeded
    assert lxd.call("DELETE", f"/1.0/projects/{lxd.project}").succeeded
