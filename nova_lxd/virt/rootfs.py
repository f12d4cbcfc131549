"""May this archive become a server's root file system?  Decided from a stream, unpacking nothing.

LXD unpacks the archive as root.  It has defences of its own; these come first, tell the tenant what
is wrong while nothing has been made yet, and know how much room the server will need.
"""

from __future__ import annotations

import io
import posixpath
from dataclasses import dataclass
from typing import BinaryIO

from nova_lxd.exception import DiskTooSmall, ImageRefused
from nova_lxd.virt import image
from nova_lxd.virt.archive import Damaged, Kind, Member, members

MAX_ENTRIES = 1_000_000
MAX_NAME = 4095
MAX_COMPONENT = 255
MAX_NAMES = 128 * 1024 * 1024
"""Bytes of all the names together, which are held in memory."""
MAX_UNPACKED = 256 * image.GIB
"""Bytes that any image may need; a flavor usually allows less."""
CLUSTER = 4096
"""Files and directories are counted in whole ones."""

_REPACK = "make it anew: 'tar -C ROOT -cz .'"
_DEVICES = {
    b"dev/null": (1, 3),
    b"dev/zero": (1, 5),
    b"dev/full": (1, 7),
    b"dev/random": (1, 8),
    b"dev/urandom": (1, 9),
    b"dev/tty": (5, 0),
    b"dev/console": (5, 1),
    b"dev/ptmx": (5, 2),
}
"""The nodes that tools leave in a root file system and that give a guest nothing."""


@dataclass(frozen=True, slots=True)
class RootfsFacts:
    """What an inspected root file system needs."""

    unpacked_bytes: int
    entries: int


class _Objection(Exception):
    """Why the archive is refused, and the way out."""


def inspect(stream: BinaryIO, image_id: str, limit_bytes: int) -> RootfsFacts:
    """Read an archive to its end and say what it needs; memory use is bounded.

    :param stream: only ``read(n)`` is used
    :param limit_bytes: size of the flavor's root disk; 0 for none.  Reading stops as soon as the
        archive is known to need more
    :raises ImageRefused: it is damaged, no root file system, or tries to leave its own tree
    :raises DiskTooSmall: it needs more than ``limit_bytes``
    """
    source = io.BufferedReader(_Unseekable(stream), max(image.SNIFF_BYTES, io.DEFAULT_BUFFER_SIZE))
    form = image.check_content(image_id, source.peek())
    tree = _Tree()
    try:
        for member in members(source, form):
            tree.add(member)
            _check_size(tree.size, limit_bytes)
        tree.check_complete()
    except Damaged as error:
        reason = f"{error}; upload it again or {_REPACK}"
        raise ImageRefused(image_id, reason) from error
    except _Objection as error:
        raise ImageRefused(image_id, str(error)) from error
    return RootfsFacts(tree.size, tree.entries)


def _check_size(size: int, limit_bytes: int) -> None:
    if limit_bytes and size > limit_bytes:
        raise DiskTooSmall(limit_bytes, size)
    if size > MAX_UNPACKED:
        raise _Objection(f"it unpacks to more than {MAX_UNPACKED} bytes; use a smaller image")


