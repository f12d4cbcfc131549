"""What daemons leave in the kernel, mounts, loop devices and links, and its removal."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import struct
from pathlib import Path

from aio.run import run

_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000


def mounts_below(folder: Path, mountinfo: str | None = None) -> list[str]:
    """Return the mount points at or below ``folder``, the youngest first."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    points = (_unescape(line.split()[4]) for line in text.splitlines())
    top = str(folder)
    return [point for point in points if point == top or point.startswith(top + "/")][::-1]


def _unescape(field: str) -> str:
    return field.encode("latin-1").decode("unicode_escape").encode("latin-1").decode()


def unmount_below(folder: Path) -> None:
    """Unmount everything at or below ``folder``; what is busy is detached lazily."""
    for point in mounts_below(folder):
        run("umount", point, check=False)
    for point in mounts_below(folder):
        run("umount", "--lazy", point, check=False)


def loops_below(folder: Path) -> list[str]:
    """Return the loop devices whose backing file is (or was) below ``folder``."""
    listed = run("losetup", "--list", "--json", "--output", "NAME,BACK-FILE", check=False)
    devices = json.loads(listed or "{}").get("loopdevices", [])
    top = f"{folder}/"
    return [each["name"] for each in devices if (each.get("back-file") or "").startswith(top)]


def remove_tree(folder: Path) -> None:
    """Unmount and detach what uses ``folder``, then remove it without leaving its file system."""
    unmount_below(folder)
    for device in loops_below(folder):
        run("losetup", "--detach", device, check=False)
    if folder.exists():
        run("rm", "-rf", "--one-file-system", str(folder), timeout=600)


def links() -> list[str]:
    """Return the names of the network links of this namespace."""
    return [link["ifname"] for link in json.loads(run("ip", "-json", "link", "show"))]


def tap_is_busy(name: str) -> bool:
    """Tell whether a process holds the tap device ``name``.

    A tap of a switch that was killed stays behind and is not busy: the next one takes it over.
    """
    if name not in links():
        return False
    with open("/dev/net/tun", "rb+", buffering=0) as tun:
        try:
            fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_WITHOUT_HEADER))
        except OSError as error:
            return error.errno == errno.EBUSY
    return False


def delete_link(name: str) -> None:
    """Delete a network link; harmless when there is none."""
    run("ip", "link", "delete", name, check=False)


def program(name: str) -> str:
    """Return the path of a system program, or its bare name when it is not installed."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") or name


def have(command: str) -> bool:
    """Tell whether ``command`` is installed."""
    return shutil.which(command) is not None
