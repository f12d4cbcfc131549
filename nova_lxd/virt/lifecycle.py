"""What happens to one server.  Every step that makes something stands beside the way to undo it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import nova.conf
from nova import thread_pool_factory
from nova.virt import configdrive
from nova.virt import driver as nova_driver
from oslo_log import log as logging
from oslo_utils import excutils, timeutils

from nova_lxd import exception
from nova_lxd.virt import flavor as flavor_translator
from nova_lxd.virt import image as image_translator
from nova_lxd.virt import imagecache, network
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt import vif as vif_translator
from nova_lxd.virt.console import ConsoleLogs
from nova_lxd.virt.idmap import IdRanges
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.model import Flavor, HostFacts, ImageSource, InstanceSpec, Server, Vif
from nova_lxd.virt.session import Session

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

Step = tuple[str, Callable[[], None]]
"""What is removed, in a word, and how."""


class Undo:
    """Remembers how to undo what was done; a block that fails undoes it, the latest first.

    A step is added before it is taken: one whose outcome is unknown must be undone too.
    """

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self._steps: list[Step] = []

    def add(self, what: str, action: Callable[[], None]) -> None:
        """Remember one step."""
        self._steps.append((what, action))

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            remove_all(self._instance, reversed(self._steps))


def remove_all(instance: Any, steps: Iterable[Step]) -> list[exception.LXDDriverError]:
    """Take every step, whatever happens to the others, and say which failed."""
    errors = []
    for what, action in steps:
        try:
            action()
        except exception.LXDDriverError as error:
            LOG.warning("Could not remove the %s: %s", what, error, instance=instance)
            errors.append(error)
    return errors


@dataclass(frozen=True, slots=True)
class Order:
    """One server as it was ordered: Nova's objects read once."""

    server: Server
    flavor: Flavor
    source: ImageSource
    vifs: list[Vif]
    trusted_certs: Any


class Lifecycle:
    """Carries out what Nova asks for one server at a time."""

    def __init__(
        self,
        session: Session,
        host: HostFacts,
        images: ImageCache,
        ids: IdRanges,
        consoles: ConsoleLogs,
        virtapi: Any,
    ) -> None:
        self._session = session
        self._host = host
        self._images = images
        self._ids = ids
        self._consoles = consoles
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
        power_on: bool,
    ) -> None:
        """Build a server and start it, or leave nothing of it.

        The network is most of a boot, so image, profile and container are made while the ports are
        plugged and Neutron wires them; only the start waits for both.
        """
        _refuse_unsupported(instance, block_device_info, injected_files)
        order = _order(context, instance, image_meta, network_info)
        self._check(order)
        watch = timeutils.StopWatch()
        with watch, Undo(instance) as undo:
            awaited = order.vifs if power_on else []
            with network.plugged_event(self._virtapi, instance, awaited):
                creation = thread_pool_factory.spawn(self._create, undo, context, order)
                with _waiting_for(creation):
                    undo.add("ports", functools.partial(network.unplug, instance, network_info))
                    network.plug(instance, network_info)
            if power_on:
                network.remove_taps(order.vifs)
                self._session.change_state(instance.name, "start")
        LOG.info("Built in %.2f s", watch.elapsed(), instance=instance)

    def destroy(
        self, instance: Any, network_info: Any, *, disks: bool = True, vifs: bool = True
    ) -> None:
        """Remove all that is left of a server, half built or whole; nothing left is success.

        :param disks: without it the container stays, stopped
        """
        steps: list[Step] = [("container", functools.partial(self._stop, instance))]
        if disks:
            steps = [
                ("container", functools.partial(self._remove_container, instance)),
                ("console log", functools.partial(self._consoles.discard, instance.uuid)),
            ]
        if vifs:
            steps.append(("ports", functools.partial(network.unplug, instance, network_info)))
        errors = remove_all(instance, steps)
        if errors:
            raise errors[0]

    def _check(self, order: Order) -> None:
        """Refuse what cannot work before anything is made or downloaded."""
        flavor_translator.profile_config(order.flavor, self._host)
        flavor_translator.root_device(order.flavor, self._host)
        image_translator.check_metadata(order.source, order.flavor, self._host)
        for vif in order.vifs:
            vif_translator.check(vif)

    def _create(self, undo: Undo, context: Any, order: Order) -> None:
        image = self._images.ensure(context, order.source, order.flavor, order.trusted_certs)
        with self._ids.reserved() as ids:
            spec = instance_translator.compose(
                order.server, order.flavor, order.vifs, self._host, image.fingerprint, ids
            )
            self._create_profile(undo, spec)
            undo.add("container", functools.partial(self._remove_instance, spec.name))
            try:
                self._session.create_instance(spec)
            except exception.LXDError as error:
                with excutils.save_and_reraise_exception():
                    if "Unpack failed" in str(error):
                        self._images.forget(image)

    def _create_profile(self, undo: Undo, spec: InstanceSpec) -> None:
        if self.exists(spec.name):
            raise exception.AlreadyExists(f"LXD has an instance {spec.name} already")
        undo.add("profile", functools.partial(self._remove_profile, spec.name))
        create = functools.partial(
            self._session.create_profile, spec.name, spec.profile_config, spec.profile_devices
        )
        try:
            create()
        except exception.AlreadyExists:
            # Without its instance it was left by a removal that failed.
            self._remove_profile(spec.name)
            create()

    def _stop(self, instance: Any) -> None:
        with contextlib.suppress(exception.NotFound):
            if self._is_ours(instance):
                self._session.change_state(instance.name, "stop", force=True)

    def _remove_container(self, instance: Any) -> None:
        try:
            if not self._is_ours(instance):
                return
            self._remove_instance(instance.name)
        except exception.NotFound:
            LOG.debug("LXD has no such instance", instance=instance)
        self._remove_profile(instance.name)

    def _is_ours(self, instance: Any) -> bool:
        """Whether the instance of this name is this server, and not one that was in its way."""
        uuid = self._session.state(instance.name).uuid
        if uuid != instance.uuid:
            text = "LXD's instance %s is left alone: its user.nova.uuid is '%s'"
            LOG.warning(text, instance.name, uuid, instance=instance)
        return bool(uuid == instance.uuid)

    def _remove_instance(self, name: str) -> None:
        def stop_and_delete() -> None:
            self._session.change_state(name, "stop", force=True)
            self._session.delete_instance(name)

        # Both again: a start whose answer was lost can come to its end in between.
        with contextlib.suppress(exception.NotFound):
            self._session.retry_busy(stop_and_delete)

    def _remove_profile(self, name: str) -> None:
        with contextlib.suppress(exception.NotFound):
            self._session.delete_profile(name)

    # -- power

    def power_on(self, instance: Any, network_info: Any) -> None:
        """Start a server, its ports plugged anew: a host reboot takes the bridges away."""
        network.plug(instance, network_info)
        if self._session.state(instance.name).status == "Stopped":
            network.remove_taps(network.vifs_of(network_info))
            self._consoles.discard(instance.uuid)
        self._session.change_state(instance.name, "start")

    def power_off(self, instance: Any, timeout: int, retry_interval: int) -> None:
        """Stop a server: ask the guest for ``timeout`` seconds, then pull the plug.

        The request is repeated every ``retry_interval`` seconds, because one that comes before the
        guest's init is ready is lost (measured).
        """
        if not (timeout and self._shut_down(instance.name, timeout, retry_interval)):
            self._session.change_state(instance.name, "stop", force=True)

    def _shut_down(self, name: str, timeout: int, retry_interval: int) -> bool:
        watch = timeutils.StopWatch(duration=timeout)
        watch.start()
        while not watch.expired():
            patience = max(1, round(min(retry_interval or timeout, watch.leftover())))
            try:
                self._session.change_state(name, "stop", timeout=patience)
            except exception.NotFound:
                raise
            except exception.LXDError as error:
                LOG.debug("%s has not stopped after %d s: %s", name, patience, error)
            else:
                return True
        return False

    def reboot(self, instance: Any, network_info: Any, *, hard: bool) -> None:
        """Stop and start a server; a soft reboot asks the guest first.

        A hard one is Nova's repair, so its ports are wired from scratch: os-vif leaves a port that
        Open vSwitch knows as it is, even when half of its wires are gone.
        """
        self.power_off(instance, 0 if hard else CONF.shutdown_timeout, 0)
        if hard:
            unplug = functools.partial(network.unplug, instance, network_info)
            remove_all(instance, [("ports", unplug)])
        self.power_on(instance, network_info)

    def pause(self, instance: Any) -> None:
        """Freeze all processes of a server."""
        self._session.change_state(instance.name, "freeze")

    def unpause(self, instance: Any) -> None:
        """Let a frozen server go on."""
        self._session.change_state(instance.name, "unfreeze")

    def exists(self, name: str) -> bool:
        """Whether LXD has an instance of this name in our project."""
        try:
            self._session.state(name)
        except exception.NotFound:
            return False
        return True


