"""The entries of a squashfs image, as those of an archive that we write ourselves.

Whoever is given that archive never sees the image, so no second reader can understand it in another
way; and what this reader does not understand, it refuses.  It holds a few blocks at a time, and of
the tree only which directories it has been in and where files with several names came first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from nova_lxd.virt import squashinodes
from nova_lxd.virt.archive import BLOCK, Entry, Kind, Member
from nova_lxd.virt.compression import Damaged
from nova_lxd.virt.squashblocks import Blocks, Cursor
from nova_lxd.virt.squashinodes import Inode, Inodes
from nova_lxd.virt.tarheader import header

MAX_PATH = 4095
"""Bytes of a path; it bounds the depth, too."""
MAX_NAME = 255
MAX_SOCKETS = 65536
"""Sockets are passed over, as GNU tar does, so that nobody else would count them."""

_RUN = struct.Struct("<3I")
_MAX_RUN = 256
_NAME = struct.Struct("<HhHH")
_WORD = struct.Struct("<I")
_DOTS = 3
"""A directory's size counts this much for ``.`` and ``..``, which are not in it."""
_KINDS = {
    squashinodes.DIRECTORY: Kind.DIRECTORY,
    squashinodes.FILE: Kind.FILE,
    squashinodes.SYMLINK: Kind.SYMLINK,
    squashinodes.BLOCK: Kind.BLOCK,
    squashinodes.CHARACTER: Kind.CHARACTER,
    squashinodes.FIFO: Kind.FIFO,
}


@dataclass(frozen=True, slots=True)
class _Name:
    """One entry of a directory; ``where`` is for :meth:`Inodes.at`."""

    text: bytes
    type: int
    number: int
    where: int


def entries(file: BinaryIO) -> Iterator[Entry]:
    """Walk the image; its root directory comes first, by the name ``.``.

    The content of an entry may be read at any time, once, or never; only then is it checked.

    :param file: a seekable file that begins with the image
    :raises Damaged: at any time
    """
    yield from _Walk(Blocks(file)).entries()


class _Walk:
    """One pass over an image."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._inodes = Inodes(blocks)
        self._been: set[int] = set()
        self._first: dict[int, bytes] = {}
        self._sockets = 0

    def entries(self) -> Iterator[Entry]:
        where = self._blocks.superblock.root
        root = self._inodes.at(where)
        if root.basic != squashinodes.DIRECTORY:
            raise Damaged("it is corrupt: its root is no directory")
        yield self._entry(b".", root, where)
        folders = [self._held(b"", root, where)]
        while folders:
            found = next(folders[-1], None)
            if found is None:
                folders.pop()
                continue
            path, inode, where = found
            yield self._entry(path, inode, where)
            if inode.basic == squashinodes.DIRECTORY:
                folders.append(self._held(path + b"/", inode, where))

    def _held(
        self, folder: bytes, directory: Inode, where: int
    ) -> Iterator[tuple[bytes, Inode, int]]:
        """What a directory holds: paths, their inodes, and where those are."""
        if where in self._been:
            raise Damaged("it is corrupt: a directory is in two places, or in itself")
        self._been.add(where)
        for name in self._names(directory):
            path = folder + name.text
            if len(path) > MAX_PATH:
                raise Damaged(f"it has a path of more than {MAX_PATH} bytes")
            inode = self._inodes.at(name.where)
            if (inode.basic, inode.number) != (name.type, name.number):
                raise Damaged("it is corrupt: a directory and an inode contradict each other")
            if inode.basic == squashinodes.SOCKET:
                self._count_socket()
            else:
                yield path, inode, name.where

    def _count_socket(self) -> None:
        self._sockets += 1
        if self._sockets > MAX_SOCKETS:
            raise Damaged(f"it has more than {MAX_SOCKETS} sockets")

    def _names(self, directory: Inode) -> Iterator[_Name]:
        """Read a directory: runs of names, of inodes that have a block of their table in common."""
        superblock = self._blocks.superblock
        start = superblock.directory_table + directory.start
        cursor = Cursor(self._blocks, start, directory.offset, superblock.used)
        left = directory.size - _DOTS
        before = b""
        while left > 0:
            last, block, number = _RUN.unpack(cursor.take(_RUN.size))
            if last >= _MAX_RUN:
                raise Damaged("it is corrupt: a directory is malformed")
            left -= _RUN.size
            for _ in range(last + 1):
                offset, delta, kind, size = _NAME.unpack(cursor.take(_NAME.size))
                text = cursor.take(size + 1)
                _check_name(text, before)
                before = text
                left -= _NAME.size + len(text)
                yield _Name(text, kind, number + delta, block << 16 | offset)
        if left < 0 and directory.size:
            raise Damaged("it is corrupt: a directory holds more than its size allows")

    def _entry(self, path: bytes, inode: Inode, where: int) -> Entry:
        owner = (self._blocks.id(inode.user), self._blocks.id(inode.group))
        member = self._member(path, inode, where)
        attributes = {} if member.kind is Kind.HARDLINK else self._inodes.attributes(inode)
        block = header(member, inode.mode, owner, inode.mtime, attributes.items())
        content = self._content(inode) if member.kind is Kind.FILE else iter(())
        return Entry(member, (), block, b"", content)

    def _member(self, path: bytes, inode: Inode, where: int) -> Member:
        kind = _KINDS[inode.basic]
        if kind is Kind.DIRECTORY:
            return Member(path, kind)
        if inode.links > 1 and (first := self._first.setdefault(where, path)) != path:
            return Member(path, Kind.HARDLINK, target=first)
        size = inode.size if kind is Kind.FILE else 0
        return Member(path, kind, size, inode.target, inode.major_minor)

    def _content(self, inode: Inode) -> Iterator[bytes]:
        size = self._blocks.superblock.block_size
        position, left = inode.start, inode.size
        while left >= size or (left and inode.fragment == squashinodes.NONE):
            (word,) = _WORD.unpack(inode.rest.take(_WORD.size))
            data, position = self._blocks.data(position, word, min(left, size))
            left -= len(data)
            yield _padded(data)
        if left:
            yield _padded(self._blocks.fragment(inode.fragment, inode.offset, left))


def _check_name(name: bytes, before: bytes) -> None:
    """Check one name in a directory, which the one before it must precede."""
    if name in (b".", b"..") or b"/" in name or b"\0" in name or len(name) > MAX_NAME:
        raise Damaged("it has an entry without a proper name")
    if name <= before:
        raise Damaged("it is corrupt: a directory is not sorted, or has a name twice")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)
