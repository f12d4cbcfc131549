"""The members of a compressed tar archive, read from a stream and unpacked nowhere.

Python's ``tarfile`` stops without a word at some kinds of damage and believes any size that a
header states.  This reader accounts for every byte, holds few of them at a time, and refuses what
two readers of tar could understand differently: LXD unpacks with another one than this.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, Protocol

BLOCK = 512
CHUNK = 64 * 1024
MAX_EXTENSION = 1024 * 1024
"""Bytes of one extended header: long names, capabilities, ACLs."""
MAX_EXTENSIONS = 256 * MAX_EXTENSION
"""Bytes of all extended headers together."""
MAX_PADDING = 1024 * 1024
"""Bytes of zeros behind the end mark."""
MAX_RATIO = 200
RATIO_FREE = 512 * 1024**2
"""An archive that yields more bytes than this may yield :data:`MAX_RATIO` times its own size."""
_XZ_MEMORY = 128 * 1024 * 1024

_NUMBER = re.compile(rb" *([0-7]*)[ \0]*")
_RECORD = re.compile(rb"([0-9]{1,9}) ([^=\n]+)=")
_SPARSE_SIZES = (b"GNU.sparse.realsize", b"GNU.sparse.size")
_OVERRIDES = frozenset({b"path", b"linkpath", b"size", b"GNU.sparse.name", *_SPARSE_SIZES})


class Damaged(Exception):
    """The archive is truncated, corrupt, ambiguous or a bomb; the message says which."""


class Kind(Enum):
    """What a member becomes."""

    FILE = "file"
    HARDLINK = "hard link"
    SYMLINK = "symbolic link"
    CHARACTER = "character device"
    BLOCK = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the archive, with names as the archive spells them."""

    name: bytes
    kind: Kind
    size: int = 0
    """Bytes of a file as its reader sees them, holes included."""
    target: bytes = b""
    """Where a link leads."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number."""


def members(stream: BinaryIO, form: str) -> Iterator[Member]:
    """Walk the archive; each member is yielded before its content is read.

    :param stream: at the archive's first byte; it is read to its end
    :param form: ``tar``, ``tar.gz``, ``tar.xz`` or ``tar.bz2``
    :raises Damaged: at any time
    """
    yield from _Walk(_decompressed(stream, form)).members()


class _Walk:
    """One pass over a plain tar stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._extensions = 0

    def members(self) -> Iterator[Member]:
        while (block := self._exactly(BLOCK)) != bytes(BLOCK):
            _check_header(block)
            block, overrides = self._overrides(block)
            size = overrides.get(b"size")
            stored = _number(block[124:136]) if size is None else _decimal(size)
            yield _member(block, overrides, stored)
            if block[156:157] == b"S":
                self._skip_sparse_map(block)
            self._skip(_padded(stored))
        self._check_end()

    def _overrides(self, block: bytes) -> tuple[bytes, dict[bytes, bytes]]:
        """Read the extended headers before an entry's own; return that and what they say."""
        overrides: dict[bytes, bytes] = {}
        order = b""
        while (kind := block[156:157]) in _EXTENSIONS:
            order += kind
            if order not in _ORDERS:
                raise Damaged("an entry has several extended headers")
            overrides |= _EXTENSIONS[kind](self._extension(_number(block[124:136])))
            order = order.removesuffix(b"g")
            block = self._exactly(BLOCK)
            _check_header(block)
        return block, overrides

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise Damaged("it is truncated")
        return data

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._exactly(min(count, CHUNK)))

    def _extension(self, size: int) -> bytes:
        self._extensions += _padded(size)
        if size > MAX_EXTENSION or self._extensions > MAX_EXTENSIONS:
            raise Damaged("its extended headers are too large")
        return self._exactly(_padded(size))[:size]

    def _skip_sparse_map(self, block: bytes) -> None:
        more = block[482]
        while more:
            more = self._extension(BLOCK)[504]

    def _check_end(self) -> None:
        # Behind two blocks of zeros, some even behind one, other readers see nothing more.
        if self._exactly(BLOCK) != bytes(BLOCK):
            raise Damaged("more data follows its end mark")
        padding = 0
        while chunk := self._stream.read(CHUNK):
            padding += len(chunk)
            if chunk.strip(b"\0") or padding > MAX_PADDING:
                raise Damaged("more data follows its end mark")


