"""What happens to one server.  Every step that makes something stands beside the way to undo it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import nova.conf
from nova import exception as nova_exception
from nova import objects, thread_pool_factory
from nova.compute import task_states, vm_states
from nova.virt import driver as nova_driver
from oslo_log import log as logging
from oslo_utils import excutils

from nova_lxd import exception
from nova_lxd.virt import configdrive, devicetags, network, personality
from nova_lxd.virt import flavor as flavor_translator
from nova_lxd.virt import image as image_translator
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt import vif as vif_translator
from nova_lxd.virt.configdrive import ConfigDrives
from nova_lxd.virt.console import ConsoleLogs
from nova_lxd.virt.container import Containers
from nova_lxd.virt.idmap import IdRanges
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.model import HostFacts
from nova_lxd.virt.order import Order, order_of
from nova_lxd.virt.session import Session
from nova_lxd.virt.timeline import Timeline
from nova_lxd.virt.undo import Step, Undo, remove_all

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


class Lifecycle:
    """Carries out what Nova asks for one server at a time."""

    def __init__(
        self,
        session: Session,
        host: HostFacts,
        containers: Containers,
        images: ImageCache,
        ids: IdRanges,
        consoles: ConsoleLogs,
        drives: ConfigDrives,
        virtapi: Any,
    ) -> None:
        self._session = session
        self._host = host
        self._containers = containers
        self._images = images
        self._ids = ids
        self._consoles = consoles
        self._drives = drives
        self._virtapi = virtapi

    # -- making and removing

    def spawn(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        network_info: Any,
        block_device_info: Any,
        injected_files: Any,
        admin_password: str,
        power_on: bool,
    ) -> None:
        """Build a server and start it, or leave nothing of it.

        The network is most of a boot, so image, profile and container are made while the ports are
        plugged and Neutron wires them; only the start waits for both.
        """
        timeline = Timeline()
        # Nova makes the ports meanwhile; whoever reads network_info waits for that.
        order = self._accept(
            context, instance, image_meta, network_info, block_device_info, injected_files
        )
        timeline.done("allocation")
        if instance.vm_state == vm_states.SHELVED_OFFLOADED:
            # What an unshelving left that failed while LXD was away: its image is in Glance.
            self._containers.remove(instance)
        configdrive.update_instance(instance)
        devicetags.record(context, instance, network_info)
        drive = functools.partial(
            self._drives.create, instance, network_info, injected_files, admin_password
        )
        files = functools.partial(
            personality.put, self._session, instance.name, injected_files or ()
        )
        awaited = order.vifs if power_on else []
        with Undo(instance) as undo:
            make = (undo, context, instance, order, drive, files, timeline)
            with network.plugged_event(self._virtapi, instance, awaited):
                creation = thread_pool_factory.spawn(self._create, *make)
                with _waiting_for(creation):
                    _plug(undo, instance, order, network_info)
                    timeline.done("ports")
                if instance.task_state == task_states.REBUILD_SPAWNING:
                    _end_if_deleted(context, instance)
            timeline.done("network")
            if power_on:
                self._session.change_state(instance.name, "start")
        LOG.info("Built in %.2f s (%s)", timeline.elapsed(), timeline, instance=instance)

    def check_rebuild(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        network_info: Any,
        block_device_info: Any,
        injected_files: Any,
    ) -> None:
        """Refuse what spawn would refuse, and have the image here, while the old root still exists.

        :raises Refused: the server cannot be built so; nothing of it was touched
        """
        order = self._accept(
            context, instance, image_meta, network_info, block_device_info, injected_files
        )
        self._images.ensure(context, order.source, order.flavor, order.trusted_certs)

    def destroy(
        self, instance: Any, network_info: Any, *, disks: bool = True, vifs: bool = True
    ) -> None:
        """Remove all that is left of a server, half built or whole; nothing left is success.

        :param disks: without it the container stays, stopped
        """
        steps: list[Step] = [("container", functools.partial(self._containers.stop, instance))]
        if disks:
            steps = [
                ("rescue container", functools.partial(self._containers.remove_rescue, instance)),
                ("container", functools.partial(self._containers.remove, instance)),
                *self._drive_steps(instance),
                ("console log", functools.partial(self._consoles.discard, instance.uuid)),
            ]
        if vifs:
            steps.append(("ports", functools.partial(network.unplug, instance, network_info)))
        errors = remove_all(instance, steps)
        if errors:
            raise errors[0]

    def _drive_steps(self, instance: Any) -> list[Step]:
        if not configdrive.required_by(instance):
            return []
        return [("config drive", functools.partial(self._drives.remove, instance))]

    def _accept(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        network_info: Any,
        block_device_info: Any,
        injected_files: Any,
    ) -> Order:
        """Read an order, and refuse what cannot work before anything is made or downloaded."""
        _refuse_unsupported(instance, block_device_info, injected_files)
        order = order_of(context, instance, image_meta, network_info)
        flavor_translator.profile_config(order.flavor, self._host)
        flavor_translator.root_device(order.flavor, self._host)
        image_translator.check_metadata(order.source, self._host)
        image_translator.check_size(order.source, order.flavor)
        for vif in order.vifs:
            vif_translator.check(vif)
        return order

    def _create(
        self,
        undo: Undo,
        context: Any,
        instance: Any,
        order: Order,
        drive: Callable[[], None],
        files: Callable[[], None],
        timeline: Timeline,
    ) -> None:
        """Make the container, with what the tenant injects on a config drive or in its root."""
        needed = (order.source, order.flavor, order.trusted_certs)
        reserved = self._ids.reserved(order.server.name)
        with self._images.used(context, *needed) as image, reserved as ids:
            spec = instance_translator.compose(
                order.server, order.flavor, order.vifs, self._host, image.fingerprint, ids
            )
            if self._containers.exists(spec.name):
                raise exception.AlreadyExists(f"LXD has an instance {spec.name} already")
            undo.add("profile", self._containers.profiles.sweep)
            if order.server.config_drive:
                undo.add("config drive", functools.partial(self._drives.remove, instance))
                drive()
            undo.add("container", functools.partial(self._containers.remove_instance, spec.name))
            self._containers.create(spec)
        if not order.server.config_drive:
            files()
        timeline.done("container")


def _plug(undo: Undo, instance: Any, order: Order, network_info: Any) -> None:
    """Wire a server's ports to the host, without what an earlier server left in their way."""
    network.remove_stale_taps(order.vifs)
    undo.add("ports", functools.partial(network.unplug, instance, network_info))
    network.plug(instance, network_info)


