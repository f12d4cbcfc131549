"""Glance image -> what LXD must be given; accept or refuse.

LXD never sees metadata that a tenant wrote: it is given an image in two parts, of which the first
is written here and the second holds the root file system alone (see ``rootfs.py``).
"""

from __future__ import annotations

import io
import json
import tarfile

from nova_lxd.exception import DiskTooSmall, FlavorRefused, ImageRefused
from nova_lxd.virt.model import IMAGE_ID_KEY, Flavor, HostFacts, ImageSource

GIB = 1024**3

SNIFF_BYTES = 0x8001 + 5
"""How much of a file :func:`sniff` wants to see: an ISO 9660 label lies 32 KiB into it."""

SEEKABLE = frozenset({"squashfs"})
"""What cannot be read from its beginning to its end."""

ARCHIVES = frozenset({"tar", "tar.gz", "tar.xz", "tar.bz2", "tar.zst"}) | SEEKABLE
"""What a root file system may come as, in the words of :func:`sniff`."""

DISK_FORMATS = frozenset({"raw", "root-tar", "squashfs"})
CONTAINER_FORMATS = frozenset({"bare", "tgz"})

# Nova shows a tenant 255 characters of a fault, a good sixty of which are its own.
_NEED = "a container needs a root file system archive, uploaded as raw"
_FROM_DISK = f"{_NEED}: 'virt-tar-out -a IMAGE / - | gzip'"
_FROM_DIRECTORY = f"{_NEED}: 'tar -C ROOT -cz .'"
_RECIPES = {
    **dict.fromkeys(("qcow2", "qed", "vmdk", "vdi", "vhd", "vhdx", "ploop"), _FROM_DISK),
    **dict.fromkeys(("luks", "gpt", "ami", "ari", "aki"), _FROM_DISK),
    "iso": f"{_FROM_DIRECTORY} of an installed system",
    "docker": f"{_NEED}: 'docker export CONTAINER | gzip', with an init",
    "polyglot": f"it bears the marks of several formats; {_FROM_DIRECTORY}",
}
"""What to do instead, by disk format, container format or sniffed format."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1f\x8b", "tar.gz"),
    (0, b"\xfd7zXZ\x00", "tar.xz"),
    (0, b"BZh", "tar.bz2"),
    (0, b"\x28\xb5\x2f\xfd", "tar.zst"),
    (0, b"\x04\x22\x4d\x18", "tar.lz4"),
    (0, b"\x5d\x00\x00", "tar.lzma"),
    (0, b"hsqs", "squashfs"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\x00", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (257, b"ustar", "tar"),
    (0x8001, b"CD001", "iso"),
)
_COMPRESSED = frozenset({"tar.gz", "tar.xz", "tar.bz2", "tar.zst", "tar.lz4", "tar.lzma"})

# Glance's and Nova's names, where LXD's differ.
_ARCHITECTURES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armhf": "armv7l",
    "armv6": "armv6l",
    "armv7": "armv7l",
    "i386": "i686",
    "i486": "i686",
    "i586": "i686",
    "ppc64el": "ppc64le",
}

# An image may say what it is made for, under its Glance name or Nova's older ones.
_MADE_FOR = {
    "hypervisor_type": "lxd",
    "img_hv_type": "lxd",
    "hw_vm_mode": "exe",
    "vm_mode": "exe",
}


def check_metadata(image: ImageSource, host: HostFacts) -> None:
    """Refuse an image by what Glance says of it, before a byte is downloaded.

    :raises ImageRefused: its format, architecture or purpose does not fit a container here
    """
    _check_format(image)
    architecture(image, host)
    for name, wanted in _MADE_FOR.items():
        value = image.properties.get(name, wanted)
        if value.strip().lower() != wanted:
            reason = f"property {name}={value[:40]!r}: not made for LXD containers"
            raise ImageRefused(image.id, f"{reason}; use {wanted} or choose another image")


def check_size(image: ImageSource, flavor: Flavor) -> None:
    """Refuse a flavor that is too small for what Glance says of an image.

    :raises DiskTooSmall: its ``min_disk``, or the stored file, exceeds the flavor's root disk
    :raises FlavorRefused: its ``min_ram`` exceeds the flavor's memory
    """
    # A flavor without a root disk size takes the image's.
    needed = max(image.min_disk_gb * GIB, image.size)
    if flavor.root_gb and needed > flavor.root_gb * GIB:
        raise DiskTooSmall(flavor.root_gb * GIB, needed)
    if image.min_ram_mb > flavor.memory_mb:
        raise FlavorRefused(
            f"flavor {flavor.name[:40]!r}: memory {flavor.memory_mb} MiB: image {image.id} has "
            f"min_ram={image.min_ram_mb}: choose a flavor with more memory"
        )


def architecture(image: ImageSource, host: HostFacts) -> str:
    """Return LXD's name of the image's architecture, the host's own when the image has none.

    :raises ImageRefused: the host cannot run it
    """
    given = image.architecture.strip().lower()
    name = _ARCHITECTURES.get(given, given) or host.architectures[0]
    if name not in host.architectures:
        runs = ", ".join(host.architectures)
        reason = f"architecture={image.architecture[:40]!r}: this host runs {runs}"
        raise ImageRefused(image.id, f"{reason}; choose another image or correct the property")
    return name


def sniff(head: bytes) -> str:
    r"""Return the format of a file by its first bytes, of which :data:`SNIFF_BYTES` suffice.

    ``tar``, ``tar.gz``, ..., ``qcow2``, ... ; ``gpt`` for a partitioned disk, also one that is a
    tar archive as well; ``polyglot`` when it bears several marks; ``unknown``.

    >>> sniff(bytes(257) + b"ustar"), sniff(b"QFI\xfb"), sniff(b"")
    ('tar', 'qcow2', 'unknown')
    """
    found = {name for at, magic, name in _MAGIC if head[at : at + len(magic)] == magic}
    # In compressed data the two bytes of a boot sector stand by chance once in 65536 files.
    if head[510:512] == b"\x55\xaa" and not found & _COMPRESSED:
        return "gpt"
    if len(found) > 1:
        return "polyglot"
    return found.pop() if found else "unknown"


def check_content(image_id: str, head: bytes) -> str:
    """Return the sniffed format, one of :data:`ARCHIVES`.

    :raises ImageRefused: the file is something else, whatever its metadata says
    """
    form = sniff(head)
    if form not in ARCHIVES:
        raise ImageRefused(
            image_id, f"its content is {form}: {_RECIPES.get(form, _FROM_DIRECTORY)}"
        )
    return form


def metadata_tarball(image: ImageSource, host: HostFacts) -> bytes:
    """Return the first part of LXD's split image: a plain tar with ``metadata.yaml`` alone.

    Equal images give equal bytes; the Glance id in it makes LXD's fingerprint unique to the image.

    :raises ImageRefused: the host cannot run the image's architecture
    """
    content = {
        "architecture": architecture(image, host),
        # LXD takes 0 for a missing date.
        "creation_date": max(1, image.created_at),
        "properties": image_properties(image, host),
    }
    # JSON is YAML, and leaves nothing to quoting rules.
    text = json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
    member = tarfile.TarInfo("metadata.yaml")
    member.size = len(text)
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(text))
    return tarball.getvalue()


def image_properties(image: ImageSource, host: HostFacts) -> dict[str, str]:
    """Return the properties by which ``lxc image list`` shows where the image is from."""
    properties = {
        "architecture": architecture(image, host),
        "description": image.name,
        IMAGE_ID_KEY: image.id,
        "os": image.properties.get("os_distro", ""),
    }
    return {key: _one_line(value) for key, value in properties.items() if value}


def snapshot_properties(host: HostFacts) -> dict[str, str]:
    """Return what Glance is told of a snapshot, so that servers from it are built on LXD hosts."""
    return {
        "hypervisor_type": "lxd",
        "hw_vm_mode": "exe",
        "architecture": host.architectures[0],
    }


def _check_format(image: ImageSource) -> None:
    for key, value, accepted in (
        ("disk_format", image.disk_format, DISK_FORMATS),
        ("container_format", image.container_format, CONTAINER_FORMATS),
    ):
        if value not in accepted:
            recipe = _RECIPES.get(value, _FROM_DIRECTORY)
            raise ImageRefused(image.id, f"{key}={value[:40]!r}: {recipe}")


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:255].strip()
