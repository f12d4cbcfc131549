"""The root file system of a unified LXD image, as an archive of its own.

A unified image is one archive with a root file system below ``rootfs/`` and, beside it, metadata
and templates that LXD would act upon.  Nothing of it but the root file system is let through.
Names are cut where they stand, in headers that are otherwise copied byte for byte, so that owners,
times and extended attributes come out as they went in.
"""

from __future__ import annotations

from collections.abc import Iterator

from nova_lxd.virt.archive import BLOCK, Entry, Extension, Kind, record, records
from nova_lxd.virt.compression import Damaged

ROOT = b"rootfs"
END = bytes(2 * BLOCK)
"""What an archive ends with."""

_NAMES = frozenset({b"path", b"GNU.sparse.name"})
_TARGET = b"linkpath"


def parts(name: bytes) -> list[bytes]:
    """Split a name as an archive spells it; ``./`` and doubled slashes mean nothing.

    >>> parts(b"./rootfs//etc/")
    [b'rootfs', b'etc']
    """
    return [part for part in name.split(b"/") if part not in (b"", b".")]


def cut(name: bytes) -> bytes:
    """Return what a name below ``rootfs`` is from there; never longer than it was.

    >>> cut(b"./rootfs/etc/"), cut(b"rootfs")
    (b'etc/', b'.')

    :raises Damaged: it is not below ``rootfs``
    """
    found = parts(name)
    if found[:1] != [ROOT]:
        raise Damaged("it has a name that is partly outside its rootfs")
    return b"/".join(found[1:] or [b"."]) + (b"/" if name.endswith(b"/") else b"")


def pieces(entry: Entry) -> Iterator[bytes]:
    """Yield an entry of a unified image as the archive of its root file system has it; or nothing.

    :raises Damaged: see :func:`nova_lxd.virt.archive.entries`
    """
    if parts(entry.member.name)[:1] == [ROOT]:
        yield _headers(entry)
        yield from entry.content


def _headers(entry: Entry) -> bytes:
    said = {key for extension in entry.extensions for key in extension.says}
    is_link = entry.member.kind is Kind.HARDLINK
    extensions = [_extension(extension, is_link) for extension in entry.extensions]
    block = bytearray(entry.block)
    if not said & _NAMES:
        _cut_name(block)
    if is_link and _TARGET not in said:
        _set(block, 157, 100, cut(entry.member.target))
    return b"".join([*extensions, _sealed(block), entry.sparse_map])


def _extension(extension: Extension, is_link: bool) -> bytes:
    if extension.kind == b"x":
        names = _NAMES | {_TARGET} if is_link else _NAMES
        pairs = records(extension.text)
        text = b"".join(record(key, cut(value) if key in names else value) for key, value in pairs)
    elif extension.kind == b"L" or is_link:
        text = cut(_text(extension.text)) + b"\0"
    else:
        text = extension.text
    block = bytearray(extension.block)
    _set(block, 124, 12, b"%011o" % len(text))
    return _sealed(block) + text + bytes(-len(text) % BLOCK)


def _cut_name(block: bytearray) -> None:
    """Cut a name that is in the block, with the prefix that a POSIX header may have for it."""
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
    if not prefix:
        _set(block, 0, 100, cut(_text(block[:100])))
        return
    name = cut(prefix + b"/" + _text(block[:100]))
    _set(block, 345, 155, b"" if len(name) <= 100 else cut(prefix))
    if len(name) <= 100:
        _set(block, 0, 100, name)


def _text(field: bytes | bytearray) -> bytes:
    return bytes(field).partition(b"\0")[0]


def _set(block: bytearray, at: int, size: int, value: bytes) -> None:
    block[at : at + size] = value.ljust(size, b"\0")


def _sealed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
