"""A Glance image's way to this host."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import nova.conf
import pytest
import requests
from nova import exception as nova_exception

from nova_lxd.virt import download
from nova_lxd.virt.image import SNIFF_BYTES
from nova_lxd.virt.imagecache import source_of
from nova_lxd.virt.session import PoolSpace

from . import servers
from .archives import header, system, tar
from .compute_host import PROJECT, Glance, GlanceAPI, Host
from .values import image

CONF = nova.conf.CONF


@pytest.fixture
def host(tmp_path, ports):
    with contextlib.closing(Host(tmp_path / "lxd", ports)) as host:
        yield host


def unended(archive: bytes) -> bytes:
    """Take an archive's end mark off."""
    blocks = -(-len(archive.rstrip(b"\0")) // 512)
    return archive[: blocks * 512]


class TestIncoming:
    def test_pieces_of_any_size(self):
        content = bytes(range(256)) * 4096
        for size in (1, 1000, 65536, len(content)):
            chunks = (content[at : at + size] for at in range(0, len(content), size))
            stream = io.BufferedReader(download.Incoming(chunks, image()), SNIFF_BYTES)
            assert stream.peek()[:SNIFF_BYTES] == content[:SNIFF_BYTES]
            assert stream.read() == content

    @pytest.mark.parametrize("error", [OSError(32, "corrupt"), requests.ConnectionError("reset")])
    def test_a_download_that_breaks_off(self, error):
        def chunks():
            yield bytes(1000)
            raise error

        stream = download.Incoming(chunks(), image())
        text = f"image {image().id}: its download broke off after 1000 bytes: {error}"
        with pytest.raises(download.exception.LXDDriverError) as caught:
            io.BufferedReader(stream).read()
        assert str(caught.value) == text

    def test_progress(self, monkeypatch, caplog):
        monkeypatch.setattr(download, "_PROGRESS_SECONDS", 0)
        caplog.set_level(logging.INFO)
        chunks = [bytes(1000), bytes(1000)]
        download.Incoming(chunks, image(size=4000)).readall()
        told = [record.getMessage() for record in caplog.records]
        assert told[0] == f"Image {image().id}: 1000 bytes of 4000 (25 %) are here"
        assert "2000 bytes of 4000 (50 %)" in told[1]


class TestFiles:
    """What Nova verifies is a file first, and no file is left."""

    @pytest.fixture(autouse=True)
    def instances(self, tmp_path, options):
        options(instances_path=str(tmp_path))
        return tmp_path

    @pytest.mark.parametrize(
        "option",
        [
            {"verify_glance_signatures": True},
            {"enable_rbd_download": True},
            {
                "enable_certificate_validation": True,
                "default_trusted_certificate_ids": ["a-certificate"],
            },
        ],
    )
    def test_options_that_need_a_file(self, instances, options, option):
        options("glance", **option)
        self._check_file(instances, None)

    def test_trusted_certificates_need_a_file(self, instances):
        self._check_file(instances, ["a-certificate"])

    def test_nova_bounds_how_many_are_fetched_at_once(self, instances):
        bound = mock.patch("nova.compute.utils.disk_ops_semaphore", threading.Semaphore(1))
        written = mock.patch.object(download.images.IMAGE_API, "download", write)
        with bound, written, download.opened(None, image(), ["a-certificate"]) as stream:
            assert stream.read() == b"content"
        glance = mock.patch("nova.image.glance.API", GlanceAPI)
        with bound, glance, download.opened(None, image(), None) as stream:
            assert stream.read() == servers.ROOTFS

    def _check_file(self, instances, certificates):
        def fetch(context, image_id, path, trusted_certs):
            assert trusted_certs == certificates
            with open(path, "wb") as file:
                file.write(b"content")

        with mock.patch("nova.virt.images.fetch", fetch):
            with download.opened(None, image(), certificates) as stream:
                assert stream.peek() == b"content"
                assert list(instances.iterdir())
            assert not list(instances.iterdir())

    def test_no_room(self, instances):
        full = mock.patch("nova.virt.images.fetch", side_effect=OSError(28, "No space left"))
        with (
            full,
            pytest.raises(download.exception.LXDDriverError, match=r"instances_path.*No space"),
            download.opened(None, image(), ["a-certificate"]),
        ):
            pass
        assert not list(instances.iterdir())

    def test_a_seekable_copy(self, instances):
        with download.seekable(io.BytesIO(b"content"), image().id) as file:
            assert file.read() == b"content"
            assert file.seek(0) == 0
        assert not list(instances.iterdir())


def write(context, image_id, dest_path, trusted_certs):
    """Stand in for the download of Nova's ``images.IMAGE_API``."""
    with open(dest_path, "wb") as file:
        file.write(b"content")


class TestFirstBoot:
    def test_ten_at_once_are_one_download(self, host):
        original = GlanceAPI.download
        count = itertools.count()

        def counted(*args, **kwargs):
            next(count)
            return original(*args, **kwargs)

        orders = [servers.order(image_id=host.order.image_id) for _ in range(10)]
        with mock.patch.object(GlanceAPI, "download", counted), ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda order: self._spawn(host, order), orders))
        assert next(count) == 1
        assert len(host.lxd.state.projects[PROJECT].instances) == 10

    def _spawn(self, host, order):
        driver = host.driver
        args = (order.context, order.instance, order.image_meta, [], "", {}, order.network_info)
        driver.spawn(*args)

    def test_an_image_that_the_pool_has_no_room_for(self, host):
        space = PoolSpace(total=10**6, used=10**6 - 100)
        with mock.patch.object(host.driver._session, "pool_space", return_value=space):
            self._refused(host, nova_exception.NovaException, "storage pool default has 100 left")

    def test_an_image_that_the_operator_does_not_want(self, host, options):
        options("lxd", image_max_gb=1)
        host.order.instance.flavor.root_gb = 0
        content = unended(tar(system())) + header(name="big", size=2**31)
        given = mock.patch.object(GlanceAPI, "download", return_value=[content])
        with given:
            text = "it unpacks to more than 1073741824 bytes"
            self._refused(host, nova_exception.ImageUnacceptable, text)

    def test_lxd_gets_something_else(self, host):
        session = host.driver._session
        original = session.upload_image

        def upload(metadata, pieces, properties):
            return original(metadata, [*pieces, bytes(512)], properties)

        with mock.patch.object(session, "upload_image", upload):
            self._refused(host, nova_exception.NovaException, "LXD got .* of what was sent as")

    def test_an_image_that_lxd_cannot_unpack_is_fetched_anew(self, host):
        image_id = host.order.image_id
        host.driver._images._have(None, source_of(host.order.image_meta), 0, None)
        fingerprint = host.stored()[image_id]
        (host.lxd.folder / "images" / f"{fingerprint}.rootfs").write_bytes(servers.ROOTFS[:5000])
        self._refused(host, nova_exception.ImageUnacceptable, "LXD cannot unpack it")
        assert host.stored() == {}
        host.spawn()

    def test_glance_breaks_off(self, host):
        def chunks(*args, **kwargs):
            yield servers.ROOTFS[:5000]
            raise BrokenPipeError("corrupt image download")

        with mock.patch.object(GlanceAPI, "download", chunks):
            self._refused(host, nova_exception.NovaException, "broke off after 5000 bytes")

    def _refused(self, host, kind, text):
        with pytest.raises(kind, match=text):
            host.spawn()
        assert host.remains() == []


