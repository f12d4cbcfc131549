"""``nova-lxd-image``: the driver's verdict on an image, before it is uploaded.

It reads one file with the code that inspects tenants' images on a compute host.  It needs no
nova.conf, no LXD and no Nova, so it runs where images are built.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import BinaryIO

from nova_lxd.exception import DiskTooSmall, ImageRefused
from nova_lxd.virt import image, rootfs

ACCEPTED, REFUSED, UNREADABLE = range(3)
"""What the command ends with; argparse ends with 2 as well."""

_UPLOAD = (
    "openstack image create --disk-format raw --container-format bare "
    "--property hypervisor_type=lxd --property hw_vm_mode=exe --min-disk {} --file {} {}"
)
_UNIFIED = "yes: only what is below rootfs/ is used; metadata.yaml and templates are ignored"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a file; of a refused one that is little."""

    file: str
    format: str
    unified: bool | None = None
    entries: int | None = None
    unpacked_bytes: int | None = None
    min_disk_gib: int | None = None
    """The smallest root disk of a flavor that holds both the file and what is in it."""
    upload: str | None = None
    """The command that gives it to Glance."""
    reason: str | None = None
    """Why it is refused, as a tenant would read it in the server's fault."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        with _opened(arguments.file) as stream:
            verdict = judge(stream, arguments.file, arguments.disk * image.GIB)
    except OSError as error:
        print(f"nova-lxd-image: {arguments.file} cannot be read: {error}", file=sys.stderr)
        return UNREADABLE
    print(_as_json(verdict) if arguments.json else _as_text(verdict))
    return REFUSED if verdict.reason else ACCEPTED


def judge(stream: BinaryIO, name: str, disk_bytes: int) -> Verdict:
    """Inspect an image as a compute host does.

    :param stream: the file, which can seek, at its first byte
    :param name: what it is called; ``-`` has no name
    :param disk_bytes: the root disk that it is to fit; 0 for any
    :raises OSError: it cannot be read
    """
    form = image.sniff(stream.read(image.SNIFF_BYTES))
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    try:
        facts = rootfs.inspect(stream, "", 0)
    except ImageRefused as error:
        return Verdict(name, form, reason=error.reason)
    # Nova's API compares the file itself with the disk; a tar of tiny files is the larger one.
    needed = max(size, facts.unpacked_bytes)
    disk = max(1, -(-needed // image.GIB))
    return Verdict(
        file=name,
        format=facts.form,
        unified=facts.unified,
        entries=facts.entries,
        unpacked_bytes=facts.unpacked_bytes,
        min_disk_gib=disk,
        upload=_upload(name, disk),
        reason=str(DiskTooSmall(disk_bytes, needed)) if 0 < disk_bytes < needed else None,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nova-lxd-image", description="Tell what nova-lxd would say of an image."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser(
        "inspect",
        help="inspect an image file",
        description="Inspect an image file as a compute host does before a server is made of it.",
        epilog="Exit status: 0 accepted, 1 refused, 2 wrong usage or an unreadable file.",
    )
    inspect.add_argument("file", metavar="FILE", help="the image; '-' reads standard input")
    inspect.add_argument(
        "--disk", metavar="GIB", type=_gib, default=0, help="root disk of the flavor it is to fit"
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _gib(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """Open the file; standard input is copied into one without a name, which can seek."""
    if name != "-":
        with open(name, "rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.seek(0)
        yield copy


def _upload(file: str, disk: int) -> str:
    if file == "-":
        return _UPLOAD.format(disk, "FILE", "NAME")
    name = os.path.basename(file).partition(".tar")[0]
    return _UPLOAD.format(disk, shlex.quote(file), shlex.quote(name))


def _as_json(verdict: Verdict) -> str:
    return json.dumps({**asdict(verdict), "accepted": verdict.reason is None})


def _as_text(verdict: Verdict) -> str:
    lines = {"file": verdict.file, "format": verdict.format}
    if verdict.upload is not None:
        lines |= {
            "unified LXD image": _UNIFIED if verdict.unified else "no",
            "entries": str(verdict.entries),
            "unpacked bytes": str(verdict.unpacked_bytes),
            "smallest flavor disk": f"{verdict.min_disk_gib} GiB",
            "upload": verdict.upload,
        }
    lines["verdict"] = f"refused: {verdict.reason}" if verdict.reason else "accepted"
    return "\n".join(f"{key}: {value}" for key, value in lines.items())
