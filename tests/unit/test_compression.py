"""What reads gzip, by either library, takes nothing that the other would not."""

from __future__ import annotations

import gzip
import io
import random
import zlib

import pytest
from isal import isal_zlib

from nova_lxd.virt import compression
from nova_lxd.virt.compression import Damaged, decompressed

CONTENT = b"".join(random.Random(0).choices([b"word ", b"another ", b"\0" * 40, b"\xff"], k=300))
PACKED = gzip.compress(CONTENT[:900]) + gzip.compress(CONTENT[900:])


@pytest.fixture(params=[isal_zlib, zlib], ids=["isal", "zlib"], autouse=True)
def library(request, monkeypatch):
    errors = (OSError, ValueError, request.param.error)
    monkeypatch.setattr(compression, "gunzip", request.param)
    monkeypatch.setattr(compression, "_ERRORS", errors)


def unpack(packed: bytes) -> bytes:
    return decompressed(io.BytesIO(packed), "tar.gz").read(2 * len(CONTENT))


def test_streams_in_a_row():
    assert unpack(PACKED) == CONTENT


def test_more_than_one_piece():
    content = random.Random(1).randbytes(3 * compression.CHUNK) + bytes(9 * compression.CHUNK)
    stream = decompressed(io.BytesIO(gzip.compress(content)), "tar.gz")
    pieces = list(iter(lambda: stream.read(1000), b""))
    assert b"".join(pieces) == content


def test_cut_off_anywhere():
    first = len(gzip.compress(CONTENT[:900]))
    for length in set(range(len(PACKED))) - {first}:
        with pytest.raises(Damaged, match="truncated"):
            unpack(PACKED[:length])


def test_a_byte_of_the_content_or_the_checksums_is_wrong():
    packed = gzip.compress(CONTENT, mtime=0)
    for at in range(10, len(packed)):
        wrong = bytearray(packed)
        wrong[at] ^= 0x55
        with pytest.raises(Damaged):
            unpack(bytes(wrong))


def test_something_follows():
    with pytest.raises(Damaged):
        unpack(PACKED + b"no gzip")


def test_a_bomb():
    packed = gzip.compress(bytes(1024 * 1024))
    stream = decompressed(io.BytesIO(packed * 600), "tar.gz")
    with pytest.raises(Damaged, match="times its size"):
        list(iter(lambda: stream.read(1024 * 1024), b""))
