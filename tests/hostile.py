"""Images that somebody evil, or careless, might upload; and what becomes of each.

One table for two rings: the unit tests give every row to ``rootfs.inspect``, the functional ones
give it to Nova's API and look at a real LXD afterwards.  The user guide shows it, too::

    python -m tests.hostile >doc/source/user/hostile-images.inc
"""

from __future__ import annotations

import gzip
import io
import lzma
import random
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from nova_lxd.exception import DiskTooSmall, FlavorRefused, ImageRefused
from tests.unit import squash
from tests.unit.archives import (
    COMPRESS,
    Entry,
    device,
    entry,
    folder,
    hardlink,
    header,
    pax,
    record,
    seal,
    symlink,
    tar,
    unified,
)

MIB = 1024**2
GIB = 1024**3
_END = bytes(1024)
_BLOCK = 512

System = list[Entry]
"""The entries of a root file system that can be started."""


@dataclass(frozen=True)
class Row:
    """One image.

    :ivar build: makes its bytes around a root file system
    :ivar words: what the refusal says; empty for an image that is accepted
    :ivar glance: what Glance says of it, where that is not the usual
    :ivar disk_gb: root disk of the flavor
    :ivar by_api: whether Nova's API refuses it before any driver sees it
    """

    name: str
    build: Callable[[System], bytes]
    words: str = ""
    error: type[Exception] = ImageRefused
    glance: Mapping[str, object] = field(default_factory=dict)
    disk_gb: int = 1
    by_api: bool = False

    @property
    def accepted(self) -> bool:
        """Whether a server may be made of it."""
        return not self.words


# -- parts of images


def _squashed(*options: str, more: Iterable[Entry] = ()) -> Callable[[System], bytes]:
    """A squashfs of a system with more entries."""
    return lambda system: squash.squashed([*system, *more], *options)


def _squashfs_bomb(system: System) -> bytes:
    return squash.crafted([(b"big", 1)], squash.file(size=3 * GIB, words=[0]))


