"""A server's container and profile in LXD: found, made what they should be, removed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

from oslo_log import log as logging
from oslo_utils import excutils

from nova_lxd import exception
from nova_lxd.virt import idmap
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.model import HostFacts, IdRange, InstanceSpec, InstanceState, Vif
from nova_lxd.virt.order import Order
from nova_lxd.virt.profiles import Profiles
from nova_lxd.virt.session import Session

LOG = logging.getLogger(__name__)


class Containers:
    """What several actions do to LXD's side of a server."""

    def __init__(self, session: Session, host: HostFacts) -> None:
        self._session = session
        self._host = host
        self.profiles = Profiles(session)

    def exists(self, name: str) -> bool:
        """Whether LXD has an instance of this name in our project."""
        try:
            self._session.state(name)
        except exception.NotFound:
            return False
        return True

    def current(self, instance: Any) -> InstanceState:
        """Read the container that the tenant sees: of a rescued server the rescue one.

        That one runs only while the server's own is stopped, so a running server costs one request.

        :raises NotFound: the server has none
        """
        own = self._session.state(instance.name)
        if own.status != "Stopped":
            return own
        return self._rescue_state(instance) or own

    def recent(self, instance: Any) -> InstanceState | None:
        """Return what the last look at all containers told of a server's; None to look anew.

        Of a rescued server only its own container is known so, which the tenant does not see.
        """
        own = self._session.recent(instance.name)
        return own if own and own.role != instance_translator.RESCUED_ROLE else None

    def _rescue_state(self, instance: Any) -> InstanceState | None:
        try:
            state = self._session.state(instance_translator.rescue_name(instance.name))
        except exception.NotFound:
            return None
        return state if state.uuid == instance.uuid else None

    def _own(self, instance: Any, name: str) -> InstanceState | None:
        """Read the container of this name if it is this server's, and not one in its way.

        :raises NotFound: there is none
        """
        state = self._session.state(name)
        if state.uuid == instance.uuid:
            return state
        text = "LXD's instance %s is left alone: its user.nova.uuid is '%s'"
        LOG.warning(text, name, state.uuid, instance=instance)
        return None

    def create(self, spec: InstanceSpec) -> None:
        """Create an instance with its profile; undoing it is the caller's."""
        with self.profiles.used(spec):
            self._session.create_instance(spec)

    def spec_of(self, order: Order) -> InstanceSpec:
        """Compose what a server that exists should be; it keeps its ids and its NICs' names.

        :raises NotFound: it has no container
        """
        state = self._session.state(order.server.name)
        ids = IdRange(state.id_base or 0, idmap.SIZE)
        return instance_translator.compose(
            order.server,
            order.flavor,
            order.vifs,
            self._host,
            "",
            ids,
            instance_translator.nic_names([state]),
        )

    def configure(self, spec: InstanceSpec) -> None:
        """Make a stopped container and its profile what they should be, whatever became of them.

        :raises NotFound: there is no container
        """
        try:
            with self.profiles.used(spec):
                self._session.update_instance(spec.name, spec.config, spec.devices, [spec.profile])
        finally:
            self.profiles.tidy()

    def leave_rescue(self, instance: Any, vifs: Sequence[Vif]) -> None:
        """Remove a server's rescue container and give its NICs back to its own.

        :raises NotFound: it has no container of its own
        """
        rescue = self._rescue_state(instance)
        names = instance_translator.nic_names([rescue] if rescue else [])
        self.remove_rescue(instance)
        devices = functools.partial(instance_translator.with_nics, vifs=vifs, names=names)
        self._session.change_role(instance.name, "", devices)

    def stop(self, instance: Any) -> None:
        """Stop a server's containers at once; none is success."""
        for name in (instance_translator.rescue_name(instance.name), instance.name):
            with contextlib.suppress(exception.NotFound):
                if self._own(instance, name):
                    self._session.change_state(name, "stop", force=True)

    def remove_rescue(self, instance: Any) -> None:
        """Remove a server's rescue container; none is success."""
        name = instance_translator.rescue_name(instance.name)
        with contextlib.suppress(exception.NotFound):
            if self._own(instance, name):
                self.remove_instance(name)
                self.profiles.suspect()

    def remove(self, instance: Any) -> None:
        """Remove a server's own container and its profile; nothing left is success."""
        try:
            own = self._own(instance, instance.name)
            if own is None:
                return
            self.remove_instance(instance.name)
        except exception.NotFound:
            LOG.debug("LXD has no such instance", instance=instance)
            self.profiles.sweep()
        except exception.LXDDriverError:
            with excutils.save_and_reraise_exception():
                self.profiles.tidy()
        else:
            self.profiles.drop(own.profiles)

    def take_snapshot(self, name: str, snapshot: str) -> None:
        """Take a snapshot; one that was left by an action that was cut off is replaced."""
        try:
            self._session.create_snapshot(name, snapshot)
        except exception.AlreadyExists:
            self.drop_snapshot(name, snapshot)
            self._session.create_snapshot(name, snapshot)

    def drop_leftovers(self, name: str) -> None:
        """Drop the snapshots that failed actions left, when nothing needs any."""
        ours = {instance_translator.IMAGE_SNAPSHOT, instance_translator.RESIZE_SNAPSHOT}
        for snapshot in ours.intersection(self._session.snapshot_names(name)):
            self.drop_snapshot(name, snapshot)

    def drop_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a snapshot; none is success."""
        drop = functools.partial(self._session.delete_snapshot, name, snapshot)
        # LXD may still be at it, if only its answer was lost.
        with contextlib.suppress(exception.NotFound):
            self._session.retry_busy(drop)

    def remove_instance(self, name: str) -> None:
        """Stop and delete an LXD instance; none is success."""

        def stop_and_delete() -> None:
            self._session.change_state(name, "stop", force=True)
            self._session.delete_instance(name)

        # Both again: a start whose answer was lost can come to its end in between.
        with contextlib.suppress(exception.NotFound):
            self._session.retry_busy(stop_and_delete)
