"""What cannot work says so in words that a tenant understands, at once and without a trace."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile

import pytest

from aio.api import ApiError
from aio.cloud import Cloud
from aio.images.busybox import build_busybox
from aio.run import run

GIB = 2**30


def upload(tenant, name, disk_format, content, **properties):
    """Upload an image that the test alone uses."""
    body = {"name": name, "disk_format": disk_format, "container_format": "bare", **properties}
    image = tenant.api.post("glance", "/images", body)
    tenant.later(f"image {name}", lambda: tenant.delete("glance", "/images", image["id"]))
    with content.open("rb") as stream:
        tenant.api.request("PUT", "glance", f"/images/{image['id']}/file", stream)
    return image["id"]


def fault_of(tenant, world, flavor, **more):
    """Boot a server that must fail, and return what its owner reads."""
    networks = [{"uuid": world.front["id"]}]
    server = tenant.boot("ring-fault", flavor, networks, **more)
    message = tenant.wait(server["id"], "ERROR")["fault"]["message"]
    assert "retries" not in message, "it was tried again on a host that cannot"
    return message


@pytest.fixture
def large_image(tmp_path):
    """A root filesystem of more than one GiB in two megabytes."""
    plain = build_busybox(tmp_path / "plain.tar.gz")
    large = tmp_path / "large.tar.gz"
    with tarfile.open(plain) as source, gzip.open(large, "wb", 1) as packed:
        with tarfile.open(fileobj=packed, mode="w|") as target:
            for member in source:
                content = source.extractfile(member) if member.isfile() else None
                target.addfile(member, content)
            zeros = tarfile.TarInfo("zeros")
            zeros.size = GIB + 2**20
            target.addfile(zeros, Zeros(zeros.size))
    return large


class Zeros(io.RawIOBase):
    """So many bytes of nothing."""

    def __init__(self, size):
        self._left = size

    def read(self, size=-1):
        """Return the next zeros."""
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


def test_qcow2_image(tenant, world, tmp_path):
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)
    image = upload(tenant, "ring-qcow2", "qcow2", disk)
    message = fault_of(tenant, world, world.flavor, imageRef=image)
    assert "qcow2" in message
    assert image in message


def test_image_larger_than_the_flavors_disk(tenant, world, large_image):
    image = upload(tenant, "ring-large", "raw", large_image)
    message = fault_of(tenant, world, world.flavor, imageRef=image)
    assert "disk" in message.lower()
    assert "small" in message.lower() or "too large" in message.lower()


def test_image_that_is_no_root_filesystem(tenant, world, tmp_path):
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"neither tar nor squashfs\n" * 4096)
    image = upload(tenant, "ring-rubbish", "raw", rubbish)
    message = fault_of(tenant, world, world.flavor, imageRef=image)
    assert image in message


@pytest.mark.parametrize(
    ("spec", "word"),
    [({"lxd:nonsense": "1"}, "lxd:nonsense"), ({"lxd:nested_allowed": "perhaps"}, "perhaps")],
)
def test_api_refuses_an_unclear_extra_spec(tenant, world, spec, word):
    with pytest.raises(ApiError, match=word) as refused:
        tenant.flavor(f"{world.name}-unclear", spec)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("spec", "word"),
    [("lxd:nonsense=1", "lxd:nonsense"), ("lxd:nested_allowed=perhaps", "perhaps")],
)
def test_flavor_from_before_the_validators(tenant, world, settings, spec, word):
    """Old microversions check nothing, so the driver must."""
    flavor = tenant.flavor(f"{world.name}-old")["id"]
    old = ("--os-compute-api-version", "2.60", "flavor", "set", "--property", spec, flavor)
    run(settings.program("openstack"), *old, env=Cloud(settings).exports())
    message = fault_of(tenant, world, flavor)
    assert word in message