class _Unseekable(io.RawIOBase):
    """Fills each buffer from a stream that may hand out less than it is asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        filled = 0
        while filled < len(buffer) and (data := self._stream.read(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled


class _Tree:
    """The entries seen so far.

    :ivar size: bytes they need on disk
    """

    def __init__(self) -> None:
        self.size = 0
        self.entries = 0
        self._names = 0
        self._kinds: dict[bytes, Kind] = {b"": Kind.DIRECTORY}
        self._links: dict[bytes, bytes] = {}

    def add(self, member: Member) -> None:
        """Take in one entry.

        :raises _Objection: it may not be part of a root file system
        """
        path = _normal(member.name, "entry")
        self._count(member)
        self._check_parents(path)
        if member.kind in (Kind.CHARACTER, Kind.BLOCK):
            _check_device(path, member)
        kind = self._linked_kind(path, member) if member.kind is Kind.HARDLINK else member.kind
        self._check_new(path, kind)
        self._note(path, kind)
        if kind is Kind.SYMLINK and path.count(b"/") < 2:
            self._links[path] = member.target
        if {b"metadata.yaml", b"rootfs"} <= self._kinds.keys():
            raise _Objection(
                "it is a unified LXD image; upload its root file system alone: "
                "'tar -xf IMAGE; tar -C rootfs -cz .'"
            )

    def check_complete(self) -> None:
        """Check what only the whole archive tells.

        :raises _Objection: there is nothing to start in it
        """
        folder = self._resolved(b"sbin")
        if self._kinds.get(folder + b"/init") not in (Kind.FILE, Kind.SYMLINK):
            raise _Objection(
                "it has no /sbin/init to start; install an init (systemd-sysv, openrc, busybox) "
                f"into it and {_REPACK}"
            )

    def _count(self, member: Member) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise _Objection(f"it has more than {MAX_ENTRIES} entries; remove some and {_REPACK}")
        if member.kind is Kind.DIRECTORY:
            self.size += CLUSTER
        self.size += -(-member.size // CLUSTER) * CLUSTER

    def _note(self, path: bytes, kind: Kind) -> None:
        self._names += len(path)
        if self._names > MAX_NAMES:
            raise _Objection(f"its names are more than {MAX_NAMES} bytes long; {_REPACK}")
        self._kinds[path] = kind

    def _check_parents(self, path: bytes) -> None:
        """Nothing may be written through a link, wherever it leads."""
        parent = path.rpartition(b"/")[0]
        while (kind := self._kinds.get(parent)) is None:
            self._note(parent, Kind.DIRECTORY)
            parent = parent.rpartition(b"/")[0]
        if kind is not Kind.DIRECTORY:
            through = f"goes through the {kind.value} {_shown(parent)}"
            raise _Objection(f"entry {_shown(path)} {through}; {_REPACK}")

    def _check_new(self, path: bytes, kind: Kind) -> None:
        # Only a directory may come again; of anything else readers keep the first or the last.
        repeated = path in self._kinds
        if repeated and {kind, self._kinds[path]} != {Kind.DIRECTORY}:
            raise _Objection(f"entry {_shown(path)} is there twice; {_REPACK}")

    def _linked_kind(self, path: bytes, member: Member) -> Kind:
        target = _normal(member.target, "hard link target")
        kind = self._kinds.get(target, Kind.DIRECTORY)
        if kind is Kind.DIRECTORY:
            raise _Objection(
                f"hard link {_shown(path)} leads to {_shown(target)}, no file that is in it "
                f"so far; {_REPACK}"
            )
        return kind

    def _resolved(self, folder: bytes) -> bytes:
        for _ in self._links:
            if folder not in self._links:
                break
            parent = b"/" + folder.rpartition(b"/")[0]
            joined = posixpath.join(parent, self._links[folder])
            folder = posixpath.normpath(joined).lstrip(b"/")
        return folder


def _normal(name: bytes, what: str) -> bytes:
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in parts:
        raise _Objection(f"{what} {_shown(name)} leads out of the archive; {_REPACK}")
    if len(name) > MAX_NAME or any(len(part) > MAX_COMPONENT for part in parts):
        raise _Objection(f"{what} {_shown(name)} has too long a name; rename it and {_REPACK}")
    return b"/".join(parts)


def _check_device(path: bytes, member: Member) -> None:
    if member.kind is Kind.BLOCK or _DEVICES.get(path) != member.device:
        major, minor = member.device
        raise _Objection(
            f"entry {_shown(path)} is a {member.kind.value} {major}:{minor}, which it must not "
            "bring; make it anew: 'tar -C ROOT --exclude=./dev/* -cz .'"
        )


def _shown(name: bytes) -> str:
    text = ascii(name[:MAX_NAME].decode("utf-8", "backslashreplace"))[1:-1]
    return f"'{text[:28]}'"
