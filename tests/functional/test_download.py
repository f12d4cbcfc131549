"""Images on their way from Glance into LXD's store."""

from __future__ import annotations

import fixtures
from nova.context import get_admin_context

from tests.functional.base import ServerTestCase, wait_for
from tests.functional.glance import breaks_off


class DownloadTest(ServerTestCase):
    def stored(self) -> list[str]:
        """Name the files that LXD's store has of images, whole or not."""
        folder = self._machine.lxd.folder / "images"
        return sorted(path.name for path in folder.iterdir())

    def test_a_squashfs(self):
        image = self.image(self._images.squashfs, disk_format="squashfs")
        server = self.boot(image=image)
        assert self.guest(server, "stat", "-c", "%a", "/tmp") == "1777"
        self.assert_clean()

    def test_a_download_that_breaks_off_leaves_nothing(self):
        before = self.stored()

        def download(api, context, image_id, **kwargs):
            yield content[: len(content) // 2]
            # So glanceclient tells that an image is not what its hash says.
            raise OSError(32, "corrupt image download")

        content = self._images.busybox
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[nova\.scheduler\.utils\]")
        with fixtures.MonkeyPatch("nova.image.glance.API.download", download):
            server = self.boot(status="ERROR")
        assert f"broke off after {len(content) // 2} bytes" in self.stdlog.logger.output
        wait_for(lambda: self.stored() == before, "LXD to forget the upload")
        self.delete(server)

    def test_an_image_that_lxd_cannot_unpack_is_fetched_anew(self):
        image = self.image(self._images.busybox)
        driver = self.compute.driver
        assert driver.cache_image(get_admin_context(), image)
        fingerprint = driver._session.find_image(image).fingerprint
        file = self._machine.lxd.folder / "images" / f"{fingerprint}.rootfs"
        file.write_bytes(self._images.truncated)
        server = self.boot(image=image, status="ERROR")
        assert "LXD cannot unpack it" in server["fault"]["message"]
        assert not driver._session.find_image(image)
        self.delete(server)
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[nova\.scheduler\.utils\]")
        self.boot(image=image)

    def test_simultaneous_first_boots_are_one_download(self):
        image = self.image(self._images.busybox)
        servers = [self.request_server(image=image) for _ in range(3)]
        for server in servers:
            self.wait_status(server, "ACTIVE")
        assert self.glance.downloads == [image]

    def test_an_image_is_cached_on_request(self):
        image = self.image(self._images.busybox)
        aggregate = self.api.post_aggregate({"aggregate": {"name": "lxd"}})
        self.api.post_aggregate_action(aggregate["id"], {"add_host": {"host": self.compute.host}})
        body = {"cache": [{"id": image}]}
        path = f"/os-aggregates/{aggregate['id']}/images"
        self.api.api_post(path, body, check_response_status=[202])
        session = self.compute.driver._session
        wait_for(lambda: session.find_image(image), "the image to be cached")
        with fixtures.MonkeyPatch("nova.image.glance.API.download", breaks_off):
            self.boot(image=image)
