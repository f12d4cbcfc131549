"""The header of an archive's entry, as we write it ourselves.

Python's ``tarfile`` wants text where names and extended attributes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from nova_lxd.virt.archive import BLOCK, Kind, Member, record

_TYPES = {
    Kind.FILE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
_NAME = 100
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777


def header(
    member: Member,
    mode: int,
    owner: tuple[int, int],
    mtime: int,
    attributes: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return the header of an entry, after the extended one that it may need.

    :param mode: permissions alone
    :param owner: user and group
    :param mtime: seconds since 1970, fewer than 2**33
    :param attributes: extended attributes by their full names, which GNU tar sets by
        ``SCHILY.xattr`` records
    """
    records = [record(key, value) for key, value in _overflows(member, owner)]
    records += [record(_keyword(name), value) for name, value in attributes]
    text = b"".join(records)
    uid, gid = (0 if each > _MAX_ID else each for each in owner)
    size = 0 if member.size > _MAX_SIZE else member.size
    block = _block(
        member.name, _TYPES[member.kind], mode, uid, gid, size, mtime, member.target, member.device
    )
    if not text:
        return block
    extended = _block(b"././@PaxHeader", b"x", 0o644, 0, 0, len(text), 0)
    return extended + text + bytes(-len(text) % BLOCK) + block


def _overflows(member: Member, owner: tuple[int, int]) -> Iterable[tuple[bytes, bytes]]:
    """What the header's own fields are too small for."""
    if len(member.name) > _NAME:
        yield b"path", member.name
    if len(member.target) > _NAME:
        yield b"linkpath", member.target
    if member.size > _MAX_SIZE:
        yield b"size", b"%d" % member.size
    for key, number in zip((b"uid", b"gid"), owner, strict=True):
        if number > _MAX_ID:
            yield key, b"%d" % number


def _keyword(name: bytes) -> bytes:
    # A keyword ends at the first "="; this is GNU tar's own way out.
    return b"SCHILY.xattr." + name.replace(b"%", b"%25").replace(b"=", b"%3D")


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    target: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    front = name[:_NAME].ljust(_NAME, b"\0") + b"%07o\0%07o\0%07o\0" % (mode, uid, gid)
    front += b"%011o\0%011o\0" % (size, mtime)
    back = kind + target[:_NAME].ljust(_NAME, b"\0") + b"ustar\x0000" + bytes(64)
    back = (back + b"%07o\0%07o\0" % device).ljust(BLOCK - len(front) - 8, b"\0")
    checksum = sum(front) + sum(back) + 8 * ord(" ")
    return front + b"%06o\0 " % checksum + back
