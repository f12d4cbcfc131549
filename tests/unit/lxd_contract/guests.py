"""Root file systems for the contract: two small init scripts around busybox."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

_INIT = """#!/bin/sh
echo guest is up
trap '{reaction}' PWR
while :; do sleep 1 & wait $!; done
"""


def metadata(**properties: str) -> bytes:
    """Return a metadata tarball as the driver writes it."""
    text = "architecture: x86_64\ncreation_date: 1700000000\n"
    text += "".join(
        ["properties:\n", *(f"  {key}: {value}\n" for key, value in properties.items())]
        if properties
        else []
    )
    return tarball({"metadata.yaml": text.encode()})


def rootfs(*, deaf: bool) -> bytes:
    """Return a root file system whose init halts when asked to, or does not listen.

    Without busybox on the machine it cannot be started, which is enough for the fake.
    """
    busybox = shutil.which("busybox")
    binary = Path(busybox).read_bytes() if busybox else b"#!"
    script = _INIT.format(reaction="" if deaf else "exit 0").encode()
    files = {"bin/busybox": binary, "sbin/init": script}
    files |= {"bin/chpasswd": b"#!/bin/sh\nexec cat >/dev/null\n"}
    links = {f"bin/{name}": "busybox" for name in ("sh", "sleep", "echo", "cat")}
    return tarball(files, links, folders=("dev", "proc", "sys", "tmp"))


def tarball(files: dict[str, bytes], links: dict[str, str] | None = None, folders=()) -> bytes:
    """Return an uncompressed tarball."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in folders:
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()