def _plus(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> Callable[[System], bytes]:
    """A system with more entries behind it."""
    return lambda system: tar([*system, *entries], form)


def _unified(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> Callable[[System], bytes]:
    """A unified LXD image with more entries behind it."""
    return lambda system: tar([*unified(system), *entries], form)


def _around(before: Iterable[Entry], after: Iterable[Entry] = ()) -> Callable[[System], bytes]:
    """A root file system below ``rootfs``, and other things beside it."""
    return lambda system: tar([*before, *unified(system)[1:-2], *after])


def _bytes(content: bytes) -> Callable[[System], bytes]:
    return lambda system: content


def _raw(*blocks: bytes) -> Callable[[System], bytes]:
    """A system with raw blocks before its end mark."""
    return lambda system: _open(tar(system)) + b"".join(blocks) + _END


def _open(archive: bytes) -> bytes:
    """Take the end mark off an archive."""
    blocks = archive.rstrip(b"\0")
    return blocks.ljust(-(-len(blocks) // _BLOCK) * _BLOCK, b"\0")


def _cut(form: str, part: float) -> Callable[[System], bytes]:
    """An archive of which the end is missing."""

    def build(system: System) -> bytes:
        noise = entry("noise", content=random.Random(1).randbytes(50_000))
        plain = tar([*system, noise])
        data = COMPRESS[form](_open(plain) if form == "tar" else plain)
        return data[: int(len(data) * part)]

    return build


def _bomb(form: str, mebibytes: int, files: int = 1) -> Callable[[System], bytes]:
    """Files of zeros that are next to nothing while they are packed."""
    compress = COMPRESS[form]

    def build(system: System) -> bytes:
        each = compress(bytes(MIB)) * (mebibytes // files)
        size = mebibytes // files * MIB
        heads = [compress(_sized(f"zeros{number}", size)) for number in range(files)]
        return compress(_open(tar(system))) + b"".join(h + each for h in heads) + compress(_END)

    return build


def _sized(name: str, size: int) -> bytes:
    """A header of a file of any size."""
    block = bytearray(header(name=name))
    block[124:136] = b"\x80" + size.to_bytes(11, "big")
    return seal(block)


def _hole(size: int) -> bytes:
    """A file that is one hole, in GNU's old format."""
    real = b"\x80" + size.to_bytes(11, "big")
    return header(name="hole", kind=b"S", spoil={483: real})


def _pax_hole(size: int) -> bytes:
    """The same in POSIX' format."""
    keys = {"major": "1", "minor": "0", "name": "hole", "realsize": str(size)}
    records = b"".join(record(f"GNU.sparse.{key}", value) for key, value in keys.items())
    return pax(records) + header(name="GNUSparseFile.0/hole", size=512) + b"0\n".ljust(512, b"\0")


def _disk(at: int, magic: bytes, size: int = 65536) -> bytes:
    return bytes(at) + magic + bytes(size - at - len(magic))


def _qcow2(backing: bytes = b"") -> bytes:
    """A header of QEMU's format, version 3; a backing file is named behind it."""
    at = 112 if backing else 0
    numbers = [(3, 4), (at, 8), (len(backing), 4), (16, 4), (GIB, 8)]
    head = b"QFI\xfb" + b"".join(number.to_bytes(size, "big") for number, size in numbers)
    return head.ljust(112, b"\0") + backing


def _gpt() -> bytes:
    """A disk with a protective boot record and a partition table."""
    boot = bytes(450) + b"\xee" + bytes(59) + b"\x55\xaa"
    return (boot + b"EFI PART").ljust(65536, b"\0")


def _marked(at: int, magic: bytes) -> Callable[[System], bytes]:
    """A good archive whose first header bears the marks of another format as well."""

    def build(system: System) -> bytes:
        data = bytearray(tar(system))
        data[at : at + len(magic)] = magic
        return seal(data[:_BLOCK]) + bytes(data[_BLOCK:])

    return build


def _zip(system: System) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as writer:
        writer.writestr("sbin/init", "#!/bin/sh\n")
    return packed.getvalue()


def _corrupt_squashfs(system: System) -> bytes:
    """A superblock with nothing that it promises behind it."""
    return b"hsqs" + b"\xff" * 92 + bytes(4000)


_METADATA = b"""\
architecture: x86_64
creation_date: 1
properties: {description: evil}
templates:
  /etc/passwd: {when: [create, copy, start], template: evil.tpl}
  ../../../../../../etc/nova-lxd-hostile: {when: [create, start], template: ../../backup.yaml}
"""
_LAUGHS = b"a: &a [x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 110)
)
_BACKUP = b"container: {name: ../../x}\nexpanded_devices: {x: {type: disk, source: /}}\n"
_TAR_FORMS = {"USTAR": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "PAX": tarfile.PAX_FORMAT}
_LINK = symlink("rootfs", "/etc")
_TEMPLATE = entry("templates/evil.tpl", content=b"{{ config_get('user.x', '') }}")

# -- the table

METADATA = (
    Row("templates", _around([entry("metadata.yaml", content=_METADATA), _TEMPLATE])),
    Row("metadata.yaml a symbolic link", _around([symlink("metadata.yaml", "/etc/shadow")])),
    Row("templates a symbolic link", _around([], [symlink("templates", "/"), _TEMPLATE])),
    Row(
        "metadata.yaml a YAML bomb of 32 MiB",
        _around([entry("metadata.yaml", content=_LAUGHS.ljust(32 * MIB, b"#"))]),
    ),
    Row(
        "a root with backup.yaml, metadata.yaml and exec-output of its own",
        _plus(
            entry("backup.yaml", content=_BACKUP),
            entry("metadata.yaml", content=_METADATA),
            symlink("exec-output", "/etc"),
        ),
    ),
    Row("backup.yaml beside rootfs", _unified(entry("backup.yaml", content=_BACKUP)), "mixes"),
    Row("backup.yaml a symbolic link", _unified(symlink("backup.yaml", "/etc/x")), "mixes"),
    Row("exec-output a symbolic link", _unified(symlink("exec-output", "/etc")), "mixes"),
    Row("rootfs.img beside rootfs", _unified(symlink("rootfs.img", "/dev/sda")), "mixes"),
    Row(
        "rootfs a symbolic link before it is a directory",
        _around([entry("metadata.yaml"), _LINK]),
        "there twice",
    ),
    *(
        Row(f"rootfs a symbolic link afterwards, {name}", _unified(_LINK, form=form), "there twice")
        for name, form in _TAR_FORMS.items()
    ),
    Row(
        "a hard link to metadata.yaml", _unified(hardlink("rootfs/x", "metadata.yaml")), "hard link"
    ),
    Row(
        "a root mixed with a unified image",
        _plus(entry("metadata.yaml"), folder("rootfs"), entry("rootfs/x")),
        "mixes",
    ),
)
"""What LXD would act upon; it never gets it."""

PATHS = (
    Row("the top a symbolic link", _plus(symlink(".", "/etc")), "there twice"),
    Row("an absolute name", _plus(entry("/etc/cron.d/x")), "out of the archive"),
    Row("a name with ..", _plus(entry("../../etc/cron.d/x")), "out of the archive"),
    Row("a name with .. in the middle", _plus(entry("a/../../x")), "out of the archive"),
    Row(
        "a name with .. in a PAX header",
        _raw(pax(record("path", "../x")), header()),
        "out of the archive",
    ),
    Row(
        "a name with .. in a GNU header",
        _plus(entry("d/" * 80 + "../" * 90), form=tarfile.GNU_FORMAT),
        "out of the archive",
    ),
    Row("rootfs/..", _unified(entry("rootfs/../backup.yaml")), "out of the archive"),
    Row("a hard link to /etc/shadow", _plus(hardlink("x", "/etc/shadow")), "out of the archive"),
    Row("a hard link with ..", _plus(hardlink("x", "../../etc/shadow")), "out of the archive"),
    Row(
        "a hard link out in a PAX header",
        _raw(pax(record("linkpath", "/etc/shadow")), header(kind=tarfile.LNKTYPE)),
        "out of the archive",
    ),
    Row("a hard link to nothing", _plus(hardlink("x", "etc/gone")), "no file that is in it"),
    Row(
        "a file through a symbolic link", _plus(symlink("a", "/etc"), entry("a/x")), "goes through"
    ),
    Row(
        "a file through a link to a link",
        _plus(symlink("a", "/"), hardlink("b", "a"), entry("b/x")),
        "goes through",
    ),
    Row("a file through a file", _plus(entry("a"), entry("a/b")), "goes through"),
    Row("a file twice", _plus(entry("a"), entry("a")), "there twice"),
    Row("a file twice, spelt differently", _plus(entry("a"), entry(".//a")), "there twice"),
    Row("a directory that becomes a link", _plus(folder("a"), symlink("a", "/")), "there twice"),
    Row("a block device", _plus(device("dev/sda", tarfile.BLKTYPE, 8, 0)), "block device 8:0"),
    Row(
        "a block device outside /dev",
        _plus(device("home/disk", tarfile.BLKTYPE, 8, 0)),
        "block device 8:0",
    ),
    Row(
        "the host's memory", _plus(device("dev/mem", tarfile.CHRTYPE, 1, 1)), "character device 1:1"
    ),
    Row(
        "the host's memory as /dev/null",
        _plus(device("dev/null", tarfile.CHRTYPE, 1, 1)),
        "character device 1:1",
    ),
    Row("a name of 300 characters", _plus(entry("x" * 300)), "too long a name"),
    Row("no /sbin/init", _bytes(tar([folder("."), entry("bin/sh")])), "/sbin/init"),
    Row("a folder as /sbin/init", _bytes(tar([folder("sbin/init")])), "/sbin/init"),
    Row(
        "what 'docker save' writes",
        _bytes(tar([entry("manifest.json"), entry("layer/layer.tar")])),
        "/sbin/init",
    ),
)
"""Ways out of the tree, and what must not be in it."""

SIZES = (
    *(
        Row(f"a {form} bomb of 900 MiB", _bomb(form, 900), "times its size")
        for form in COMPRESS
        if form != "tar"
    ),
    Row("6 GiB of zeros in a tar.zst", _bomb("tar.zst", 6144, 96), "times its size", disk_gb=8),
    Row("the same for a small flavor", _bomb("tar.zst", 6144, 96), "times its size"),
    Row("a file of 6 GiB for a small flavor", _bomb("tar.zst", 6144), "needs", DiskTooSmall),
    Row("a sparse file of 1 TiB, GNU", _raw(_hole(1024 * GIB)), "needs", DiskTooSmall),
    Row("a sparse file of 1 TiB, PAX", _raw(_pax_hole(1024 * GIB)), "needs", DiskTooSmall),
    Row("a file of 8 EiB that is not there", _raw(_sized("x", 2**63)), "needs", DiskTooSmall),
    Row(
        "an extended header of 4 GiB",
        _raw(header(kind=b"L", size=2**32)),
        "headers are too large",
    ),
    Row(
        "an xz stream that wants 512 MiB of memory",
        lambda system: lzma.compress(
            tar(system),
            filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 * MIB}],
        ),
        "corrupt",
    ),
)
"""What would fill a disk or a memory."""

DAMAGE = (
    Row("nothing", _bytes(b""), "unknown"),
    Row("text", _bytes(b"this is not a root file system\n" * 1000), "unknown"),
    Row("noise", _bytes(b"\1" + random.Random(2).randbytes(65535)), "unknown"),
    *(
        Row(f"a {form} cut off at {part:.0%}", _cut(form, part), "truncated")
        for form in COMPRESS
        for part in (0.05, 0.5, 0.98)
    ),
    Row("a tar without its end mark", _cut("tar", 1), "truncated"),
    Row(
        "a tar.gz with garbage behind it",
        lambda system: gzip.compress(tar(system)) + b"garbage" * 9,
        "corrupt",
    ),
    Row(
        "a second archive behind the end mark",
        lambda system: tar(system) + tar([entry("../x")]),
        "follows its end mark",
    ),
    Row("a wrong checksum", _raw(header()[:-1] + b"x"), "checksum"),
    Row("an entry of an unknown type", _raw(header(kind=b"Z")), "unknown type"),
    Row(
        "two names for one entry",
        _raw(pax(record("path", "a") + record("path", "b")), header()),
        "ambiguous",
    ),
    Row(
        "one name for many entries", _raw(pax(record("path", "x"), b"g"), header()), "many entries"
    ),
    Row(
        "a symbolic link with content",
        _raw(header(kind=tarfile.SYMTYPE, size=512), bytes(512)),
        "with content",
    ),
)
"""What is broken, or what two readers could understand differently."""

FORMATS = (
    Row("a qcow2 disk", _bytes(_qcow2().ljust(65536, b"\0")), "qcow2"),
    Row("a qcow2 disk with a backing file", _bytes(_qcow2(b"/etc/shadow")), "qcow2"),
    Row("a vmdk disk", _bytes(_disk(0, b"KDMV")), "vmdk"),
    Row(
        "a vmdk descriptor of a host's file",
        _bytes(b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n'),
        "vmdk",
    ),
    Row("a vdi disk", _bytes(_disk(0x40, b"\x7f\x10\xda\xbe")), "vdi"),
    Row("a vhdx disk", _bytes(_disk(0, b"vhdxfile")), "vhdx"),
    Row("a vhd disk", _bytes(_disk(0, b"conectix")), "vhd"),
    Row("a qed disk", _bytes(_disk(0, b"QED\0")), "qed"),
    Row("a LUKS volume", _bytes(_disk(0, b"LUKS\xba\xbe\0\1")), "luks"),
    Row("an ISO 9660 disc", _bytes(_disk(0x8001, b"CD001")), "iso"),
    Row("a partitioned disk, GPT", _bytes(_gpt()), "gpt"),
    Row("a partitioned disk, MBR", _bytes(_disk(510, b"\x55\xaa")), "gpt"),
    Row("an ext4 file system", _bytes(_disk(0x438, b"\x53\xef")), "unknown"),
    Row("a squashfs", squash.squashed),
    Row("a corrupt squashfs", _corrupt_squashfs, "it is corrupt"),
    Row("a squashfs that lz4 compressed", _squashed("-comp", "lz4"), "lz4"),
    Row("a unified image in a squashfs", lambda system: squash.squashed(unified(system)), "mixes"),
    Row(
        "a squashfs with a block device",
        _squashed(more=[device("disk", tarfile.BLKTYPE, 8, 0)]),
        "block device",
    ),
    Row("a squashfs of 200 bytes that holds 3 GiB", _squashfs_bomb, "needs", DiskTooSmall),
    Row("a tar.lz4", _bytes(_disk(0, b"\x04\x22\x4d\x18")), "lz4"),
    Row(
        "a tar.lzma",
        lambda system: lzma.compress(tar(system), lzma.FORMAT_ALONE),
        "lzma",
    ),
    Row("a zip archive", _zip, "unknown"),
    Row("a cpio archive", _bytes(b"070701".ljust(4096, b"0")), "unknown"),
    Row("a tar that is a partitioned disk, too", _marked(510, b"\x55\xaa"), "gpt"),
    Row("a tar that is a qcow2 disk, too", _marked(0, _qcow2()[:72]), "polyglot"),
    Row("a tar that is a vdi disk, too", _marked(0x40, b"\x7f\x10\xda\xbe"), "polyglot"),
    Row(
        "a tar whose first file is named like a qcow2 disk",
        lambda system: header(name="x", spoil={0: b"QFI\xfb"}) + tar(system),
        "polyglot",
    ),
)
"""What is no archive, whatever Glance says of it."""


def _good(system: System) -> bytes:
    return COMPRESS["tar.gz"](tar(system))


GLANCE = (
    Row("a good archive as disk_format=qcow2", _good, "qcow2", glance={"disk_format": "qcow2"}),
    Row("a good archive as disk_format=iso", _good, "iso", glance={"disk_format": "iso"}),
    Row(
        "a good archive as container_format=docker",
        _good,
        "docker",
        glance={"container_format": "docker"},
    ),
    Row(
        "another architecture",
        _good,
        "aarch64",
        glance={"properties": {"hw_architecture": "aarch64"}},
    ),
    Row(
        "an image for virtual machines",
        _good,
        "hypervisor_type",
        glance={"properties": {"img_hv_type": "kvm"}},
    ),
    Row(
        "min_disk above the flavor's",
        _good,
        "disk is smaller than the minimum size",
        DiskTooSmall,
        glance={"min_disk": 2},
        by_api=True,
    ),
    Row(
        "min_ram above the flavor's",
        _good,
        "memory is too small",
        FlavorRefused,
        glance={"min_ram": 65536},
        by_api=True,
    ),
)
"""What Glance says of a good archive."""

FAMILIES = {
    "What LXD would act upon": METADATA,
    "Ways out of the tree": PATHS,
    "Sizes": SIZES,
    "Damage": DAMAGE,
    "Other formats": FORMATS,
    "What Glance says": GLANCE,
}
ROWS = tuple(row for family in FAMILIES.values() for row in family)


def as_rst() -> str:
    """Write the table down for the user guide."""
    return "\n".join(_family(title, rows) for title, rows in FAMILIES.items())


def _family(title: str, rows: tuple[Row, ...]) -> str:
    lines = [title, "~" * len(title), "", ".. csv-table::", "   :widths: 60, 40", ""]
    for row in rows:
        outcome = f"refused: ... {row.words} ..." if row.words else "accepted"
        lines.append(f'   "{row.name}", "{outcome}"')
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.stdout.write(as_rst())
