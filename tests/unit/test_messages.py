"""Every refusal names what is wrong, its value and the way out, and fits into a Nova fault."""

from __future__ import annotations

import io
import tarfile

import pytest

from nova_lxd.exception import DiskTooSmall, FlavorRefused, ImageRefused, VifRefused
from nova_lxd.virt import flavor as flavors
from nova_lxd.virt import image as images
from nova_lxd.virt import rootfs
from nova_lxd.virt import vif as vifs
from tests.unit.archives import device, entry, folder, hardlink, symlink, system, tar
from tests.unit.values import FAULT_ROOM, IMAGE_ID, PORT_ID, flavor, flavor_with, host, image, vif


def of_flavor(*, allow_privileged=True, allow_nested=True, **changes):
    facts = host(allow_privileged=allow_privileged, allow_nested=allow_nested)
    flavors.profile_config(flavor(**changes), facts)


def of_spec(key, value):
    flavors.profile_config(flavor_with({key: value}), host())
    flavors.root_device(flavor_with({key: value}), host())


def of_image(**changes):
    images.check_metadata(image(**changes), host())
    images.check_size(image(**changes), flavor())


def of_archive(*entries):
    rootfs.inspect(io.BytesIO(tar([*system(), *entries])), IMAGE_ID, 0)


def of_content(head):
    rootfs.inspect(io.BytesIO(head), IMAGE_ID, 0)


def of_vif(**changes):
    vifs.devices([vif(**changes)])


def refused(error, function, *arguments, **changes):
    with pytest.raises(error) as caught:
        function(*arguments, **changes)
    return str(caught.value)


REFUSED_SPECS = [
    # key, value, way out
    ("lxd:privileged_allowed", "maybe", "use true or false"),
    ("lxd:nested_allowed", "", "use true or false"),
    ("lxd:isolated", "2", "use true or false"),
    ("lxd:isolated", "false", "remove it or use true"),
    ("lxd:process_limit", "many", "use decimal digits"),
    ("lxd:process_limit", "99999999", "use 1 to 4194304"),
    ("lxd:raw_lxc", "lxc.rootfs.path=/", "remove it or use one of lxd:privileged_allowed"),
    ("hw:cpu_policy", "dedicated", "use hw:cpu_policy=shared"),
    ("hw:cpu_policy", "mixed", "use hw:cpu_policy=shared"),
    ("hw:cpu_dedicated_mask", "0", "use hw:cpu_policy=shared"),
    ("hw:cpu_realtime", "yes", "remove it"),
    ("hw:numa_nodes", "2", "remove it"),
    ("hw:numa_cpus.0", "0,1", "remove it"),
    ("hw:numa_mem.0", "512", "remove it"),
    ("hw:mem_page_size", "2MB", "use small"),
    ("hw:mem_page_size", "large", "use small"),
    ("hw:locked_memory", "true", "flavor for virtual machines"),
    ("hw:mem_encryption", "true", "flavor for virtual machines"),
    ("hw:tpm_version", "2.0", "flavor for virtual machines"),
    ("hw:pmem", "6GB", "flavor for virtual machines"),
    ("hw:something_new", "1", "flavor for virtual machines"),
    ("os:secure_boot", "required", "use disabled"),
    ("pci_passthrough:alias", "gpu:1", "remove it"),
    ("accel:device_profile", "fpga", "remove it"),
    ("quota:memory_limit", "100", "remove it"),
    ("quota:disk_io_limit", "100", "remove it"),
    ("quota:cpu_shares", "1", "use 2 to 262144"),
    ("quota:cpu_shares", "-5", "use 2 to 262144"),
    ("quota:cpu_shares", "1_000", "use decimal digits"),
    ("quota:cpu_period", "999", "use 1000 to 1000000"),
    ("quota:cpu_quota", "1234", "use a multiple of 1000"),
    ("quota:cpu_quota", "half", "use decimal digits"),
    ("quota:disk_read_bytes_sec", "10MB", "use decimal digits"),
    ("quota:disk_total_iops_sec", "-1", "use 1 to"),
    ("quota:disk_write_bytes_sec", "9223372036854775808", "use 1 to"),
]


@pytest.mark.parametrize(("key", "value", "way_out"), REFUSED_SPECS)
def test_extra_specs(key, value, way_out):
    message = refused(FlavorRefused, of_spec, key, value)
    assert message.startswith(f"flavor 'm1.small': extra spec {key}={value!r}: ")
    assert way_out in message
    assert len(message) <= FAULT_ROOM


