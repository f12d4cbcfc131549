"""Builds root file system archives for tests, good and evil."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
from collections.abc import Iterable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.xz": lzma.compress,
    "tar.bz2": bz2.compress,
    "tar.zst": zstd.compress,
}

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields) -> Entry:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def folder(name: str) -> Entry:
    return entry(name, tarfile.DIRTYPE)


def symlink(name: str, target: str) -> Entry:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Entry:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def device(name: str, kind: bytes, major: int, minor: int) -> Entry:
    return entry(name, kind, devmajor=major, devminor=minor)


def system() -> list[Entry]:
    """The smallest root file system that has an init."""
    return [folder("."), folder("./sbin"), entry("./sbin/init", content=b"#!/bin/sh\n")]


def unified(entries: Iterable[Entry], *, at: str = "rootfs") -> list[Entry]:
    """Put a root file system into a unified LXD image."""
    moved = []
    for info, content in entries:
        info.name = f"{at}/{info.name.removeprefix('./')}".removesuffix("/.")
        if info.type == tarfile.LNKTYPE:
            info.linkname = f"{at}/{info.linkname}"
        moved.append((info, content))
    templates = [folder("templates"), entry("templates/hostname.tpl", content=b"{{ x }}")]
    return [entry("metadata.yaml", content=b"architecture: evil\n"), *moved, *templates]


def tar(entries: Iterable[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=form) as writer:
        for info, content in entries:
            writer.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def header(**fields) -> bytes:
    """One header block, with fields as no honest tar would write them."""
    spoiled = fields.pop("spoil", {})
    info, _ = entry(fields.pop("name", "x"), fields.pop("kind", tarfile.REGTYPE), **fields)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    for at, data in spoiled.items():
        block[at : at + len(data)] = data
    return seal(block)


def seal(block: bytearray) -> bytes:
    """Make a header's checksum right."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """An extended header."""
    padding = bytes(-len(records) % 512)
    return header(name="pax", kind=kind, size=len(records)) + records + padding


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body
