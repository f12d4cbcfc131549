"""Snapshots: a server's root disk as a Glance image, while the server goes on.

LXD takes a snapshot, writes an image of it to its own store, and that is streamed to Glance: a
unified image, of which a server that is made from it elsewhere gets the root file system alone
(``repack.py``).

In the store it stays, under its Glance id: the next server of it on this host waits for no
download.  LXD may use that copy as it is, with its metadata, because no tenant ever had it: LXD
wrote its ``metadata.yaml`` from ours, which has no templates and lies outside the guest's root, and
packed the root itself.
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
from nova_lxd.virt.flavor import PRIVILEGED, parse_boolean
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.model import IMAGE_ID_KEY, UNPACKED_KEY, HostFacts
from nova_lxd.virt.session import Session
from nova_lxd.virt.undo import remove_all

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

SNAPSHOT = instance_translator.IMAGE_SNAPSHOT
_PROGRAMS = {
    # All CPUs; LXD 5.0.2 takes arguments, later ones may not.
    "zstd": ("zstd -T0", "zstd", "gzip"),
    "gzip": ("gzip",),
    "none": ("none",),
}
"""What LXD is asked to compress with, by option: the next where it does not take the one before."""

_NOT_TAKEN = ("executable file not found", "invalid compression algorithm")
"""What LXD says of a program that is not installed where the image is packed, and of one that it
does not know, does not find or does not allow (5.0.2)."""


class Snapshots:
    """Makes Glance images of servers."""

    def __init__(
        self, session: Session, host: HostFacts, containers: Containers, images: ImageCache
    ) -> None:
        self._session = session
        self._host = host
        self._containers = containers
        self._images = images
        self._left: set[str] = set()
        """Servers of which LXD may have a snapshot yet that nobody needs."""

    def take(
        self, context: Any, instance: Any, image_id: str, update_task_state: Callable[..., None]
    ) -> None:
        """Fill a Glance image with a server's root disk; LXD's copy stays for servers made here.

        After a failure nothing is left of either.  What the guest had written to its disk by then
        is in it, as after a power cut.

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
        kept = False
        try:
            fingerprint = self._publish(instance, image_id)
            update_task_state(
                task_state=task_states.IMAGE_UPLOADING,
                expected_state=task_states.IMAGE_PENDING_UPLOAD,
            )
            with self._session.export(fingerprint) as data:
                api.update(context, image_id, metadata, data=data, purge_props=False)
            kept = self._keep(instance, image_id, fingerprint)
        finally:
            if not kept:
                self._images.discard(image_id)

    def _keep(self, instance: Any, image_id: str, fingerprint: str) -> bool:
        """Let servers be made of LXD's copy; tell whether it is to stay.

        Root in a privileged container can make device nodes, which the inspection on the way from
        Glance refuses; so of such a server only what was inspected is used.
        """
        privileged = instance.flavor.extra_specs.get(PRIVILEGED.name, "")
        if parse_boolean(privileged):
            return False
        try:
            self._images.keep(image_id, fingerprint)
        except exception.LXDDriverError as error:
            text = "Image %s is not kept in LXD's store, only in Glance: %s"
            LOG.info(text, image_id, error, instance=instance)
            return False
        return True

    def _publish(self, instance: Any, image_id: str) -> str:
        """Write an image of the server to LXD's store and return its fingerprint."""
        # A new snapshot takes the place of one that is left.
        self._left.discard(instance.name)
        try:
            properties = {IMAGE_ID_KEY: image_id, UNPACKED_KEY: str(self._measure(instance))}
            self._containers.take_snapshot(instance.name, SNAPSHOT)
            return self._compress(instance, properties)
        finally:
            remove_all(instance, [("snapshot", functools.partial(self._drop, instance.name))])

    def _drop(self, name: str) -> None:
        self._left.add(name)
        self._containers.drop_snapshot(name, SNAPSHOT)
        self._left.discard(name)

    def drop_left(self) -> None:
        """Drop the snapshots that LXD would not, or was not there to drop."""
        for name in set(self._left):
            try:
                self._drop(name)
            except exception.LXDDriverError as error:
                LOG.warning("A snapshot of %s is not dropped yet: %s", name, error)

    def _measure(self, instance: Any) -> int:
        """Return what the root disk needs at the least; 0 where the storage pool cannot tell.

        On btrfs LXD 5.0.2 counts only what the disk shares with nothing: not what is its image's
        still, and next to nothing once there is a snapshot of it.  That refuses no flavor wrongly:
        Nova itself has written the disk of the server's flavor to the image as ``min_disk``, and
        what does not fit all the same LXD refuses.
        """
        return self._session.usage(instance.name).disk_bytes or 0

    def _compress(self, instance: Any, properties: dict[str, str]) -> str:
        publish = functools.partial(self._session.publish, instance.name, SNAPSHOT)
        *others, last = _PROGRAMS[CONF.lxd.snapshot_compression]
        for program in others:
            try:
                return publish(program, properties)
            except exception.LXDError as error:
                if not any(text in str(error).lower() for text in _NOT_TAKEN):
                    raise
                LOG.debug("LXD does not compress with %s: %s", program, error, instance=instance)
        if others:
            text = "[lxd]snapshot_compression: %s is used, LXD does not take %s"
            LOG.warning(text, last, others[-1], instance=instance)
        return publish(last, properties)

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