@contextlib.contextmanager
def _waiting_for(work: Any) -> Any:
    """Run the block beside ``work`` and end only when both have; the block's error comes first."""
    try:
        yield
    except Exception:  # noqa: BLE001 -- re-raised as it is
        with excutils.save_and_reraise_exception():
            work.exception()
    work.result()


def _end_if_deleted(context: Any, instance: Any) -> None:
    """End a spawn whose server was deleted meanwhile.

    Nova holds no lock while it rebuilds.  It marks a server before it removes it, so one that has
    no mark yet will be removed with all that was made.  Nobody would report its ports any more.
    """
    task = objects.Instance.get_by_uuid(context, instance.uuid).task_state
    if task == task_states.DELETING:
        raise nova_exception.UnexpectedDeletingTaskStateError(
            instance_uuid=instance.uuid,
            expected={"task_state": [task_states.REBUILD_SPAWNING]},
            actual={"task_state": task},
        )


def _refuse_unsupported(instance: Any, block_device_info: Any, injected_files: Any) -> None:
    """Refuse what a tenant can ask for and would not get, instead of leaving it out silently."""
    if nova_driver.block_device_info_get_mapping(block_device_info):
        raise exception.Refused(
            "this host's LXD driver does not attach volumes yet: boot from an image without volumes"
        )
    if not configdrive.required_by(instance):
        personality.check(injected_files or ())