REFUSED = [
    # error, function, arguments, what the message must say
    (FlavorRefused, of_flavor, {"ephemeral_gb": 1}, ["ephemeral=1", "ephemeral 0"]),
    (FlavorRefused, of_flavor, {"swap_mb": 512}, ["swap=512", "swap 0"]),
    (
        FlavorRefused,
        of_flavor,
        {"extra_specs": {"lxd:privileged_allowed": "true"}, "allow_privileged": False},
        ["lxd:privileged_allowed='true'", "[lxd] allow_privileged = false", "another host"],
    ),
    (
        FlavorRefused,
        of_flavor,
        {"extra_specs": {"lxd:nested_allowed": "true"}, "allow_nested": False},
        ["lxd:nested_allowed='true'", "[lxd] allow_nested = false", "another host"],
    ),
    (
        FlavorRefused,
        of_flavor,
        {"extra_specs": {"lxd:isolated": "true", "lxd:privileged_allowed": "true"}},
        ["lxd:isolated='true'", "remove it or lxd:privileged_allowed"],
    ),
    (
        FlavorRefused,
        of_flavor,
        {"extra_specs": {"quota:cpu_shares": "9", "quota:cpu_quota": "5000"}},
        ["quota:cpu_shares='9'", "remove it or quota:cpu_quota"],
    ),
    (
        FlavorRefused,
        of_flavor,
        {"extra_specs": {"quota:cpu_quota": "1000", "quota:cpu_period": "12345"}},
        ["quota:cpu_period='12345'", "multiple of 1000"],
    ),
    (ImageRefused, of_image, {"disk_format": "qcow2"}, ["disk_format='qcow2'", "virt-tar-out"]),
    (ImageRefused, of_image, {"disk_format": "vmdk"}, ["disk_format='vmdk'", "virt-tar-out"]),
    (ImageRefused, of_image, {"disk_format": "iso"}, ["disk_format='iso'", "tar -C ROOT"]),
    (ImageRefused, of_image, {"disk_format": "odd"}, ["disk_format='odd'", "tar -C ROOT"]),
    (ImageRefused, of_image, {"container_format": "docker"}, ["'docker'", "docker export"]),
    (
        ImageRefused,
        of_image,
        {"architecture": "aarch64"},
        ["architecture='aarch64'", "x86_64, i686", "choose another image"],
    ),
    (
        ImageRefused,
        of_image,
        {"properties": {"hypervisor_type": "kvm"}},
        ["hypervisor_type='kvm'", "use lxd or choose another"],
    ),
    (ImageRefused, of_image, {"properties": {"hw_vm_mode": "hvm"}}, ["'hvm'", "use exe"]),
    (DiskTooSmall, of_image, {"min_disk_gb": 20}, [str(20 * 1024**3), "larger disk"]),
    (FlavorRefused, of_image, {"min_ram_mb": 1024}, ["min_ram=1024", "more memory"]),
    (VifRefused, of_vif, {"vif_type": "vhostuser"}, ["'vhostuser'", "ML2/OVS"]),
    (VifRefused, of_vif, {"vif_type": "bridge"}, ["'bridge'", "ML2/OVS"]),
    (VifRefused, of_vif, {"vif_type": "macvtap"}, ["'macvtap'", "vnic_type normal"]),
    (VifRefused, of_vif, {"vif_type": "hw_veb"}, ["'hw_veb'", "vnic_type normal"]),
    (VifRefused, of_vif, {"vif_type": "tap"}, ["'tap'", "ML2/OVS"]),
    (VifRefused, of_vif, {"vif_type": "binding_failed"}, ["openstack network agent list"]),
    (VifRefused, of_vif, {"vif_type": "unbound"}, ["'unbound'", "try again"]),
    (VifRefused, of_vif, {"vnic_type": "direct"}, ["'direct'", "vnic_type normal"]),
    (VifRefused, of_vif, {"mtu": 1000}, ["mtu is 1000", "1280 to 16384"]),
    (VifRefused, of_vif, {"mac": "x"}, ["'x'", "six bytes"]),
]


@pytest.mark.parametrize(("error", "function", "changes", "parts"), REFUSED)
def test_values(error, function, changes, parts):
    message = refused(error, function, **changes)
    subject = {ImageRefused: IMAGE_ID, VifRefused: PORT_ID, FlavorRefused: "m1.small"}
    assert subject.get(error, "flavor") in message
    assert [part for part in parts if part not in message] == []
    assert len(message) <= FAULT_ROOM


REFUSED_ARCHIVES = [
    # entries, what the message must say
    ([entry("../etc/shadow")], ["'../etc/shadow'", "tar -C ROOT -cz ."]),
    ([hardlink("x", "y")], ["'x'", "'y'", "tar -C ROOT -cz ."]),
    ([symlink("a", "/etc"), entry("a/b")], ["'a/b'", "'a'", "tar -C ROOT -cz ."]),
    ([entry("a"), entry("a")], ["'a'", "twice", "tar -C ROOT -cz ."]),
    ([device("dev/sda", tarfile.BLKTYPE, 8, 0)], ["'dev/sda'", "8:0", "--exclude=./dev/*"]),
    ([folder("rootfs"), entry("metadata.yaml")], ["unified LXD image", "tar -C rootfs"]),
    ([hardlink("x" * 99, "y" * 99)], ["'xxx", "'yyy", "tar -C ROOT -cz ."]),
    ([entry("n" * 256)], ["'nnn", "too long", "rename it"]),
    ([entry("\n" * 256)], ["'\\n\\n", "too long", "rename it"]),
]


@pytest.mark.parametrize(("entries", "parts"), REFUSED_ARCHIVES)
def test_archives(entries, parts):
    message = refused(ImageRefused, of_archive, *entries)
    assert message.startswith(f"image {IMAGE_ID}: ")
    assert [part for part in parts if part not in message] == []
    assert len(message) <= FAULT_ROOM
    assert "\n" not in message


REFUSED_CONTENTS = [
    (b"QFI\xfb", ["qcow2", "virt-tar-out"]),
    (b"hsqs" + bytes(96), ["corrupt", "upload it again"]),
    (bytes(510) + b"\x55\xaa", ["gpt", "virt-tar-out"]),
    (bytes(0x8001) + b"CD001", ["iso", "tar -C ROOT"]),
    (b"", ["unknown", "tar -C ROOT"]),
    (tar([folder(".")]), ["no /sbin/init", "systemd-sysv"]),
    (tar(system())[:1700], ["truncated", "upload it again"]),
]


@pytest.mark.parametrize(("content", "parts"), REFUSED_CONTENTS)
def test_contents(content, parts):
    message = refused(ImageRefused, of_content, content)
    assert message.startswith(f"image {IMAGE_ID}: ")
    assert [part for part in parts if part not in message] == []
    assert len(message) <= FAULT_ROOM
