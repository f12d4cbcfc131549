"""The blocks of a squashfs image: superblock, metadata, tables, data and fragments.

Squashfs 4.0 is described in Linux' Documentation/filesystems/squashfs.rst and, to the byte, in its
fs/squashfs/squashfs_fs.h.  Nothing that an image says of itself is believed: no position outside
it, no block larger than its kind allows, and no more bytes than a fair image of its size holds.
"""

from __future__ import annotations

import functools
import io
import lzma
import struct
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from nova_lxd.virt.compression import MAX_RATIO, RATIO_FREE, Damaged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

METADATA = 8192
"""Bytes of a metadata block, unpacked."""
MIN_BLOCK = 4096
MAX_BLOCK = 1024 * 1024
"""Bytes of a block of data, unpacked."""

_SUPERBLOCK = struct.Struct("<4s4I6H8Q")
_SHORT = struct.Struct("<H")
_LONG = struct.Struct("<I")
_POINTER = struct.Struct("<Q")
_FRAGMENT = struct.Struct("<QII")
_STORED_METADATA = 1 << 15
_STORED_DATA = 1 << 24
_CACHED_METADATA = 128
_CACHED_FRAGMENTS = 8 * MAX_BLOCK
"""Bytes of fragments that are held: files are not always packed in the order of their names."""
_XZ_MEMORY = 16 * 1024 * 1024
_ZSTD_WINDOW_LOG = 20
"""Binary logarithm of the largest block: Linux' reader has no larger window either."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """The image's first 96 bytes; positions are bytes from there."""

    magic: bytes
    inodes: int
    made_at: int
    block_size: int
    fragments: int
    compressor: int
    block_log: int
    flags: int
    ids: int
    major: int
    minor: int
    root: int
    """The root directory, as a directory entry refers to its inode."""
    used: int
    """Bytes of the image but for padding."""
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int


