"""An image on its way in: multipart or a single tarball, hashed while it is written to files."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from .answers import Refusal

_CHUNK = 1 << 16
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "i686": "i686", "aarch64": "aarch64"}
_MAGIC = {
    b"\x1f\x8b": 0,
    b"\xfd7zXZ": 0,
    b"\x28\xb5\x2f\xfd": 0,
    b"BZh": 0,
    b"hsqs": 0,
    b"ustar": 257,
}
"""What a rootfs may begin with, and where."""


@dataclass
class Upload:
    """The files of one upload and what was learnt while they arrived."""

    parts: dict[str, Path] = field(default_factory=dict)
    filename: str = ""
    fingerprint: str = ""
    size: int = 0

    @property
    def rootfs(self) -> Path | None:
        """File of the root file system; None in a unified image."""
        return self.parts.get("rootfs")

    def discard(self) -> None:
        """Remove the files."""
        for path in self.parts.values():
            path.unlink(missing_ok=True)


def receive(body: BinaryIO, content_type: str, folder: Path) -> Upload:
    """Write the upload's parts to ``folder`` as they arrive; nothing is kept of one cut off."""
    folder.mkdir(exist_ok=True)
    upload = Upload()
    digest = hashlib.sha256()
    try:
        if content_type.startswith("multipart/"):
            _receive_parts(body, content_type, folder, upload, digest)
        else:
            _store(iter(lambda: body.read(_CHUNK), b""), "metadata", folder, upload, digest)
    except ConnectionError:
        upload.discard()
        raise
    upload.fingerprint = digest.hexdigest()
    return upload


def _receive_parts(
    body: BinaryIO, content_type: str, folder: Path, upload: Upload, digest: Any
) -> None:
    header = Message()
    header["Content-Type"] = content_type
    boundary = b"--" + str(header.get_param("boundary")).encode()
    body.readline()
    while disposition := _headers(body).get("Content-Disposition", ""):
        name = re.search(r'[ ;]name="([^"]*)"', disposition)
        file = re.search(r'filename="([^"]*)"', disposition)
        upload.filename = file[1] if file else ""
        _store(_lines(body, boundary), name[1] if name else "", folder, upload, digest)


def _headers(body: BinaryIO) -> dict[str, str]:
    found = {}
    while line := body.readline().strip():
        key, _, value = line.decode().partition(":")
        found[key.title()] = value.strip()
    return found


def _lines(body: BinaryIO, boundary: bytes) -> Any:
    """Yield a part's content up to the boundary, without the line end that belongs to it."""
    held = b""
    while line := body.readline(_CHUNK):
        if line.startswith(boundary):
            break
        yield held
        held = line[-2:] if line.endswith(b"\r\n") else line[-1:]
        yield line[: len(line) - len(held)]
        if held != b"\r\n" and held != b"\r":
            yield held
            held = b""


def _store(chunks: Any, name: str, folder: Path, upload: Upload, digest: Any) -> None:
    handle, path = tempfile.mkstemp(dir=folder, prefix="lxd_post_")
    upload.parts[name] = Path(path)
    with os.fdopen(handle, "wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            upload.size += len(chunk)
            file.write(chunk)


def read_metadata(upload: Upload) -> dict[str, Any]:
    """Read ``metadata.yaml`` and refuse what LXD refuses."""
    try:
        path = upload.parts["metadata"]
    except KeyError:
        raise Refusal(400, "Invalid multipart image") from None
    metadata = _parse_metadata(path)
    architecture = str(metadata.get("architecture", ""))
    if not metadata.get("creation_date"):
        raise Refusal(400, "Missing creation date")
    if architecture not in _ARCHITECTURES:
        raise Refusal(400, f"Architecture isn't supported: {architecture}")
    return {**metadata, "architecture": _ARCHITECTURES[architecture]}


def _parse_metadata(path: Path) -> dict[str, Any]:
    try:
        with tarfile.open(path) as tar:
            member = tar.extractfile("metadata.yaml")
            return dict(yaml.safe_load(member.read() if member else b"") or {})
    except KeyError:
        raise Refusal(400, "Metadata tarball is missing metadata.yaml") from None
    except tarfile.ReadError:
        raise Refusal(400, "Unsupported compression") from None


def unpacked_size(rootfs: Path) -> int:
    """Unpack a root file system as LXD does at the first create; return the bytes it needs."""
    with rootfs.open("rb") as file:
        head = file.read(512)
    if not head:
        raise Refusal(400, "EOF")
    if not any(head[offset:].startswith(magic) for magic, offset in _MAGIC.items()):
        raise Refusal(400, "Unsupported compression")
    if head.startswith((b"hsqs", b"\x28\xb5\x2f\xfd")):
        return rootfs.stat().st_size
    try:
        with tarfile.open(rootfs) as tar:
            return sum(member.size for member in tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        text = "Unpack failed: Failed to run: tar: Process exited with non-zero value 2"
        raise Refusal(400, f"{text} ({error})") from None
