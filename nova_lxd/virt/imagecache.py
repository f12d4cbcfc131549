"""Glance images in LXD's store: fetched once for each host, inspected, then shared.

A tenant's metadata never reaches LXD: what is uploaded is always a split image whose first part is
ours.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import nova.conf
from nova import objects
from nova.image import glance
from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import excutils, timeutils, units

from nova_lxd import exception
from nova_lxd.virt import download, rootfs
from nova_lxd.virt import image as image_translator
from nova_lxd.virt.model import (
    UNPACKED_KEY,
    CachedImage,
    Flavor,
    HostFacts,
    ImageSource,
    StoredImage,
)
from nova_lxd.virt.session import Session

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_NO_ROOM = ("no space left", "quota exceeded")
"""What LXD says when it is not the image that is bad."""


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
        """Glance ids of images that nobody needs and that LXD may have yet."""
        self._in_use: list[str] = []
        """Ids of the images that containers are being made of."""
        self._verified: set[tuple[str, ...]] = set()
        """Images, each with the certificates that somebody trusted and that vouch for it."""

    def discard_unfinished(self) -> None:
        """Remove what a nova-compute that was killed had begun to fetch."""
        for fingerprint in self._session.images_without_alias():
            self._session.delete_image(fingerprint)
        download.discard_unfinished()

    def ensure(
        self, context: Any, source: ImageSource, flavor: Flavor, trusted_certs: Any
    ) -> CachedImage:
        """Have the image in LXD's store, and make sure that it fits the flavor's root disk.

        Simultaneous first boots of one image download it once; later ones ask Glance nothing.

        :raises ImageRefused: its content is not a root file system we may hand to LXD, or not what
            was signed
        :raises DiskTooSmall: it does not fit
        """
        limit = flavor.root_gb * units.Gi
        found, fetched = self._have(context, source, limit, trusted_certs)
        if download.must_be_verified(trusted_certs):
            self._check_signature(context, source, trusted_certs, fetched=fetched)
        if limit and found.unpacked_bytes > limit:
            raise exception.DiskTooSmall(limit, found.unpacked_bytes)
        return found

    def _check_signature(
        self, context: Any, source: ImageSource, trusted_certs: Any, *, fetched: bool
    ) -> None:
        """Verify an image that was fetched for somebody who trusted others, or anybody."""
        trust = (source.id, *sorted(trusted_certs.ids if trusted_certs else ()))
        if not fetched and trust not in self._verified:
            download.verify(context, source, trusted_certs)
        self._verified.add(trust)

    def prefetch(self, context: Any, image_id: str) -> bool:
        """Have an image in LXD's store before a server wants it; tell whether it was fetched now.

        :raises ImageRefused: it is not a root file system we may hand to LXD
        """
        if self._session.find_image(image_id):
            return False
        meta = objects.ImageMeta.from_dict(glance.API().get(context, image_id))
        source = source_of(meta)
        image_translator.check_metadata(source, self._host)
        _, fetched = self._have(context, source, 0, None)
        return fetched

    def _have(
        self, context: Any, source: ImageSource, limit_bytes: int, trusted_certs: Any
    ) -> tuple[CachedImage, bool]:
        """Return the image, and whether it had to be fetched."""
        with _locked(source.id):
            if found := self._session.find_image(source.id):
                return found, False
            return self._import(context, source, limit_bytes, trusted_certs), True

    @contextlib.contextmanager
    def used(
        self, context: Any, source: ImageSource, flavor: Flavor, trusted_certs: Any
    ) -> Iterator[CachedImage]:
        """Have an image (see ``ensure``) while the block makes a container of it.

        Until the block's end the image is not removed as one that nobody uses.

        :raises ImageRefused: LXD cannot unpack it; the next server of it fetches it anew
        """
        self._in_use.append(source.id)
        try:
            image = self.ensure(context, source, flavor, trusted_certs)
            with self._forgotten_if_bad(source, image):
                yield image
        finally:
            self._in_use.remove(source.id)

    @contextlib.contextmanager
    def _forgotten_if_bad(self, source: ImageSource, image: CachedImage) -> Iterator[None]:
        try:
            yield
        except exception.LXDError as error:
            text = str(error).lower()
            if "unpack failed" not in text or any(words in text for words in _NO_ROOM):
                raise
            with _best_effort():
                self.forget(image.fingerprint)
            raise exception.ImageRefused(source.id, f"LXD cannot unpack it: {error}") from error

    def forget(self, fingerprint: str) -> None:
        """Drop an image that LXD could not unpack."""
        with contextlib.suppress(exception.NotFound):
            self._session.delete_image(fingerprint)

    def _import(
        self, context: Any, source: ImageSource, limit_bytes: int, trusted_certs: Any
    ) -> CachedImage:
        self.discard_unwanted()
        with timeutils.StopWatch() as watch, contextlib.ExitStack() as stack:
            incoming = stack.enter_context(download.opened(context, source, trusted_certs))
            form = image_translator.check_content(source.id, incoming.peek())
            stream: BinaryIO = incoming
            if form in image_translator.SEEKABLE:
                stream = stack.enter_context(download.seekable(incoming, source.id))
            limits = (limit_bytes, CONF.lxd.image_max_gb * units.Gi)
            image = self._upload(source, rootfs.Screening(stream, form, source.id, *limits))
        LOG.info(
            "Image %s is in LXD's store after %.1f s, %d bytes unpacked",
            source.id,
            watch.elapsed(),
            image.unpacked_bytes,
        )
        return image

    def _upload(self, source: ImageSource, screening: rootfs.Screening) -> CachedImage:
        """Send an image to LXD while it is inspected; LXD has it when it was found good."""
        metadata = image_translator.metadata_tarball(source, self._host)
        properties = image_translator.image_properties(source, self._host)
        digest = hashlib.sha256(metadata)
        self._unwanted.discard(source.id)
        try:
            space = self._session.pool_space(CONF.lxd.pool)
            pieces = _checked(screening, digest, space.total - space.used)
            found = self._session.upload_image(metadata, pieces, properties)
            image = CachedImage(digest.hexdigest(), screening.facts.unpacked_bytes)
            self._check_arrived(found, image)
            size = str(image.unpacked_bytes)
            self._session.describe_image(image.fingerprint, {UNPACKED_KEY: size})
            self._session.add_alias(source.id, image.fingerprint)
        except Exception:  # noqa: BLE001 -- re-raised as it is
            with excutils.save_and_reraise_exception():
                self.discard(source.id)
        return image

    def _check_arrived(self, found: str | None, image: CachedImage) -> None:
        if found not in (None, image.fingerprint):
            raise exception.LXDError(f"LXD got {found} of what was sent as {image.fingerprint}")

    def keep(self, image_id: str, fingerprint: str) -> None:
        """Let servers be made of an image of the store that Glance has as well.

        :raises AlreadyExists: it was fetched from Glance meanwhile
        """
        with _locked(image_id):
            self._session.add_alias(image_id, fingerprint)

    def remove_unused(self, image: StoredImage) -> bool:
        """Remove an image unless it was used, or removed, since it was looked at.

        ``ensure`` takes the same lock, so an image that it found is either in use by then or
        fetched anew.

        :returns: whether it was removed
        """
        with _locked(image.image_id):
            if image.image_id in self._in_use or image not in self._session.stored_images():
                return False
            self._session.delete_image(image.fingerprint)
        return True

    def discard(self, image_id: str) -> None:
        """Remove an image that has no name yet and is not to get one.

        LXD may still be making it, when its answer was lost, or be away: what is there later goes
        when the next image begins, or in the next pass over the cache.
        """
        self._unwanted.add(image_id)
        with _best_effort():
            if self._delete_nameless({image_id}):
                self._unwanted.discard(image_id)

    def discard_unwanted(self) -> None:
        """Remove what is in LXD after all."""
        unwanted = set(self._unwanted)
        if unwanted:
            with _best_effort():
                self._delete_nameless(unwanted)
                self._unwanted -= unwanted

    def _delete_nameless(self, image_ids: set[str]) -> bool:
        """Delete the images without an alias that were for these ids; tell whether there were."""
        nameless = self._session.images_without_alias()
        found = [fingerprint for fingerprint, each in nameless.items() if each in image_ids]
        for fingerprint in found:
            self.forget(fingerprint)
        return bool(found)


def _locked(image_id: str) -> contextlib.AbstractContextManager[Any]:
    """Hold what becomes of one image in the store."""
    lock: contextlib.AbstractContextManager[Any] = lockutils.lock(f"lxd-image-{image_id}")
    return lock


def _checked(screening: rootfs.Screening, digest: Any, room: int) -> Iterator[bytes]:
    """Hash what LXD is sent; before the end of it, see that the pool has the room it needs."""
    for piece in screening:
        digest.update(piece)
        yield piece
    needed = screening.facts.unpacked_bytes
    if needed > room:
        raise exception.LXDDriverError(
            f"the image needs {needed} bytes and storage pool {CONF.lxd.pool} has {room} left"
        )


@contextlib.contextmanager
def _best_effort() -> Iterator[None]:
    try:
        yield
    except exception.LXDDriverError as error:
        LOG.warning("Could not remove an image that nobody needs: %s", error)
