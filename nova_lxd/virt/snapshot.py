"""Snapshots: a server's root disk as a Glance image, while the server goes on.

LXD takes a snapshot, writes an image of it to its own store, and that is streamed to Glance: a
unified image, of which a server that is made from it gets the root file system alone
(``repack.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import nova.conf
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.image import glance
from oslo_log import log as logging
from oslo_utils import excutils, timeutils

from nova_lxd import exception
from nova_lxd.virt import image as image_translator
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.container import Containers
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.model import HostFacts
from nova_lxd.virt.session import Session
from nova_lxd.virt.undo import remove_all

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

SNAPSHOT = instance_translator.IMAGE_SNAPSHOT
_NO_PROGRAM = "executable file not found"
"""What LXD says when the compression's program is not installed (5.0.2)."""


class Snapshots:
    """Makes Glance images of servers."""

    def __init__(
        self, session: Session, host: HostFacts, containers: Containers, images: ImageCache
    ) -> None:
        self._session = session
        self._host = host
        self._containers = containers
        self._images = images

    def take(
        self, context: Any, instance: Any, image_id: str, update_task_state: Callable[..., None]
    ) -> None:
        """Fill a Glance image with a server's root disk; nothing else is left of it.

        What the guest had written to its disk by then is in it, as after a power cut.

        :param update_task_state: Nova's; raises its errors when the server is being deleted
        :raises NotFound: the server has no container
        """
        api = glance.API()
        with timeutils.StopWatch() as watch:
            try:
                self._upload(api, context, instance, image_id, update_task_state)
            except Exception as error:  # noqa: BLE001 -- re-raised as it is
                # Nova removes what a snapshot that failed leaves in Glance, but not a shelving's.
                with excutils.save_and_reraise_exception():
                    text = "Image %s could not be made: %s"
                    LOG.warning(text, image_id, error, instance=instance)
                    compute_utils.delete_image(context, instance, api, image_id)
        LOG.info("Image %s was made in %.2f s", image_id, watch.elapsed(), instance=instance)

    def _upload(
        self,
        api: Any,
        context: Any,
        instance: Any,
        image_id: str,
        update_task_state: Callable[..., None],
    ) -> None:
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        metadata = self._metadata(instance, api.get(context, image_id))
        self._images.discard_unwanted()
        fingerprint = self._publish(instance, image_id)
        try:
            update_task_state(
                task_state=task_states.IMAGE_UPLOADING,
                expected_state=task_states.IMAGE_PENDING_UPLOAD,
            )
            with self._session.export(fingerprint) as data:
                api.update(context, image_id, metadata, data=data, purge_props=False)
        finally:
            self._images.discard(fingerprint)

    def _publish(self, instance: Any, image_id: str) -> str:
        """Write an image of the server to LXD's store and return its fingerprint."""
        drop = functools.partial(self._containers.drop_snapshot, instance.name, SNAPSHOT)
        try:
            self._containers.take_snapshot(instance.name, SNAPSHOT)
            return self._compress(instance, {"nova.image_id": image_id})
        finally:
            remove_all(instance, [("snapshot", drop)])

    def _compress(self, instance: Any, properties: dict[str, str]) -> str:
        publish = functools.partial(self._session.publish, instance.name, SNAPSHOT)
        try:
            return publish(CONF.lxd.snapshot_compression, properties)
        except exception.LXDError as error:
            if _NO_PROGRAM not in str(error):
                raise
            text = "[lxd]snapshot_compression: gzip is used, LXD lacks the program: %s"
            LOG.warning(text, error, instance=instance)
        return publish("gzip", properties)

    def _metadata(self, instance: Any, image: Any) -> dict[str, Any]:
        properties = {
            "image_location": "snapshot",
            "image_state": "available",
            "owner_id": instance.project_id,
            **image_translator.snapshot_properties(self._host),
        }
        return {
            "name": image["name"],
            "status": "active",
            "disk_format": "raw",
            "container_format": "bare",
            "properties": properties,
        }
