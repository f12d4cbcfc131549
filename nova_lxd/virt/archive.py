"""The entries of a compressed tar archive, read from a stream and unpacked nowhere.

Python's ``tarfile`` stops without a word at some kinds of damage and believes any size that a
header states.  This reader accounts for every byte, holds few of them at a time, and refuses what
two readers of tar could understand differently: LXD unpacks with another one than this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from nova_lxd.virt.compression import CHUNK, Damaged, Readable, decompressed

BLOCK = 512
MAX_EXTENSION = 1024 * 1024
"""Bytes of one extended header: long names, capabilities, ACLs."""
MAX_EXTENSIONS = 256 * MAX_EXTENSION
"""Bytes of all extended headers together."""
MAX_PADDING = 1024 * 1024
"""Bytes of zeros behind the end mark."""

_NUMBER = re.compile(rb" *([0-7]*)[ \0]*")
_RECORD = re.compile(rb"([0-9]{1,9}) ([^=\n]+)=")
_SPARSE_SIZES = (b"GNU.sparse.realsize", b"GNU.sparse.size")
_OVERRIDES = frozenset({b"path", b"linkpath", b"size", b"GNU.sparse.name", *_SPARSE_SIZES})


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


@dataclass(frozen=True, slots=True)
class Extension:
    """An extended header, which says more of the entry that follows it."""

    kind: bytes
    """``L`` or ``K`` (GNU's long name and long link), or ``x`` (POSIX' records)."""
    block: bytes
    text: bytes
    says: Mapping[bytes, bytes]
    """How the entry is named and how large it is, by POSIX' keywords."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it is stored.

    What is not taken of ``content`` is passed over when the next entry is asked for.
    """

    member: Member
    extensions: tuple[Extension, ...]
    block: bytes
    """Its own header."""
    sparse_map: bytes
    """What GNU's old sparse format has between header and content."""
    content: Iterator[bytes]
    """In whole blocks."""


def entries(stream: Readable, form: str) -> Iterator[Entry]:
    """Walk the archive as it is stored.

    :param stream: at the archive's first byte; it is read to its end
    :param form: see :func:`nova_lxd.virt.compression.decompressed`
    :raises Damaged: at any time
    """
    return _Walk(decompressed(stream, form)).entries()


class _Walk:
    """One pass over a plain tar stream."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._extended = 0

    def entries(self) -> Iterator[Entry]:
        while (block := self._exactly(BLOCK)) != bytes(BLOCK):
            _check_header(block)
            block, extensions = self._extensions(block)
            overrides = {key: value for each in extensions for key, value in each.says.items()}
            size = overrides.get(b"size")
            stored = _number(block[124:136]) if size is None else _decimal(size)
            member = _member(block, overrides, stored)
            sparse_map = self._sparse_map(block) if block[156:157] == b"S" else b""
            content = self._content(_padded(stored))
            yield Entry(member, extensions, block, sparse_map, content)
            for _ in content:
                pass
        self._check_end()

    def _extensions(self, block: bytes) -> tuple[bytes, tuple[Extension, ...]]:
        """Read the extended headers before an entry's own; return that and them."""
        extensions: tuple[Extension, ...] = ()
        order = b""
        while (kind := block[156:157]) in _EXTENSIONS:
            order += kind
            if order not in _ORDERS:
                raise Damaged("an entry has several extended headers")
            text = self._extension(_number(block[124:136]))
            says = _EXTENSIONS[kind](text)
            # A global header is no entry's own, and tells nothing that matters.
            if kind != b"g":
                extensions += (Extension(kind, block, text, says),)
            order = order.removesuffix(b"g")
            block = self._exactly(BLOCK)
            _check_header(block)
        return block, extensions

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise Damaged("it is truncated")
        return data

    def _content(self, count: int) -> Iterator[bytes]:
        while count:
            chunk = self._exactly(min(count, CHUNK))
            count -= len(chunk)
            yield chunk

    def _extension(self, size: int) -> bytes:
        self._extended += _padded(size)
        if size > MAX_EXTENSION or self._extended > MAX_EXTENSIONS:
            raise Damaged("its extended headers are too large")
        return self._exactly(_padded(size))[:size]

    def _sparse_map(self, block: bytes) -> bytes:
        blocks: list[bytes] = []
        more = block[482]
        while more:
            if len(blocks) * BLOCK >= MAX_EXTENSION:
                raise Damaged("it has a file with too many holes")
            blocks.append(self._extension(BLOCK))
            more = blocks[-1][504]
        return b"".join(blocks)

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


def records(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read POSIX' records in an extended header: keywords and values.

    :raises Damaged: they are malformed
    """
    at = 0
    while at < len(text):
        match = _RECORD.match(text, at)
        end = at + int(match[1]) if match else 0
        if match is None or end <= match.end() or text[end - 1 : end] != b"\n":
            raise Damaged("it is corrupt: an extended header is malformed")
        yield match[2], text[match.end() : end - 1]
        at = end


def record(key: bytes, value: bytes) -> bytes:
    """Write one record; its length counts its own digits."""
    body = b" %s=%s\n" % (key, value)
    length = len(body)
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def _pax(text: bytes) -> dict[bytes, bytes]:
    """Keep what says how an entry is named and how large it is."""
    found: dict[bytes, bytes] = {}
    for key, value in records(text):
        if key in _OVERRIDES:
            if key in found or not value:
                raise Damaged("it has an ambiguous extended header")
            found[key] = value
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
