"""May this archive become a server's root file system?  Decided from a stream, unpacking nothing.

LXD unpacks the archive as root.  It has defences of its own; these come first, tell the tenant what
is wrong while nothing has been made yet, and know how much room the server will need.

An archive holds a root file system at its top, or is a unified LXD image: then it is below
``rootfs/``, and LXD is given that alone.  What an archive is, its first entry tells.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from nova_lxd.exception import DiskTooSmall, ImageRefused
from nova_lxd.virt import archive, image, repack, squashfs
from nova_lxd.virt.archive import Kind, Member
from nova_lxd.virt.compression import Damaged, Readable

MAX_ENTRIES = 1_000_000
MAX_NAME = 4095
MAX_COMPONENT = 255
MAX_NAMES = 128 * 1024 * 1024
"""Bytes of all the names together, which are held in memory."""
MAX_UNPACKED = 256 * image.GIB
"""Bytes that any image may need; a flavor usually allows less."""
CLUSTER = 4096
"""Files and directories are counted in whole ones."""

_PIECE = 256 * 1024
"""Bytes of a piece that is passed on, or some more."""
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
_WHITEOUT = (0, 0)
"""How overlayfs marks what is deleted, as containers in a server leave it; no device has it."""


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
    """Read an image to its end and say what it needs; memory use is bounded.

    :param stream: only ``read(n)`` is used, except with a squashfs, which must be seekable
    :raises ImageRefused, DiskTooSmall: see :class:`Screening`
    """
    source = io.BufferedReader(_Unseekable(stream), image.SNIFF_BYTES)
    form = image.check_content(image_id, source.peek())
    if form in image.SEEKABLE:
        stream.seek(0)
    screening = Screening(stream if form in image.SEEKABLE else source, form, image_id, limit_bytes)
    for _ in screening:
        pass
    return screening.facts


class Screening:
    """What LXD may be given of an image: its root file system alone, inspected as it passes.

    Iterating yields the pieces of an archive.  It ends only when the image was found good to its
    last byte, so whoever waits for the end before acting upon it never acts upon a bad one.
    """

    def __init__(
        self,
        stream: BinaryIO,
        form: str,
        image_id: str,
        limit_bytes: int,
        max_bytes: int = MAX_UNPACKED,
    ) -> None:
        """Read nothing yet.

        :param stream: the image, at its first byte; it must be seekable if the form is one of
            :data:`nova_lxd.virt.image.SEEKABLE`
        :param form: one of :data:`nova_lxd.virt.image.ARCHIVES`
        :param limit_bytes: size of the flavor's root disk; 0 for none.  Reading stops as soon as
            the image is known to need more
        :param max_bytes: what no image may exceed
        """
        self._stream = stream
        self._form = form
        self._image_id = image_id
        self._limit = limit_bytes
        self._max = max_bytes
        self._tree = _Tree()

    def __iter__(self) -> Iterator[bytes]:
        """Read the image, once.

        :raises ImageRefused: it is damaged, no root file system, or tries to leave its own tree
        :raises DiskTooSmall: it needs more than ``limit_bytes``
        """
        pieces = self._made_anew if self._form in image.SEEKABLE else self._as_it_came
        try:
            yield from _joined(pieces())
            self._tree.check_complete()
        except Damaged as error:
            reason = f"{error}; upload it again or {_REPACK}"
            raise ImageRefused(self._image_id, reason) from error
        except _Objection as error:
            raise ImageRefused(self._image_id, str(error)) from error

    @property
    def facts(self) -> RootfsFacts:
        """What was found so far; all of it at the end."""
        tree = self._tree
        return RootfsFacts(tree.size, tree.entries, self._form, bool(tree.unified))

    def _as_it_came(self) -> Iterator[bytes]:
        """Pass on the bytes of an archive; of a unified image only its root file system's."""
        tee = _Tee(self._stream)
        for entry in archive.entries(tee, self._form):
            self._add(entry.member)
            if self._tree.unified:
                tee.forget()
                yield from repack.pieces(entry)
            elif self._tree.unified is not None:
                for _ in entry.content:
                    yield from tee.taken()
                yield from tee.taken()
        yield from [repack.END] if self._tree.unified else tee.taken()

    def _made_anew(self) -> Iterator[bytes]:
        """Write an archive of what is in a squashfs."""
        for entry in squashfs.entries(self._stream):
            self._add(entry.member)
            if self._tree.unified:
                raise _Objection(_MIXED)
            yield entry.block
            yield from entry.content
        yield repack.END

    def _add(self, member: Member) -> None:
        self._tree.add(member)
        size = self._tree.size
        if self._limit and size > self._limit:
            raise DiskTooSmall(self._limit, size)
        if size > self._max:
            raise _Objection(f"it unpacks to more than {self._max} bytes; use a smaller image")


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Make pieces of a good size of many small ones."""
    kept: list[bytes] = []
    size = 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(kept)
            kept.clear()
            size = 0
    yield b"".join(kept)


class _Tee:
    """A stream that keeps what was read of it until that is taken."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._kept: list[bytes] | None = []

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        if self._kept is not None:
            self._kept.append(data)
        return data

    def taken(self) -> list[bytes]:
        """Return what was read since the last time."""
        kept, self._kept = self._kept or [], []
        return kept

    def forget(self) -> None:
        """Keep nothing from now on."""
        self._kept = None


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
    :ivar unified: whether they are a unified image's, of which only the root file system's are in
        the tree; None before the first entry that tells
    """

    def __init__(self) -> None:
        self.size = 0
        self.entries = 0
        self.unified: bool | None = None
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
        # What is held until this is known must be little: the top comes once before it.
        if self.unified is None and (path or self.entries > 1):
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
    if member.kind is Kind.BLOCK or member.device not in (_WHITEOUT, _DEVICES.get(path)):
        major, minor = member.device
        raise _Objection(
            f"entry {_shown(path)} is a {member.kind.value} {major}:{minor}, which it must not "
            "bring; make it anew: 'tar -C ROOT --exclude=./dev/* -cz .'"
        )


def _shown(name: bytes) -> str:
    text = ascii(name[:MAX_NAME].decode("utf-8", "backslashreplace"))[1:-1]
    return f"'{text[:28]}'"
