"""LXD's image store."""

from __future__ import annotations

import contextlib
import hashlib
import io
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO
from urllib import parse

import requests

from nova_lxd import exception
from nova_lxd.virt.model import (
    IMAGE_ID_KEY,
    UNPACKED_KEY,
    USED_AT_KEY,
    CachedImage,
    StoredImage,
)
from nova_lxd.virt.session.transport import Transport

_CHUNK = 1024 * 1024
_NEVER = datetime.min.replace(tzinfo=UTC)


class _SourceFailedError(Exception):
    """There is no more to send, and no use in what was sent."""


class Upload:
    """The body of a request that brings a split image: the metadata, then the root file system.

    It has no length, since nobody knows one before the end; so it is sent in chunks.

    :ivar error: what the root file system's source raised.  urllib3 is not shown it: an OSError it
        would take for LXD's, and one that is a BrokenPipeError for nothing at all
    """

    def __init__(self, metadata: bytes, rootfs: Iterable[bytes]) -> None:
        self._boundary = uuid.uuid4().hex
        self._metadata = metadata
        self._rootfs = rootfs
        self.error: Exception | None = None
        self.content_type = f"multipart/form-data; boundary={self._boundary}"

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body; its last bytes come only when the source has ended well."""
        yield self._head("metadata") + self._metadata + b"\r\n" + self._head("rootfs")
        try:
            yield from self._rootfs
        except Exception as error:
            self.error = error
            raise _SourceFailedError from error
        yield f"\r\n--{self._boundary}--\r\n".encode()

    def _head(self, name: str) -> bytes:
        disposition = f'form-data; name="{name}"; filename="{name}.tar"'
        content = "Content-Type: application/octet-stream"
        lines = (f"--{self._boundary}", f"Content-Disposition: {disposition}", content, "", "")
        return "\r\n".join(lines).encode()


class Export(io.RawIOBase):
    """An image on its way out of the store."""

    def __init__(self, response: requests.Response, fingerprint: str) -> None:
        self._chunks = response.iter_content(_CHUNK)
        self._rest = b""
        self._fingerprint = fingerprint
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as LXD has sent.

        :raises LXDUnreachable: it breaks off, or is not what its fingerprint says at its end
        """
        if not self._rest:
            self._rest = self._next()
        taken = self._rest[: len(buffer)]
        self._rest = self._rest[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def _next(self) -> bytes:
        what = f"image {self._fingerprint} broke off on its way out of LXD"
        try:
            chunk: bytes = next(self._chunks, b"")
        except requests.exceptions.RequestException as error:
            raise exception.LXDUnreachable(f"{what}: {error}") from error
        self._digest.update(chunk)
        if not chunk and self._digest.hexdigest() != self._fingerprint:
            raise exception.LXDUnreachable(what)
        return chunk


class Images(Transport):
    """What the driver asks of the store."""

    def find_image(self, alias: str) -> CachedImage | None:
        """Look an image up by alias; None without it."""
        try:
            target = self.get("images", "aliases", alias)["target"]
            image = self.get("images", target)
        except exception.NotFound:
            return None
        size = image["properties"].get(UNPACKED_KEY, "0")
        return CachedImage(fingerprint=target, unpacked_bytes=int(size))

    def images_without_alias(self) -> dict[str, str]:
        """Find the images that no alias names: those that were not finished.

        :returns: fingerprints, and the Glance ids that the images were for, as far as they say
        """
        images = self.get("images", params={"recursion": "1"})
        return {
            image["fingerprint"]: image["properties"].get(IMAGE_ID_KEY, "")
            for image in images
            if not image["aliases"]
        }

    def stored_images(self) -> list[StoredImage]:
        """List the images of the store that came from Glance; what else is there is not ours.

        Such an image has its Glance id both as a property and as an alias.
        """
        images = self.get("images", params={"recursion": "1"})
        return [stored for image in images if (stored := _stored(image))]

    def upload_image(
        self, metadata: bytes, rootfs: Iterable[bytes], properties: Mapping[str, str]
    ) -> str | None:
        """Stream a split image into LXD's store.

        What ``rootfs`` raises is raised, and LXD is left with nothing.

        :param rootfs: pieces of an archive; never held in memory as a whole
        :returns: sha256 of all that LXD got; None when it had an equal image already
        """
        upload = Upload(metadata, rootfs)
        headers = {
            "Content-Type": upload.content_type,
            "X-LXD-properties": parse.urlencode(properties),
        }
        bounds = {"timeout": self.timeouts.image, "request_timeout": self.timeouts.image}
        try:
            result = self.operate("POST", "images", data=iter(upload), headers=headers, **bounds)
        except exception.AlreadyExists:
            return None
        except _SourceFailedError as failure:
            raise (upload.error or failure) from None
        return str(result["metadata"]["fingerprint"])

    def describe_image(self, fingerprint: str, properties: Mapping[str, str]) -> None:
        """Add properties to an image's."""
        self.request("PATCH", "images", fingerprint, json={"properties": dict(properties)})

    def publish(
        self, instance: str, snapshot: str, compression: str, properties: Mapping[str, str]
    ) -> str:
        """Make a unified image of an instance's snapshot, and return its fingerprint.

        LXD writes the whole of it to its disk first.

        :param compression: a program that LXD knows, such as ``zstd``, with arguments if this LXD
            takes any, or ``none``
        :param properties: become a part of it; LXD refuses an image that equals another one
        :raises NotFound: there is no such instance or snapshot
        """
        body = {
            "source": {"type": "snapshot", "name": f"{instance}/{snapshot}"},
            "compression_algorithm": compression,
            "properties": dict(properties),
        }
        result = self.operate("POST", "images", json=body, timeout=self.timeouts.image)
        return str(result["metadata"]["fingerprint"])

    @contextlib.contextmanager
    def export(self, fingerprint: str) -> Iterator[BinaryIO]:
        """Stream a unified image out of the store; NotFound without it.

        Reading raises LXDUnreachable when LXD goes away meanwhile.
        """
        path = ("images", fingerprint, "export")
        with self.request("GET", *path, stream=True, is_api=False) as response:
            yield io.BufferedReader(Export(response, fingerprint), _CHUNK)

    def add_alias(self, alias: str, fingerprint: str) -> None:
        """Name an image of the store; AlreadyExists if the alias is taken."""
        body = {"name": alias, "target": fingerprint, "description": "Glance image"}
        self.request("POST", "images", "aliases", json=body)

    def delete_image(self, fingerprint: str) -> None:
        """Delete an image with its aliases; NotFound without it."""
        self.operate("DELETE", "images", fingerprint)


def _stored(image: Mapping[str, Any]) -> StoredImage | None:
    properties = image["properties"]
    image_id = properties.get(IMAGE_ID_KEY, "")
    if image_id not in {alias["name"] for alias in image["aliases"]}:
        return None
    times = (image["uploaded_at"], image["last_used_at"], properties.get(USED_AT_KEY, ""))
    return StoredImage(image["fingerprint"], image_id, max(map(_time, times)))


def _time(text: str) -> datetime:
    """Read a time stamp of LXD's or ours; long ago for one that cannot be read."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return _NEVER
    return time if time.tzinfo else time.replace(tzinfo=UTC)
