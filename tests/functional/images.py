"""Image files for Glance: a good one and the bad ones that tests need."""

from __future__ import annotations

import functools
import gzip
import subprocess
import tarfile
from pathlib import Path

from aio.images.busybox import build_busybox


class Images:
    """Bytes of images, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @functools.cached_property
    def busybox(self) -> bytes:
        """A root file system that boots."""
        return build_busybox(self._folder / "busybox.tar.gz").read_bytes()

    @functools.cached_property
    def squashfs(self) -> bytes:
        """The same root file system in a squashfs."""
        command = ["mksquashfs", "-", str(path := self._folder / "busybox.squashfs"), "-tar"]
        archive = gzip.decompress(self.busybox)
        subprocess.run(command, input=archive, stdout=subprocess.DEVNULL, check=True)
        return path.read_bytes()

    @property
    def truncated(self) -> bytes:
        """The same, cut off in the middle."""
        return self.busybox[: len(self.busybox) // 2]

    @functools.cached_property
    def large(self) -> bytes:
        """A root file system of 1.25 GiB that is small while it is packed."""
        size = 20 * 2**26
        header = tarfile.TarInfo("var/large")
        header.size = size
        zeros = gzip.compress(bytes(2**26), 1)
        return gzip.compress(header.tobuf()) + 20 * zeros + gzip.compress(bytes(1024))

    @property
    def qcow2(self) -> bytes:
        """The disk of a virtual machine: its header is enough to be one."""
        header = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (16).to_bytes(4, "big")
        return header + (2**20).to_bytes(8, "big") + bytes(2**16)

    @property
    def garbage(self) -> bytes:
        """No format at all."""
        return b"this is not a root file system\n" * 1000