@contextlib.contextmanager
def _waiting_for(work: Any) -> Any:
    """Run the block beside ``work`` and end only when both have; the block's error comes first."""
    try:
        yield
    except Exception:  # noqa: BLE001 -- re-raised as it is
        with excutils.save_and_reraise_exception():
            work.exception()
    work.result()


def _order(context: Any, instance: Any, image_meta: Any, network_info: Any) -> Order:
    return Order(
        server=Server(
            name=instance.name,
            uuid=instance.uuid,
            project_id=instance.project_id or "",
            user_id=instance.user_id or "",
            image_id=instance.image_ref or "",
            flavor_name=instance.flavor.name,
            request_id=getattr(context, "request_id", None) or "",
        ),
        flavor=_flavor(instance.flavor),
        source=imagecache.source_of(image_meta),
        vifs=network.vifs_of(network_info),
        trusted_certs=instance.trusted_certs,
    )


def _flavor(flavor: Any) -> Flavor:
    return Flavor(
        name=flavor.name,
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        root_gb=flavor.root_gb,
        ephemeral_gb=flavor.ephemeral_gb or 0,
        swap_mb=flavor.swap or 0,
        extra_specs=dict(flavor.extra_specs or {}),
    )


def _refuse_unsupported(instance: Any, block_device_info: Any, injected_files: Any) -> None:
    """Refuse what a tenant can ask for and would not get, instead of leaving it out silently."""
    if nova_driver.block_device_info_get_mapping(block_device_info):
        raise exception.Refused(
            "this host's LXD driver does not attach volumes yet: boot from an image without volumes"
        )
    if configdrive.required_by(instance):
        raise exception.Refused(
            "this host's LXD driver makes no config drive yet: leave it out (and [DEFAULT]"
            "force_config_drive unset), the metadata service tells the same"
        )
    if injected_files:
        raise exception.Refused(
            "this host's LXD driver injects no files yet: use user data instead of personality"
        )
