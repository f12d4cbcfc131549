"""The inodes of a squashfs image, and their extended attributes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from nova_lxd.virt.archive import MAX_EXTENSIONS
from nova_lxd.virt.compression import Damaged
from nova_lxd.virt.squashblocks import Blocks, Cursor

NONE = 0xFFFFFFFF
"""The index of a fragment or of attributes that are not there."""
DIRECTORY, FILE, SYMLINK, BLOCK, CHARACTER, FIFO, SOCKET = range(1, 8)
"""The types of inodes, as directories spell them.  Seven more is a longer layout of the same."""
MAX_TARGET = 4095
"""Bytes of a symbolic link's target."""
MAX_SIZE = 2**63 - 1
MAX_ATTRIBUTE_NAME = 255
MAX_ATTRIBUTE = 65536
"""Bytes of an extended attribute's value; like those of its name, Linux' own limit."""
MAX_ATTRIBUTES = 256 * 1024
"""Bytes of all the extended attributes of one file."""

_WORD = struct.Struct("<I")
_POINTER = struct.Struct("<Q")
_BASE = struct.Struct("<4H2I")
_LAYOUTS = {
    1: ("<2I2H4x", "start links size offset"),
    2: ("<4I", "start fragment offset size"),
    3: ("<2I", "links size"),
    4: ("<2I", "links device"),
    5: ("<2I", "links device"),
    6: ("<I", "links"),
    7: ("<I", "links"),
    8: ("<3I6xHI", "links size start offset attributes"),
    9: ("<2Q8x4I", "start size links fragment offset attributes"),
    10: ("<2I", "links size"),
    11: ("<3I", "links device attributes"),
    12: ("<3I", "links device attributes"),
    13: ("<2I", "links attributes"),
    14: ("<2I", "links attributes"),
}
_FIELDS = {key: (struct.Struct(form), names.split()) for key, (form, names) in _LAYOUTS.items()}
_LONG_SYMLINK = 10

_ATTRIBUTE_TABLE = struct.Struct("<QI4x")
_ATTRIBUTES = struct.Struct("<QI4x")
_ATTRIBUTE = struct.Struct("<2H")
_ELSEWHERE = 0x100
"""Bit of an attribute's type: in place of the value is a reference to one."""
_PREFIXES = (b"user.", b"trusted.", b"security.")


@dataclass(slots=True)
class Inode:
    """One inode; what its type has no field for is as it is here."""

    type: int
    mode: int
    user: int
    group: int
    mtime: int
    number: int
    rest: Cursor
    """What follows it: of a file, the sizes of its blocks."""
    links: int = 1
    size: int = 0
    start: int = 0
    """Where its first block is; of a directory, where its metadata is in their table."""
    offset: int = 0
    fragment: int = NONE
    device: int = 0
    attributes: int = NONE
    target: bytes = b""

    @property
    def basic(self) -> int:
        """Its type as directories spell it."""
        return (self.type - 1) % SOCKET + 1

    @property
    def major_minor(self) -> tuple[int, int]:
        """A device's numbers, in Linux' own packing."""
        return self.device >> 8 & 0xFFF, self.device & 0xFF | self.device >> 12 & 0xFFF00


class Inodes:
    """Reads inodes where directories say that they are."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._attributes = 0

    def at(self, where: int) -> Inode:
        """Return an inode.

        :param where: its block, as bytes behind the table's start, times 65536, and its offset
        :raises Damaged: it is none
        """
        superblock = self._blocks.superblock
        position = superblock.inode_table + (where >> 16)
        cursor = Cursor(self._blocks, position, where & 0xFFFF, superblock.directory_table)
        kind, mode, user, group, mtime, number = _BASE.unpack(cursor.take(_BASE.size))
        if kind not in _FIELDS:
            raise Damaged("it is corrupt: an inode is of an unknown type")
        layout, names = _FIELDS[kind]
        values = dict(zip(names, layout.unpack(cursor.take(layout.size)), strict=True))
        inode = Inode(kind, mode & 0o7777, user, group, mtime, number, cursor, **values)
        if inode.size > MAX_SIZE:
            raise Damaged("it is corrupt: a file is larger than any can be")
        if inode.basic == SYMLINK:
            _read_target(inode)
        return inode

    def attributes(self, inode: Inode) -> dict[bytes, bytes]:
        """Return an inode's extended attributes, by their full names.

        :raises Damaged: they are not there, or too large
        """
        if inode.attributes == NONE:
            return {}
        cursor, count, values = self._find(inode.attributes)
        found: dict[bytes, bytes] = {}
        size = 0
        for _ in range(count):
            name, value = self._attribute(cursor, values)
            size += len(name) + len(value)
            if size > MAX_ATTRIBUTES:
                raise Damaged("it has a file with too large extended attributes")
            found[name] = value
        self._attributes += size
        if self._attributes > MAX_EXTENSIONS:
            raise Damaged("its extended attributes are too large")
        return found

    def _find(self, index: int) -> tuple[Cursor, int, int]:
        """Return where an inode's attributes are, how many, and what their references start at."""
        table = self._blocks.superblock.xattr_table
        values, indexes = _ATTRIBUTE_TABLE.unpack(self._blocks.read(table, _ATTRIBUTE_TABLE.size))
        if index >= indexes:
            raise Damaged("it is corrupt: extended attributes are missing")
        item = self._blocks.item(table + _ATTRIBUTE_TABLE.size, index, _ATTRIBUTES.size)
        where, count = _ATTRIBUTES.unpack(item)
        return self._cursor(values, where), count, values

    def _cursor(self, values: int, where: int) -> Cursor:
        end = self._blocks.superblock.used
        return Cursor(self._blocks, values + (where >> 16), where & 0xFFFF, end)

    def _attribute(self, cursor: Cursor, values: int) -> tuple[bytes, bytes]:
        kind, size = _ATTRIBUTE.unpack(cursor.take(_ATTRIBUTE.size))
        space = kind & ~_ELSEWHERE
        if space >= len(_PREFIXES) or not 0 < size <= MAX_ATTRIBUTE_NAME:
            raise Damaged("it is corrupt: an extended attribute is malformed")
        name = _PREFIXES[space] + cursor.take(size)
        if b"\0" in name or b"\n" in name:
            raise Damaged("it has an extended attribute without a proper name")
        value = _value(cursor)
        if kind & _ELSEWHERE:
            if len(value) != _POINTER.size:
                raise Damaged("it is corrupt: an extended attribute is malformed")
            value = _value(self._cursor(values, *_POINTER.unpack(value)))
        return name, value


def _value(cursor: Cursor) -> bytes:
    (size,) = _WORD.unpack(cursor.take(_WORD.size))
    if size > MAX_ATTRIBUTE:
        raise Damaged("it has a file with too large extended attributes")
    return cursor.take(size)


def _read_target(inode: Inode) -> None:
    if not 0 < inode.size <= MAX_TARGET:
        raise Damaged("it is corrupt: a symbolic link is empty or too long")
    inode.target = inode.rest.take(inode.size)
    if b"\0" in inode.target:
        raise Damaged("it is corrupt: a symbolic link holds a zero byte")
    if inode.type == _LONG_SYMLINK:
        (inode.attributes,) = _WORD.unpack(inode.rest.take(_WORD.size))
