"""Glance images in LXD's store: fetched once for each host, inspected, then shared.

A tenant's metadata never reaches LXD: what is uploaded is always a split image whose first part is
ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import nova.conf
from nova.virt import images
from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import excutils, fileutils, timeutils, units

from nova_lxd import exception
from nova_lxd.virt import image as image_translator
from nova_lxd.virt import rootfs
from nova_lxd.virt.model import CachedImage, Flavor, HostFacts, ImageSource
from nova_lxd.virt.session import Session

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_CHUNK = units.Mi


def source_of(image_meta: Any) -> ImageSource:
    """Copy Nova's ImageMeta."""
    properties = image_meta.properties
    hints = {
        "hypervisor_type": properties.get("img_hv_type"),
        "vm_mode": properties.get("hw_vm_mode"),
        "os_distro": properties.get("os_distro"),
    }

    def field(name: str, default: Any) -> Any:
        return getattr(image_meta, name) if image_meta.obj_attr_is_set(name) else default

    created = field("created_at", None)
    return ImageSource(
        id=field("id", None) or "",
        name=field("name", None) or "",
        disk_format=field("disk_format", None) or "",
        container_format=field("container_format", None) or "",
        architecture=properties.get("hw_architecture") or "",
        size=field("size", None) or 0,
        min_disk_gb=field("min_disk", None) or 0,
        min_ram_mb=field("min_ram", None) or 0,
        created_at=int(created.timestamp()) if created else 0,
        properties={key: value for key, value in hints.items() if value},
    )


class ImageCache:
    """The images that servers of this host were made from."""

    def __init__(self, session: Session, host: HostFacts) -> None:
        self._session = session
        self._host = host
        self._unwanted: set[str] = set()
        """Fingerprints of images that nobody needs and that LXD may have yet."""

    def discard_unfinished(self) -> None:
        """Remove what a nova-compute that was killed had begun to fetch."""
        for fingerprint in self._session.images_without_alias():
            self._session.delete_image(fingerprint)
        for folder in Path(CONF.instances_path).glob(f"{_prefix()}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def ensure(
        self, context: Any, source: ImageSource, flavor: Flavor, trusted_certs: Any
    ) -> CachedImage:
        """Have the image in LXD's store, and make sure that it fits the flavor's root disk.

        Simultaneous first boots of one image download it once; later ones ask Glance nothing.

        :raises ImageRefused: its content is not a root file system we may hand to LXD
        :raises DiskTooSmall: it does not fit
        """
        found = self._session.find_image(source.id)
        if found is None:
            with lockutils.lock(f"lxd-image-{source.id}"):
                found = self._session.find_image(source.id) or self._import(
                    context, source, flavor, trusted_certs
                )
        limit = flavor.root_gb * units.Gi
        if limit and found.unpacked_bytes > limit:
            raise exception.DiskTooSmall(limit, found.unpacked_bytes)
        return found

    @contextlib.contextmanager
    def used(self, image: CachedImage) -> Iterator[None]:
        """Run the block that makes a container of an image; forget one that LXD cannot unpack."""
        try:
            yield
        except exception.LXDError as error:
            with excutils.save_and_reraise_exception():
                if "Unpack failed" in str(error):
                    self.forget(image)

    def forget(self, image: CachedImage) -> None:
        """Drop an image that LXD could not unpack."""
        with contextlib.suppress(exception.NotFound):
            self._session.delete_image(image.fingerprint)

    def _import(
        self, context: Any, source: ImageSource, flavor: Flavor, trusted_certs: Any
    ) -> CachedImage:
        self.discard_unwanted()
        watch = timeutils.StopWatch()
        try:
            with watch, _private_folder() as folder:
                path = str(folder / "rootfs")
                images.fetch(context, source.id, path, trusted_certs=trusted_certs)
                image = self._upload(source, flavor, path)
        except OSError as error:
            raise exception.LXDDriverError(
                f"image {source.id} cannot be kept in [DEFAULT]instances_path "
                f"({CONF.instances_path}) while it is fetched: {error}"
            ) from error
        LOG.info(
            "Image %s is in LXD's store after %.1f s, %d bytes unpacked",
            source.id,
            watch.elapsed(),
            image.unpacked_bytes,
        )
        return image

    def _upload(self, source: ImageSource, flavor: Flavor, path: str) -> CachedImage:
        metadata = image_translator.metadata_tarball(source, self._host)
        with open(path, "rb") as stream:
            facts = rootfs.inspect(stream, source.id, flavor.root_gb * units.Gi)
            fingerprint, size = _measure(metadata, _root(stream, facts))
            properties = image_translator.image_properties(source, self._host)
            properties["nova.unpacked_bytes"] = str(facts.unpacked_bytes)
            image = CachedImage(fingerprint, facts.unpacked_bytes)
            root = _Sized(_root(stream, facts), size)
            self._unwanted.discard(fingerprint)
            try:
                self._session.upload_image(fingerprint, metadata, root, properties)
                self._session.add_alias(source.id, fingerprint)
            except exception.LXDDriverError:
                with excutils.save_and_reraise_exception(), _best_effort():
                    # LXD may still take in what nobody waits for.
                    self._unwanted.add(fingerprint)
                    self.forget(image)
        return image

    def discard(self, fingerprint: str) -> None:
        """Remove an image that has done its work; if LXD is away, when the next one begins."""
        with _best_effort():
            self._unwanted.add(fingerprint)
            with contextlib.suppress(exception.NotFound):
                self._session.delete_image(fingerprint)
            self._unwanted.discard(fingerprint)

    def discard_unwanted(self) -> None:
        """Remove what is in LXD after all, before another image begins."""
        unwanted = set(self._unwanted)
        if not unwanted:
            return
        with _best_effort():
            for fingerprint in unwanted.intersection(self._session.images_without_alias()):
                self._session.delete_image(fingerprint)
            self._unwanted -= unwanted


@contextlib.contextmanager
def _best_effort() -> Iterator[None]:
    try:
        yield
    except exception.LXDDriverError as error:
        LOG.warning("Could not remove an image that nobody needs: %s", error)


class _Sized:
    """A stream of which the length is known beforehand."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self.len = size

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.len -= len(data)
        return data


def _root(stream: BinaryIO, facts: rootfs.RootfsFacts) -> BinaryIO:
    """Read from its beginning what LXD is given of an image file."""
    stream.seek(0)
    return rootfs.tarball(stream, facts)


def _measure(metadata: bytes, root: BinaryIO) -> tuple[str, int]:
    """Compute what LXD calls the fingerprint of a split image, and its second part's bytes."""
    digest = hashlib.sha256(metadata)
    size = 0
    while chunk := root.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _prefix() -> str:
    """Begin the names of our folders: on shared storage another host has its own."""
    return f"lxd-image-{re.sub('[^A-Za-z0-9.-]', '_', CONF.host)}-"


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a folder for one download that nobody else can read, and remove it whatever happens."""
    fileutils.ensure_tree(CONF.instances_path)
    with tempfile.TemporaryDirectory(prefix=_prefix(), dir=CONF.instances_path) as folder:
        yield Path(folder)