class _Decompressor(Protocol):
    """What the decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _unlzma(form: int) -> _Decompressor:
    return lzma.LZMADecompressor(form, memlimit=_XZ_MEMORY)


def _unzstd() -> _Decompressor:
    limits = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    decompressor: _Decompressor = zstd.ZstdDecompressor(options=limits)
    return decompressor


_DECOMPRESSORS: Mapping[int, Callable[[], _Decompressor]] = {
    1: zlib.decompressobj,
    2: lambda: _unlzma(lzma.FORMAT_ALONE),
    4: lambda: _unlzma(lzma.FORMAT_XZ),
    6: _unzstd,
}
_REFUSED = {3: "lzo", 5: "lz4"}


class Blocks:
    """The blocks of one image, read where they are asked for.

    :ivar superblock: what the image begins with
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the superblock.

        :param file: a seekable file that begins with the image
        :raises Damaged: as any other method may
        """
        self._file = file
        size = file.seek(0, io.SEEK_END)
        if size < _SUPERBLOCK.size:
            raise Damaged("it is truncated")
        file.seek(0)
        self.superblock = Superblock(*_SUPERBLOCK.unpack(file.read(_SUPERBLOCK.size)))
        _check(self.superblock, size)
        self._decompressor = _DECOMPRESSORS[self.superblock.compressor]
        cached = _CACHED_FRAGMENTS // self.superblock.block_size
        self._unpacked = 0
        self.metadata = functools.lru_cache(_CACHED_METADATA)(self._metadata)
        self._fragment = functools.lru_cache(cached)(self._fragment_block)

    def read(self, position: int, size: int) -> bytes:
        """Return bytes as they are stored."""
        if position + size > self.superblock.used:
            raise Damaged("it is corrupt: something is outside of it")
        self._file.seek(position)
        data = self._file.read(size)
        if len(data) != size:
            raise Damaged("it is truncated")
        return data

    def _metadata(self, position: int) -> tuple[bytes, int]:
        """Return a block of metadata, and where the next one is."""
        (word,) = _SHORT.unpack(self.read(position, 2))
        size = word & (_STORED_METADATA - 1)
        if not 0 < size <= METADATA:
            raise Damaged("it is corrupt: a metadata block is too large")
        data = self.read(position + 2, size)
        block = self._unpack(data, METADATA, stored=bool(word & _STORED_METADATA))
        return block, position + 2 + size

    def item(self, table: int, index: int, size: int) -> bytes:
        """Return one of a table's items.

        :param table: where it has the positions of its metadata blocks, one after the other
        """
        block, offset = divmod(index * size, METADATA)
        (position,) = _POINTER.unpack(self.read(table + block * _POINTER.size, _POINTER.size))
        return Cursor(self, position, offset, self.superblock.used).take(size)

    def id(self, index: int) -> int:
        """Return a user's or group's number."""
        if index >= self.superblock.ids:
            raise Damaged("it is corrupt: an owner is missing")
        (number,) = _LONG.unpack(self.item(self.superblock.id_table, index, _LONG.size))
        return int(number)

    def data(self, position: int, word: int, wanted: int) -> tuple[bytes, int]:
        """Return a block of a file, and where the next one is.

        :param word: its size as the file's inode has it; 0 for a hole
        :param wanted: its size when unpacked
        """
        if not word:
            return bytes(wanted), position
        block = self._data(position, word)
        if len(block) != wanted:
            raise Damaged("it is corrupt: a file's block is of the wrong size")
        return block, position + word % _STORED_DATA

    def fragment(self, index: int, offset: int, size: int) -> bytes:
        """Return the end of a file, which shares its block with others."""
        piece = self._fragment(index)[offset : offset + size]
        if len(piece) != size:
            raise Damaged("it is corrupt: the end of a file is missing")
        return piece

    def _fragment_block(self, index: int) -> bytes:
        if index >= self.superblock.fragments:
            raise Damaged("it is corrupt: the end of a file is missing")
        item = self.item(self.superblock.fragment_table, index, _FRAGMENT.size)
        position, word, _ = _FRAGMENT.unpack(item)
        return self._data(position, word)

    def _data(self, position: int, word: int) -> bytes:
        stored, size = divmod(word, _STORED_DATA)
        if stored > 1 or not 0 < size <= self.superblock.block_size:
            raise Damaged("it is corrupt: a block is too large")
        data = self.read(position, size)
        return self._unpack(data, self.superblock.block_size, stored=bool(stored))

    def _unpack(self, data: bytes, limit: int, *, stored: bool) -> bytes:
        block = data if stored else _decompressed(data, self._decompressor(), limit)
        # Work is bounded, too: what is read again counts again, also if it is much for little.
        self._unpacked += max(len(block), len(data))
        if self._unpacked > max(RATIO_FREE, MAX_RATIO * self.superblock.used):
            raise Damaged(f"it unpacks to more than {MAX_RATIO} times its size")
        return block


class Cursor:
    """Reads on from a place in metadata, through as many blocks as it takes."""

    def __init__(self, blocks: Blocks, position: int, offset: int, end: int) -> None:
        """Read nothing yet.

        :param position: of a metadata block
        :param offset: into it, when it is unpacked
        :param end: where no such block begins any more
        """
        self._blocks = blocks
        self._position = position
        self._offset = offset
        self._end = end

    def take(self, count: int) -> bytes:
        """Return the next bytes.

        :raises Damaged: there are fewer
        """
        block, following = self._block(self._position)
        taken = block[self._offset : self._offset + count]
        self._offset += len(taken)
        while len(taken) < count:
            # Only the last one of a table may be smaller; a row of tiny ones would cost much time.
            if len(block) != METADATA or self._offset != METADATA:
                raise Damaged("it is corrupt: its metadata ends too early")
            self._position, self._offset = following, 0
            block, following = self._block(following)
            more = block[: count - len(taken)]
            self._offset = len(more)
            taken += more
        return taken

    def _block(self, position: int) -> tuple[bytes, int]:
        if position >= self._end:
            raise Damaged("it is corrupt: something is outside of its table")
        return self._blocks.metadata(position)


def _decompressed(data: bytes, decompressor: _Decompressor, limit: int) -> bytes:
    try:
        # With room for one byte more the end of the stream is always seen.
        block = decompressor.decompress(data, limit + 1)
    except (ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError) as error:
        raise Damaged(f"it is corrupt: {error}") from error
    if not decompressor.eof or len(block) > limit:
        raise Damaged("it is corrupt: a block is cut short, or unpacks to too much")
    return block


def _check(superblock: Superblock, size: int) -> None:
    """Check what all the rest relies on."""
    if superblock.magic != b"hsqs" or (superblock.major, superblock.minor) != (4, 0):
        raise Damaged("it is corrupt, or not a squashfs 4.0 image")
    if superblock.used > size:
        raise Damaged("it is truncated")
    block_size = superblock.block_size
    if not MIN_BLOCK <= block_size <= MAX_BLOCK or block_size != 1 << superblock.block_log:
        raise Damaged("it is corrupt: its block size is wrong")
    tables = (_SUPERBLOCK.size, superblock.inode_table, superblock.directory_table, superblock.used)
    if list(tables) != sorted(tables):
        raise Damaged("it is corrupt: its tables are in disorder")
    if superblock.compressor not in _DECOMPRESSORS:
        name = _REFUSED.get(superblock.compressor, "something unknown")
        raise Damaged(f"it is compressed with {name}, not with zstd, xz, lzma or gzip")
