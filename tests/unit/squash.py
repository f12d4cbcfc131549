"""Builds squashfs images for tests: good ones with squashfs-tools, evil ones by hand."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.unit.archives import Entry, tar

NONE = 0xFFFFFFFF
MAGIC, BLOCK_SIZE, COMPRESSOR, BLOCK_LOG, VERSION, ROOT, USED = 0, 12, 20, 22, 28, 32, 40
XATTR_TABLE, INODE_TABLE, DIRECTORY_TABLE = 56, 64, 72
"""Where the fields of a superblock are."""
STORED = 1 << 24
FIRST_BLOCK = 96

_QUIETLY = ("-quiet", "-no-progress", "-exit-on-error", "-processors", "1")

Held = tuple[bytes, int] | tuple[bytes, int, int]
"""A name and the number of its node; the third, if there, is a false type."""
Node = tuple[int, bytes] | list[Held]
"""A type and what follows an inode's common part; or what a directory holds."""


def squashed(entries: Iterable[Entry], *options: str) -> bytes:
    """A squashfs image of an archive's entries."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image")
        command = ["mksquashfs", "-", str(image), "-tar", *_QUIETLY, *options]
        done = subprocess.run(command, input=tar(entries), capture_output=True, check=False)
        assert not done.returncode, done.stderr.decode()
        return image.read_bytes()


def file(content: bytes = b"", *, size: int | None = None, words: Iterable[int] = ()) -> Node:
    """A file whose content, if any, is the image's first block."""
    given = list(words) or [STORED | len(content)] * bool(content)
    body = struct.pack("<4I", FIRST_BLOCK, NONE, 0, len(content) if size is None else size)
    return 2, body + struct.pack(f"<{len(given)}I", *given)


def symlink(target: bytes, *, size: int | None = None) -> Node:
    return 3, struct.pack("<2I", 1, len(target) if size is None else size) + target


def crafted(*nodes: Node, data: bytes = b"", spoil: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """An image of these nodes, stored without compression; the first is the root.

    :param data: what files have for content
    :param spoil: what to write over it, and where
    """
    inodes, listings, places = b"", b"", []
    for number, node in enumerate(nodes):
        places.append(len(inodes))
        kind, body = node if isinstance(node, tuple) else (1, b"")
        if isinstance(node, list):
            size = len(_listing(node, nodes, [0] * len(nodes)))
            body = struct.pack("<2I2HI", 0, 2, size + 3, len(listings), 0)
            listings += bytes(size)
        inodes += struct.pack("<4H2I", kind, 0o755, 0, 0, 1, number) + body
    listings = b"".join(_listing(node, nodes, places) for node in nodes if isinstance(node, list))
    tables = [_metadata(inodes), _metadata(listings), _metadata(bytes(4))]
    starts = [FIRST_BLOCK + len(data)]
    for table in tables:
        starts.append(starts[-1] + len(table))
    used = starts[3] + 8
    image = struct.pack("<4s4I6H", b"hsqs", len(nodes), 1, 4096, 0, 1, 12, 0, 1, 4, 0)
    image += struct.pack("<2Q", 0, used)
    image += struct.pack("<6Q", starts[3], 2**64 - 1, *starts[:2], 2**64 - 1, 2**64 - 1)
    image += data + b"".join(tables) + struct.pack("<Q", starts[2])
    return patched(image, *spoil)


def patched(image: bytes, *spoil: tuple[int, bytes]) -> bytes:
    """The image with other bytes at some places."""
    spoiled = bytearray(image)
    for at, data in spoil:
        spoiled[at : at + len(data)] = data
    return bytes(spoiled)


def _metadata(block: bytes) -> bytes:
    return struct.pack("<H", 0x8000 | len(block)) + block


def _listing(held: list[Held], nodes: tuple[Node, ...], places: list[int]) -> bytes:
    if not held:
        return b""
    text = struct.pack("<3I", len(held) - 1, 0, 0)
    for name, number, *false in held:
        node = nodes[number]
        kind = (node[0] - 1) % 7 + 1 if isinstance(node, tuple) else 1
        kind = false[0] if false else kind
        text += struct.pack("<HhHH", places[number], number, kind, len(name) - 1) + name
    return text
