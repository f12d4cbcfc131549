"""Images made of instances' snapshots: of what the fake has of one, which is no root disk."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

from .answers import Answer, Refusal
from .clock import stamp
from .instances import find
from .operations import Operation
from .request import Request
from .state import Image, State

_COMPRESSIONS = ("none", "gzip", "zstd", "xz", "bzip2", "lzma", "squashfs")


def publish(state: State, request: Request) -> Answer:
    """Answer ``POST /1.0/images`` that names a snapshot; nothing is really compressed."""
    body = request.json()
    name, _, snapshot = body["source"]["name"].partition("/")
    compression = body.get("compression_algorithm", "gzip")
    program = compression.split()[0]
    if program not in _COMPRESSIONS:
        raise Refusal(400, f'Invalid compression algorithm "{program}"')
    instance = find(state, request, name)
    if snapshot not in instance.snapshots:
        raise Refusal(404, "Instance not found")
    project = state.project_for("images", request.project, "")
    instance.published.append(snapshot)

    def task(operation: Operation) -> None:
        try:
            operation.work(state.seconds.get("publish", 0))
            content = _unified(body.get("properties") or {})
            with state.lock:
                operation.metadata = _store(state, project, content, body)
        finally:
            instance.published.remove(snapshot)

    return state.operations.start(request, "Downloading image", {}, task)


def _store(state: State, project: Any, content: bytes, body: dict[str, Any]) -> dict[str, Any]:
    fingerprint = hashlib.sha256(content).hexdigest()
    if fingerprint in project.images:
        raise Refusal(400, f"The image already exists: {fingerprint}")
    folder = state.folder / "images"
    folder.mkdir(exist_ok=True)
    (folder / fingerprint).write_bytes(content)
    project.images[fingerprint] = Image(
        fingerprint=fingerprint,
        properties=dict(body.get("properties") or {}),
        architecture="x86_64",
        created_at=stamp(10**9),
        size=len(content),
        filename="",
        public=False,
    )
    return {"fingerprint": fingerprint, "size": str(len(content))}


def _unified(properties: dict[str, str]) -> bytes:
    metadata = {"architecture": "x86_64", "creation_date": 1, "properties": properties}
    files = {
        "metadata.yaml": json.dumps(metadata).encode(),
        "rootfs/sbin/init": b"#!/bin/sh\n",
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()
