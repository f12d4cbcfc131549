"""LXD's image store."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import BinaryIO
from urllib import parse

from requests_toolbelt import MultipartEncoder

from nova_lxd import exception
from nova_lxd.virt.model import CachedImage
from nova_lxd.virt.session.transport import Transport


class Images(Transport):
    """What the driver asks of the store."""

    def find_image(self, alias: str) -> CachedImage | None:
        """Look an image up by alias; None without it."""
        try:
            target = self.get("images", "aliases", alias)["target"]
            image = self.get("images", target)
        except exception.NotFound:
            return None
        size = image["properties"].get("nova.unpacked_bytes", "0")
        return CachedImage(fingerprint=target, unpacked_bytes=int(size))

    def images_without_alias(self) -> list[str]:
        """List the fingerprints of images that no alias names: uploads that were not finished."""
        images = self.get("images", params={"recursion": "1"})
        return [image["fingerprint"] for image in images if not image["aliases"]]

    def upload_image(
        self, fingerprint: str, metadata: bytes, rootfs: BinaryIO, properties: Mapping[str, str]
    ) -> None:
        """Stream a split image into LXD's store; one that is there already is success.

        :param fingerprint: sha256 of ``metadata`` followed by ``rootfs``; LXD checks it
        :param rootfs: seekable, at its start; never read into memory as a whole
        """
        encoder = MultipartEncoder(
            {
                "metadata": ("metadata.tar", metadata, "application/octet-stream"),
                "rootfs": ("rootfs.tar", rootfs, "application/octet-stream"),
            }
        )
        headers = {
            "Content-Type": encoder.content_type,
            "X-LXD-fingerprint": fingerprint,
            "X-LXD-properties": parse.urlencode(properties),
        }
        bounds = {"timeout": self.timeouts.image, "request_timeout": self.timeouts.image}
        with contextlib.suppress(exception.AlreadyExists):
            self.operate("POST", "images", data=encoder, headers=headers, **bounds)

    def add_alias(self, alias: str, fingerprint: str) -> None:
        """Name an image of the store; AlreadyExists if the alias is taken."""
        body = {"name": alias, "target": fingerprint, "description": "Glance image"}
        self.request("POST", "images", "aliases", json=body)

    def delete_image(self, fingerprint: str) -> None:
        """Delete an image with its aliases; NotFound without it."""
        self.operate("DELETE", "images", fingerprint)
