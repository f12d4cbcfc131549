"""Build the busybox guest: a root filesystem under 5 MB that boots in a fraction of a second.

The scripts and configuration are the tree `rootfs/` beside this file. What is added here are
Debian's static busybox with a link for each applet, and dropbear with its shared libraries.
"""

import gzip
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from aio.errors import AioError

SKELETON = Path(__file__).with_name("rootfs")
PROGRAMS = {  # path in the image -> Debian program, its package
    "usr/sbin/dropbear": ("dropbear", "dropbear-bin"),
    "usr/bin/dropbearkey": ("dropbearkey", "dropbear-bin"),
    "usr/bin/ssh": ("dbclient", "dropbear-bin"),
}
DIRECTORIES = {  # path -> mode, where it is not 0755
    "dev": 0o755,
    "etc/dropbear": 0o700,
    "home": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "var/lib/cloud": 0o755,
    "var/log": 0o755,
}
LINKS = {"var/run": "../run"}  # where scripts written for other clouds look for udhcpc's pid file
PRIVATE = {"etc/shadow": 0o600}
SEARCH_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def build_busybox(path: Path) -> Path:
    """Write the root filesystem as a .tar.gz to `path`; the same inputs give the same bytes.

    Raises AioError when a Debian package it is made from is missing.
    """
    entries: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    for info, content in (*_programs(), *_applets(), *_skeleton(), *_directories()):
        entries[info.name] = (info, content)
    for name in list(entries):
        for parent in list(Path(name).parents)[:-1]:
            entries.setdefault(str(parent), (_directory(str(parent), 0o755), b""))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _write(part, [entries[name] for name in sorted(entries)])
    part.replace(path)
    return path


def _write(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))


def _skeleton() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for source in SKELETON.rglob("*"):
        if not source.is_file():
            continue
        name = str(source.relative_to(SKELETON))
        mode = 0o755 if source.stat().st_mode & 0o111 else 0o644
        yield _file(name, source.read_bytes(), PRIVATE.get(name, mode))


def _directories() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for name, mode in DIRECTORIES.items():
        yield _directory(name, mode), b""
    home = _directory("home/cloud", 0o755)
    home.uid = home.gid = 1000
    yield home, b""
    for name, target in LINKS.items():
        yield _link(name, target), b""


def _applets() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield busybox and, for each of its applets, a relative link."""
    busybox = _find("busybox", "busybox-static")
    if _libraries(busybox):
        raise AioError(f"{busybox} is not static. Install it: apt-get install busybox-static")
    yield _file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in _run([str(busybox), "--list-full"]).split():
        if applet not in ("bin/busybox", "linuxrc"):
            yield _link(applet, os.path.relpath("bin/busybox", os.path.dirname(applet))), b""


def _programs() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for name, (program, package) in PROGRAMS.items():
        source = _find(program, package)
        yield _file(name, source.read_bytes(), 0o755)
        for library in _libraries(source):
            yield _file(library.lstrip("/"), Path(library).read_bytes(), 0o755)


def _libraries(program: Path) -> list[str]:
    """Return the absolute paths of the shared libraries and the loader that `program` needs."""
    result = subprocess.run(["ldd", str(program)], check=False, capture_output=True, text=True)
    if result.returncode:  # "not a dynamic executable"
        return []
    if "not found" in result.stdout:
        raise AioError(f"{program} misses a library:\n{result.stdout}")
    return re.findall(r"(?:=>\s+|^\s+)(/\S+) \(0x", result.stdout, re.MULTILINE)


def _find(program: str, package: str) -> Path:
    found = shutil.which(program, path=SEARCH_PATH)
    if not found:
        raise AioError(f"{program} is missing. Install it: apt-get install {package}")
    return Path(found).resolve()


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _file(name: str, content: bytes, mode: int) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = mode
    return info, content


def _directory(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = mode
    return info


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.SYMTYPE
    info.linkname = target
    info.mode = 0o777
    return info
