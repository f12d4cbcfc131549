"""Compressed streams, read with bounded memory and a bounded ratio."""

from __future__ import annotations

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

try:  # twice as fast; there is none for some architectures
    from isal import isal_zlib as gunzip
except ImportError:
    gunzip = zlib  # type: ignore[misc]  # another module of the same interface

CHUNK = 64 * 1024
MAX_RATIO = 200
RATIO_FREE = 512 * 1024**2
"""A stream that yields more bytes than this may yield :data:`MAX_RATIO` times its own size."""
_XZ_MEMORY = 128 * 1024 * 1024
_ZSTD_WINDOW_LOG = 27
"""Binary logarithm of the memory that a zstd stream may ask of its reader; zstd's own limit."""
_GZIP_ERROR: type[Exception] = gunzip.error  # type: ignore[assignment]  # isal's stub: an instance
_ERRORS = (OSError, ValueError, _GZIP_ERROR, lzma.LZMAError, zstd.ZstdError)


class Damaged(Exception):
    """The archive is truncated, corrupt, ambiguous or a bomb; the message says which."""


class Readable(Protocol):
    """What is asked of a stream."""

    def read(self, size: int, /) -> bytes:
        """Read so many bytes; fewer only at the end."""


class _Decompressor(Protocol):
    """What the decompressors of bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gunzip:
    """zlib's decompressor in the shape of the other two."""

    def __init__(self) -> None:
        self._zlib = gunzip.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _unxz() -> _Decompressor:
    # Without a limit the archive itself would say how much memory its reader takes.
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _unzstd() -> _Decompressor:
    limits = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    decompressor: _Decompressor = zstd.ZstdDecompressor(options=limits)
    return decompressor


_DECOMPRESSORS: Mapping[str, Callable[[], _Decompressor]] = {
    "tar.gz": _Gunzip,
    "tar.xz": _unxz,
    "tar.bz2": bz2.BZ2Decompressor,
    "tar.zst": _unzstd,
}


def decompressed(stream: Readable, form: str) -> Readable:
    """Read what a stream holds, whatever it is compressed with.

    :param form: ``tar`` for a stream that is not compressed, ``tar.gz``, ``tar.xz``, ``tar.bz2`` or
        ``tar.zst``
    :raises Damaged: when it is read
    """
    if form == "tar":
        return stream
    return io.BufferedReader(_Decompressed(stream, _DECOMPRESSORS[form]), CHUNK)


class _Decompressed(io.RawIOBase):
    """What one or several compressed streams in a row hold."""

    def __init__(self, stream: Readable, new: Callable[[], _Decompressor]) -> None:
        self._stream = stream
        self._new = new
        self._decompressor = new()
        self._packed = self._unpacked = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            data = self._more()
            if not data and self._decompressor.eof:
                return 0
            try:
                found = self._decompressor.decompress(data, len(buffer))
            except _ERRORS as error:
                raise Damaged(f"it is corrupt: {error}") from error
            if found:
                buffer[: len(found)] = found
                self._check_ratio(len(found))
                return len(found)
            if self._ended and not data and not self._decompressor.eof:
                raise Damaged("it is truncated")

    def _more(self) -> bytes:
        rest = b""
        if self._decompressor.eof:
            rest = self._decompressor.unused_data
        elif not self._decompressor.needs_input:
            return b""
        data = rest or self._stream.read(CHUNK)
        if not rest:
            self._packed += len(data)
            self._ended = not data
        if data and self._decompressor.eof:
            self._decompressor = self._new()
        return data

    def _check_ratio(self, count: int) -> None:
        self._unpacked += count
        if self._unpacked > max(RATIO_FREE, MAX_RATIO * self._packed):
            raise Damaged(f"it unpacks to more than {MAX_RATIO} times its size")
