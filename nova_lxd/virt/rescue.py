"""Rescue: another root to boot from, the own one beside it.

A rescued server is two containers: its own, stopped and without NICs, and beside it one that was
made from the rescue image, has the NICs and sees the own root.  LXD starts no container, and gives
none a NIC, while another one, even a stopped one, has the same MAC address on the same bridge
(measured on 5.0.2).

The step that takes the NICs from the server's own container also marks it.  So what an interrupted
rescue or unrescue left can be told, and the next start mends it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from nova import objects
from nova.image import glance
from nova.virt import hardware
from oslo_log import log as logging
from oslo_utils import timeutils

from nova_lxd import exception
from nova_lxd.virt import image as image_translator
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.container import Containers
from nova_lxd.virt.copies import vifs_of
from nova_lxd.virt.guest import Guests
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.model import HostFacts, InstanceState
from nova_lxd.virt.order import Order, order_of
from nova_lxd.virt.power import Power
from nova_lxd.virt.session import Session
from nova_lxd.virt.undo import Undo

LOG = logging.getLogger(__name__)


class Rescue:
    """Puts servers into rescue and takes them out."""

    def __init__(
        self,
        session: Session,
        host: HostFacts,
        containers: Containers,
        images: ImageCache,
        power: Power,
        guests: Guests,
    ) -> None:
        self._session = session
        self._host = host
        self._containers = containers
        self._images = images
        self._power = power
        self._guests = guests

    def rescue(
        self, context: Any, instance: Any, network_info: Any, image_meta: Any, password: str
    ) -> None:
        """Boot a server from another image, or leave it stopped as it was.

        :param image_meta: the rescue image; one without an id stands for the server's own
        :raises Refused: the image, or the storage pool that the server lies on, cannot be used
        """
        if hardware.check_hw_rescue_props(image_meta):
            raise exception.Refused(
                "containers have no devices to boot from: take hw_rescue_device and hw_rescue_bus "
                "off the rescue image, or choose another one"
            )
        if not image_meta.obj_attr_is_set("id"):
            image_meta = objects.ImageMeta.from_image_ref(context, glance.API(), instance.image_ref)
        own = self._session.state(instance.name)
        self._check_pool(own)
        order = order_of(context, instance, image_meta, network_info)
        image_translator.check_metadata(order.source, self._host)
        image_translator.check_size(order.source, order.flavor)
        with timeutils.StopWatch() as watch, Undo(instance) as undo:
            self._prepare(own, instance)
            name = self._create(undo, context, instance, order, own)
            self._lend_nics(order)
            self._power.start(instance, network_info, self._session.state(name))
            self._set_password(instance, password)
        LOG.info("In rescue after %.2f s", watch.elapsed(), instance=instance)

    def unrescue(self, context: Any, instance: Any) -> None:
        """Boot a server from its own root again; one that does so already is left alone."""
        current = self._containers.current(instance)
        if not current.role and current.status != "Stopped":
            return
        network_info = instance.get_network_info()
        self._containers.leave_rescue(instance, vifs_of(instance, network_info))
        self._power.start(instance, network_info, self._session.state(instance.name))

    def _check_pool(self, own: InstanceState) -> None:
        driver = self._session.pool_driver(own.pool)
        if driver not in instance_translator.RESCUED_POOLS:
            known = " and ".join(sorted(instance_translator.RESCUED_POOLS))
            raise exception.Refused(
                f"the server lies on LXD's storage pool {own.pool!r} of driver {driver!r}, which "
                "does not show the root disk of a stopped container; rescue works on pools of "
                f"the drivers {known}"
            )

    def _prepare(self, own: InstanceState, instance: Any) -> None:
        """Stop the server, and remove what an earlier rescue left."""
        if own.status != "Stopped":
            self._session.change_state(own.name, "stop", force=True)
        self._containers.remove_rescue(instance)

    def _create(
        self, undo: Undo, context: Any, instance: Any, order: Order, own: InstanceState
    ) -> str:
        """Make the rescue container, stopped, and return its name."""
        folder = str(Path(self._session.endpoint).parent)
        root = instance_translator.root_path(folder, own.pool, self._session.project, own.name)
        needed = (order.source, order.flavor, order.trusted_certs)
        with self._images.used(context, *needed) as image:
            own_spec = self._containers.spec_of(order)
            spec = instance_translator.rescue(own_spec, image.fingerprint, root)
            undo.add("profile", self._containers.profiles.sweep)
            undo.add(
                "rescue container",
                functools.partial(self._containers.leave_rescue, instance, order.vifs),
            )
            self._containers.create(spec)
        return spec.name

    def _lend_nics(self, order: Order) -> None:
        size = instance_translator.rescued_root_size(order.flavor)
        devices = functools.partial(instance_translator.without_nics, root_size=size)
        self._session.change_role(order.server.name, instance_translator.RESCUED_ROLE, devices)

    def _set_password(self, instance: Any, password: str) -> None:
        """Set it where the image can; the tenant may have other ways in, such as a key."""
        if not password:
            return
        try:
            self._guests.set_password(instance, password)
        except exception.LXDDriverError as error:
            text = "The rescue image's administrator keeps the image's password: %s"
            LOG.warning(text, error, instance=instance)
