"""A virtual machine without KVM: QEMU's TCG by libvirt, with the image's files as its initramfs."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aio.process import wait_until
from benchmarks.libvirtd import AbsentError, Libvirtd

NAME = "bench-tcg"
MEMORY_MIB = 256  # 64, as the containers have, do not hold this kernel and its initramfs
KERNEL_HINT = (
    "There is no kernel for a virtual machine. Unpack Debian's, which need not be installed:"
    " apt-get download linux-image-VERSION-cloud-amd64 (linux-image-cloud-amd64 depends on it),"
    " dpkg-deb -x PACKAGE FOLDER; and say --kernel FOLDER/boot/vmlinuz-VERSION-cloud-amd64"
)
_UP = b"nova-lxd: "  # the first that the image's process 1 says
_INIT = """#!/bin/sh
mount -t devtmpfs dev /dev && mount -t proc proc /proc && mount -t sysfs sys /sys
exec /sbin/init
"""
_DOMAIN = """
<domain type="qemu">
 <name>{name}</name>
 <memory unit="MiB">{memory}</memory>
 <vcpu>1</vcpu>
 <os>
  <type arch="x86_64" machine="pc">hvm</type>
  <kernel>{kernel}</kernel>
  <initrd>{initrd}</initrd>
  <cmdline>console=ttyS0 quiet</cmdline>
 </os>
 <features><acpi/></features>
 <devices><serial type="file"><source path="{console}"/></serial></devices>
</domain>
"""


@dataclass(frozen=True)
class Machines:
    """Where virtual machines come from, and where they say that they are up."""

    connection: Any
    xml: str
    console: Path

    def up(self) -> None:
        """Start one; its userspace has spoken when this returns."""
        self.console.unlink(missing_ok=True)
        self.connection.createXML(self.xml)
        wait_until(self._says_so, 120, "the virtual machine to say that it is up", interval=0.01)

    def down(self) -> None:
        """Stop it hard; it had no disk."""
        self.connection.lookupByName(NAME).destroy()

    def _says_so(self) -> bool:
        return _UP in self.console.read_bytes()


@contextlib.contextmanager
def machines(daemon: Libvirtd, rootfs: Path, kernel: Path | None) -> Iterator[Machines]:
    """Give virtual machines of this kernel and these files; raise AbsentError without a kernel."""
    kernel = kernel or max(Path("/boot").glob("vmlinuz-*"), default=None)
    if not (kernel and kernel.exists()):
        raise AbsentError(KERNEL_HINT)
    import libvirt

    console, initrd = daemon.folder / "console", daemon.folder / "initrd"
    _pack(rootfs, initrd)
    xml = _DOMAIN.format(
        name=NAME, memory=MEMORY_MIB, kernel=kernel.resolve(), initrd=initrd, console=console
    )
    connection = libvirt.open(daemon.uri("qemu"))
    try:
        yield Machines(connection, xml, console)
    finally:
        connection.close()


def _pack(rootfs: Path, initrd: Path) -> None:
    """Write an initramfs: the files, and as process 1 one that mounts what LXD mounts."""
    init = rootfs / "init"
    init.write_text(_INIT)
    init.chmod(0o755)
    names = b"\n".join(os.fsencode(path.relative_to(rootfs)) for path in rootfs.rglob("*"))
    with initrd.open("wb") as out:
        cpio = ["busybox", "cpio", "-o", "-H", "newc"]
        subprocess.run(cpio, input=names, cwd=rootfs, stdout=out, check=True)
    init.unlink()
