"""An image is accepted for what it is, and LXD is told only what we wrote ourselves."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nova_lxd.exception import DiskTooSmall, FlavorRefused, ImageRefused
from nova_lxd.virt import image as translator
from tests.unit.values import IMAGE_ID, flavor, host, image, is_one_line, rude_text

GIB = 1024**3


def at(offset: int, magic: bytes) -> bytes:
    return bytes(offset) + magic


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"disk_format": "root-tar", "container_format": "tgz"},
        {"architecture": ""},
        {"architecture": "amd64"},
        {"architecture": "i386"},
        {"properties": {"hypervisor_type": "lxd", "hw_vm_mode": "exe"}},
        {"properties": {"img_hv_type": "LXD", "vm_mode": "exe"}},
        {"min_disk_gb": 10, "min_ram_mb": 512, "size": 10 * GIB},
    ],
)
def test_accepted(changes):
    translator.check_metadata(image(**changes), host())


@pytest.mark.parametrize(
    "changes",
    [
        {"disk_format": "qcow2"},
        {"disk_format": "vmdk"},
        {"disk_format": "iso"},
        {"disk_format": "qed"},
        {"disk_format": ""},
        {"container_format": "docker"},
        {"container_format": "ovf"},
        {"architecture": "aarch64"},
        {"architecture": "x86_64\nx"},
        {"properties": {"hypervisor_type": "kvm"}},
        {"properties": {"hw_vm_mode": "hvm"}},
    ],
)
def test_refused(changes):
    with pytest.raises(ImageRefused):
        translator.check_metadata(image(**changes), host())


@pytest.mark.parametrize("changes", [{"min_disk_gb": 11}, {"size": 10 * GIB + 1}])
def test_too_large_for_the_flavor(changes):
    with pytest.raises(DiskTooSmall):
        translator.check_size(image(**changes), flavor(root_gb=10))
    translator.check_size(image(**changes), flavor(root_gb=0))


def test_needs_more_memory_than_the_flavor_has():
    with pytest.raises(FlavorRefused, match="min_ram=513"):
        translator.check_size(image(min_ram_mb=513), flavor(memory_mb=512))


@pytest.mark.parametrize(
    ("glance", "lxd"),
    [
        ("arm64", "aarch64"),
        ("aarch64", "aarch64"),
        ("armv7", "armv7l"),
        ("ppc64el", "ppc64le"),
        ("ppc64le", "ppc64le"),
        ("s390x", "s390x"),
        ("riscv64", "riscv64"),
        ("AMD64", "x86_64"),
        ("i586", "i686"),
    ],
)
def test_architecture_in_lxd_words(glance, lxd):
    assert translator.architecture(image(architecture=glance), host(architectures=(lxd,))) == lxd


def test_architecture_unset_is_the_hosts_own():
    assert translator.architecture(image(architecture=""), host()) == "x86_64"


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (at(257, b"ustar\x0000"), "tar"),
        (at(257, b"ustar  \0"), "tar"),
        (b"\x1f\x8b\x08", "tar.gz"),
        (b"\xfd7zXZ\x00", "tar.xz"),
        (b"BZh9", "tar.bz2"),
        (b"\x28\xb5\x2f\xfd", "tar.zst"),
        (b"hsqs", "squashfs"),
        (b"QFI\xfb", "qcow2"),
        (b"KDMV", "vmdk"),
        (b"# Disk DescriptorFile", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vhd"),
        (b"LUKS\xba\xbe", "luks"),
        (at(0x40, b"\x7f\x10\xda\xbe"), "vdi"),
        (at(0x8001, b"CD001"), "iso"),
        (at(510, b"\x55\xaa"), "gpt"),
        (at(257, b"ustar").ljust(510, b"\0") + b"\x55\xaa", "gpt"),
        (b"\x1f\x8b".ljust(510, b"x") + b"\x55\xaa", "tar.gz"),
        (b"QFI\xfb".ljust(257, b"\0") + b"ustar", "polyglot"),
        (at(257, b"ustar").ljust(0x8001, b"\0") + b"CD001", "polyglot"),
        (b"", "unknown"),
        (b"#!/bin/sh\n", "unknown"),
    ],
)
def test_sniff(head, form):
    assert translator.sniff(head) == form
    assert len(head) <= translator.SNIFF_BYTES
    if form in translator.ARCHIVES:
        assert translator.check_content(IMAGE_ID, head) == form
    else:
        with pytest.raises(ImageRefused, match=f"its content is {form}: "):
            translator.check_content(IMAGE_ID, head)


@given(st.binary(max_size=1024))
def test_sniff_answers_for_any_bytes(head):
    assert translator.sniff(head)


def metadata_of(source) -> dict:
    with tarfile.open(fileobj=io.BytesIO(translator.metadata_tarball(source, host()))) as tar:
        assert tar.getnames() == ["metadata.yaml"]
        return yaml.safe_load(tar.extractfile("metadata.yaml"))


def test_metadata():
    assert metadata_of(image(properties={"os_distro": "debian"})) == {
        "architecture": "x86_64",
        "creation_date": 1700000000,
        "properties": {
            "architecture": "x86_64",
            "description": "debian-12",
            "nova.image_id": IMAGE_ID,
            "os": "debian",
        },
    }


def test_metadata_always_has_a_date():
    # LXD takes 0 for "missing".
    assert metadata_of(image(created_at=0))["creation_date"] == 1


def test_metadata_is_a_plain_file_of_root_and_always_the_same():
    tarball = translator.metadata_tarball(image(), host())
    assert tarball == translator.metadata_tarball(image(), host())
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:") as tar:
        (member,) = tar.getmembers()
    assert (member.type, member.uid, member.gid, member.mtime) == (tarfile.REGTYPE, 0, 0, 0)


def test_metadata_tells_images_apart():
    other = image(id="00000000-96e4-4f2f-a0a5-9f2b9a3f1f6b")
    one, two = (translator.metadata_tarball(source, host()) for source in (image(), other))
    assert one != two


@given(rude_text(), rude_text(), rude_text())
def test_no_text_of_a_tenant_gets_out_of_its_property(name, distro, version):
    source = image(name=name, properties={"os_distro": distro, "os_version": version})
    content = metadata_of(source)
    assert content.keys() == {"architecture", "creation_date", "properties"}
    assert content["properties"] == translator.image_properties(source, host())
    assert all(value == "" or is_one_line(value) for value in content["properties"].values())
    assert json.dumps(content["properties"]).count("\\n") == 0
