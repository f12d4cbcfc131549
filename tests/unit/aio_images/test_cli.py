"""Uploading an image: once, anew when it changed, and never by half."""

from __future__ import annotations

import pytest

from aio.api import ApiError
from aio.images import cli
from tests.unit.aio_images.fakes import FakeApi


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def image(tmp_path):
    file = tmp_path / "image.tar.gz"
    file.write_bytes(b"content")
    return file


def names(api):
    return [thing["name"] for thing in api.things.values()]


def test_first_upload(api, image):
    cli.upload(api, "debian", image)
    (made,) = api.things.values()
    assert made["status"] == "active"
    assert made["disk_format"] == "raw"
    assert made["hypervisor_type"] == "lxd"
    assert made["os_distro"] == "debian"


def test_same_content_stays(api, image):
    cli.upload(api, "debian", image)
    before = set(api.things)
    assert "already" in cli.upload(api, "debian", image)
    assert set(api.things) == before


def test_other_content_replaces(api, image):
    cli.upload(api, "debian", image)
    before = set(api.things)
    image.write_bytes(b"other content")
    cli.upload(api, "debian", image)
    assert names(api) == ["debian"]
    assert not before & set(api.things)


def test_failed_upload_leaves_the_old_image(api, image):
    cli.upload(api, "debian", image)
    before = set(api.things)
    image.write_bytes(b"other content")
    api.broken.add(("PUT", "/images"))
    with pytest.raises(ApiError):
        cli.upload(api, "debian", image)
    assert set(api.things) == before
