"""May this archive become a server's root file system?  Decided from a stream, unpacking nothing.

LXD unpacks the archive as root.  It has defences of its own; these come first, tell the tenant what
is wrong while nothing has been made yet, and know how much room the server will need.

An archive holds a root file system at its top, or is a unified LXD image: then it is below
``rootfs/``, and LXD is given that alone.  What an archive is, its first entry tells.
"""

from __future__ import annotations

import io
import posixpath
from dataclasses import dataclass
from typing import BinaryIO

from nova_lxd.exception import DiskTooSmall, ImageRefused
from nova_lxd.virt import image, repack
from nova_lxd.virt.archive import Kind, Member, members
from nova_lxd.virt.compression import Damaged

MAX_ENTRIES = 1_000_000
MAX_NAME = 4095
MAX_COMPONENT = 255
MAX_NAMES = 128 * 1024 * 1024
"""Bytes of all the names together, which are held in memory."""
MAX_UNPACKED = 256 * image.GIB
"""Bytes that any image may need; a flavor usually allows less."""
CLUSTER = 4096
"""Files and directories are counted in whole ones."""

_ROOT = repack.ROOT
_BESIDE_ROOT = (b"metadata.yaml", b"templates")
"""What a unified image holds beside its root file system."""

_REPACK = "make it anew: 'tar -C ROOT -cz .'"
_MIXED = (
    "it mixes a root file system with parts of a unified LXD image; upload the root file system "
    "alone: 'tar -C rootfs -cz .'"
)
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
    form: str
    """One of :data:`nova_lxd.virt.image.ARCHIVES`."""
    unified: bool = False
    """Whether it is below ``rootfs/``, in a unified LXD image."""


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
    return RootfsFacts(tree.size, tree.entries, form, tree.unified)


def tarball(stream: BinaryIO, facts: RootfsFacts) -> BinaryIO:
    """Return what LXD may be given of an archive that was inspected: a root file system alone.

    :param stream: the archive, at its first byte
    """
    if not facts.unified:
        return stream
    return io.BufferedReader(repack.RootOnly(stream, facts.form), image.SNIFF_BYTES)


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
    :ivar unified: whether they are a unified image's; only the root file system's are in the tree
    """

    def __init__(self) -> None:
        self.size = 0
        self.entries = 0
        self.unified = False
        self._begun = False
        self._names = 0
        self._kinds: dict[bytes, Kind] = {b"": Kind.DIRECTORY}
        self._links: dict[bytes, bytes] = {}

    def add(self, member: Member) -> None:
        """Take in one entry.

        :raises _Objection: it may not be part of a root file system
        """
        self._count_entry()
        path = _normal(member.name, "entry")
        if self._is_beside_root(path):
            return
        if self.unified:
            path = path[len(_ROOT) :].lstrip(b"/")
        self._count_size(member)
        self._check_parents(path)
        if member.kind in (Kind.CHARACTER, Kind.BLOCK):
            _check_device(path, member)
        kind = self._linked_kind(path, member) if member.kind is Kind.HARDLINK else member.kind
        self._check_new(path, kind)
        self._note(path, kind)
        if kind is Kind.SYMLINK and path.count(b"/") < 2:
            self._links[path] = member.target
        if {b"metadata.yaml", b"rootfs"} <= self._kinds.keys():
            raise _Objection(_MIXED)

    def _is_beside_root(self, path: bytes) -> bool:
        """Tell what only LXD would want of a unified image from its root file system.

        :raises _Objection: it is neither
        """
        top = path.partition(b"/")[0]
        if path and not self._begun:
            self._begun = True
            self.unified = top in (_ROOT, *_BESIDE_ROOT)
        if not self.unified or top == _ROOT:
            return False
        if path and top not in _BESIDE_ROOT:
            raise _Objection(_MIXED)
        return True

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

    def _count_entry(self) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise _Objection(f"it has more than {MAX_ENTRIES} entries; remove some and {_REPACK}")

    def _count_size(self, member: Member) -> None:
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
        if self.unified:
            # Of what is beside it the tree knows nothing.
            target = target[len(_ROOT) + 1 :] if target.startswith(_ROOT + b"/") else b""
        kind = self._kinds.get(target, Kind.DIRECTORY)
        if kind is Kind.DIRECTORY:
            raise _Objection(
                f"hard link {_shown(path)} leads to {_shown(member.target)}, no file that is in it "
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
