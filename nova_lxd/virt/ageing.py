"""Images that no server uses leave LXD's store, by Nova's own options for image caches.

Nova counts as used what a server of this host, or of one that shares its ``instances_path``, has
as its image, as libvirt's driver does: a server does not need it to run, but to be rebuilt.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import nova.conf
from nova.virt import imagecache
from oslo_log import log as logging

from nova_lxd import exception
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.model import USED_AT_KEY, StoredImage
from nova_lxd.virt.session import Session

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_LONGEST_MARGIN = timedelta(hours=1)


class Ageing(imagecache.ImageCacheManager):  # type: ignore[misc]
    """Notes which images are used and removes those that have not been for long."""

    def __init__(self, session: Session, images: ImageCache) -> None:
        super().__init__()
        self._session = session
        self._images = images

    def update(self, context: Any, all_instances: Any) -> None:
        """Look at every image that came from Glance, or was made here for it, once.

        What LXD refuses of one image does not keep the others; without LXD the next pass does all.
        """
        self._images.discard_unwanted()
        used = self._list_running_instances(context, all_instances)["used_images"]
        try:
            for image in self._session.stored_images():
                self._treat(image, image.image_id in used)
        except exception.LXDDriverError as error:
            LOG.warning("The image cache is looked at again in the next pass: %s", error)

    def _treat(self, image: StoredImage, used: bool) -> None:
        try:
            if used:
                self._note_use(image)
            elif self.remove_unused_base_images:
                self._remove_if_old(image)
        except exception.NotFound:
            LOG.debug("Image %s is gone already", image.image_id)
        except exception.LXDError as error:
            LOG.warning("Image %s is left as it is: %s", image.image_id, error)

    def _note_use(self, image: StoredImage) -> None:
        """Write the time to the image, unless the one that is there is good enough."""
        now = datetime.now(UTC)
        if now - image.used_at >= min(_minimum_age() / 4, _LONGEST_MARGIN):
            text = now.isoformat(timespec="seconds")
            self._session.describe_image(image.fingerprint, {USED_AT_KEY: text})

    def _remove_if_old(self, image: StoredImage) -> None:
        age = datetime.now(UTC) - image.used_at
        if age < _minimum_age() or not self._images.remove_unused(image):
            return
        text = "Image %s is removed from LXD's store: no server has used it for %d s"
        LOG.info(text, image.image_id, age.total_seconds())


def _minimum_age() -> timedelta:
    return timedelta(seconds=CONF.image_cache.remove_unused_original_minimum_age_seconds)