class TestPrefetch:
    def test_an_image_is_fetched_before_a_server_wants_it(self, host):
        image_id = self._image(servers.ROOTFS)
        assert host.driver.cache_image(None, image_id)
        assert not host.driver.cache_image(None, image_id)

    def test_what_is_no_root_file_system(self, host):
        image_id = self._image(b"QFI\xfb" + bytes(1000))
        with pytest.raises(nova_exception.ImageUnacceptable, match="qcow2"):
            host.driver.cache_image(None, image_id)
        assert host.remains() == []

    def test_lxd_is_away(self, host):
        host.lxd.stop()
        with pytest.raises(nova_exception.HypervisorUnavailable):
            host.driver.cache_image(None, self._image(servers.ROOTFS))

    def _image(self, content: bytes) -> str:
        image = Glance()
        image.content = content
        image.metadata |= {"disk_format": "raw", "container_format": "bare", "properties": {}}
        return image.id


def test_memory_is_bounded(host):
    """An image of any size passes with little of it in memory at a time."""
    size = 64 * 2**20
    head = unended(tar(system())) + header(name="big", size=size)
    chunks = itertools.chain([head], itertools.repeat(bytes(2**16), size >> 16), [bytes(1024)])
    tracemalloc.start()
    try:
        with mock.patch.object(GlanceAPI, "download", return_value=chunks):
            host.spawn()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (image,) = host.lxd.state.projects[PROJECT].images.values()
    assert image.size > size
    assert peak < size / 4