def _member(block: bytes, overrides: Mapping[bytes, bytes], stored: int) -> Member:
    if block[156:157] not in _KINDS:
        raise Damaged(f"it has an entry of the unknown type {block[156:157]!r}")
    kind = _KINDS[block[156:157]]
    name = overrides.get(b"GNU.sparse.name") or overrides.get(b"path") or _header_name(block)
    target = overrides.get(b"linkpath") or _text(block[157:257])
    if not name or b"\0" in name + target:
        raise Damaged("it has an entry without a proper name")
    if kind is Kind.FILE and name.endswith(b"/"):
        kind = Kind.DIRECTORY
    if kind is not Kind.FILE:
        if stored:
            raise Damaged(f"it has a {kind.value} with content")
        device = (_number(block[329:337]), _number(block[337:345]))
        return Member(name, kind, target=target, device=device)
    sizes = [_decimal(overrides[key]) for key in _SPARSE_SIZES if key in overrides]
    if block[156:157] == b"S":
        sizes.append(_number(block[483:495]))
    return Member(name, kind, size=max(stored, *sizes, 0))


def _check_header(block: bytes) -> None:
    if block[257:265] not in (b"ustar\x0000", b"ustar  \0"):
        raise Damaged("it is corrupt, or not a POSIX or GNU tar archive")
    blank = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if _number(block[148:156]) != blank:
        raise Damaged("it is corrupt: a header's checksum is wrong")


def _header_name(block: bytes) -> bytes:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    match = _NUMBER.fullmatch(field)
    if match is None:
        raise Damaged("it is corrupt: a header holds a malformed number")
    return int(match[1] or b"0", 8)


def _decimal(text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", text):
        raise Damaged("it is corrupt: an extended header holds a malformed number")
    return int(text)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _pax(text: bytes) -> dict[bytes, bytes]:
    """Parse an extended header's records; keep what says how its entry is named and how large."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        match = _RECORD.match(text, at)
        end = at + int(match[1]) if match else 0
        if match is None or end <= match.end() or text[end - 1 : end] != b"\n":
            raise Damaged("it is corrupt: an extended header is malformed")
        if match[2] in _OVERRIDES:
            if match[2] in found or end - 1 == match.end():
                raise Damaged("it has an ambiguous extended header")
            found[match[2]] = text[match.end() : end - 1]
        at = end
    return found


def _global_pax(text: bytes) -> dict[bytes, bytes]:
    if _pax(text):
        raise Damaged("it gives many entries one name or size")
    return {}


_EXTENSIONS: Mapping[bytes, Callable[[bytes], dict[bytes, bytes]]] = {
    b"L": lambda text: {b"path": _text(text)},
    b"K": lambda text: {b"linkpath": _text(text)},
    b"x": _pax,
    b"g": _global_pax,
}
_ORDERS = frozenset({b"L", b"K", b"LK", b"KL", b"x", b"g"})


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
        self._zlib = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

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


_DECOMPRESSORS: Mapping[str, Callable[[], _Decompressor]] = {
    "tar.gz": _Gunzip,
    "tar.xz": _unxz,
    "tar.bz2": bz2.BZ2Decompressor,
}


def _decompressed(stream: BinaryIO, form: str) -> BinaryIO:
    if form == "tar":
        return stream
    return io.BufferedReader(_Decompressed(stream, _DECOMPRESSORS[form]), CHUNK)


class _Decompressed(io.RawIOBase):
    """What one or several compressed streams in a row hold."""

    def __init__(self, stream: BinaryIO, new: Callable[[], _Decompressor]) -> None:
        self._stream = stream
        self._new = new
        self._decompressor = new()
        self._packed = self._unpacked = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            data = self._more()
            if not data and self._decompressor.eof:
                return 0
            try:
                found = self._decompressor.decompress(data, len(buffer))
            except (OSError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise Damaged(f"it is corrupt: {error}") from error
            if found:
                buffer[: len(found)] = found
                self._check_ratio(len(found))
                return len(found)
            if not data and self._decompressor.needs_input and not self._decompressor.eof:
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
        if data and self._decompressor.eof:
            self._decompressor = self._new()
        return data

    def _check_ratio(self, count: int) -> None:
        self._unpacked += count
        if self._unpacked > max(RATIO_FREE, MAX_RATIO * self._packed):
            raise Damaged(f"it unpacks to more than {MAX_RATIO} times its size")
