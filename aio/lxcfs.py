"""A lxcfs of our own: guests see their own CPUs, memory and uptime in /proc, not the host's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from aio import kernel
from aio.errors import AioError
from aio.process import Process

_FUSE = Path("/dev/fuse")
_HOOK = Path("/usr/share/lxcfs/lxc.mount.hook")
_SYSTEMS_MOUNT = "/var/lib/lxcfs"


class Lxcfs:
    """lxcfs with its mount below ``folder``; ``owner`` marks the process as in ``Process``."""

    def __init__(self, folder: Path, owner: str) -> None:
        self.mount = folder / "mount"
        self.hook = folder / "mount.hook"
        self.process = Process("lxcfs", folder, folder, owner=owner)

    @staticmethod
    def works_here() -> bool:
        """Tell whether it is installed and the kernel has FUSE; without it guests work as well."""
        return bool(shutil.which("lxcfs")) and _HOOK.exists() and os.access(_FUSE, os.W_OK)

    def start(self, seconds: float = 30) -> None:
        """Start it, unless it runs or cannot run here, and write the hook that containers call.

        Where it fails, as in a chroot, guests see the host's numbers and work as well.
        """
        if self.process.pid or not self.works_here():
            return
        self.hook.unlink(missing_ok=True)
        kernel.unmount_below(self.mount)  # of one that was killed
        self.mount.mkdir(parents=True, exist_ok=True)
        pid_file = self.mount.with_name("own.pid")
        self.process.start(["lxcfs", "--pidfile", str(pid_file), str(self.mount)])
        try:
            self.process.wait_ready(self._serves, seconds)
        except AioError:
            self.process.stop()
            return
        self.hook.write_text(_HOOK.read_text().replace(_SYSTEMS_MOUNT, str(self.mount)))
        self.hook.chmod(0o755)

    def _serves(self) -> bool:
        return (self.mount / "proc" / "uptime").exists()

    def healthy(self) -> bool:
        """Tell whether it runs and serves; one that cannot run here is not ill."""
        return not self.hook.exists() or bool(self.process.pid and self._serves())
