"""Another flavor for a server, on the same host."""

from __future__ import annotations

import functools
from typing import Any

import nova.conf
from oslo_log import log as logging
from oslo_utils import units

from nova_lxd import exception
from nova_lxd.virt import flavor as flavor_translator
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt import network
from nova_lxd.virt import vif as vif_translator
from nova_lxd.virt.container import Containers
from nova_lxd.virt.copies import flavor_of, vifs_of
from nova_lxd.virt.model import Bandwidth, Flavor, HostFacts
from nova_lxd.virt.order import Order, order_of, with_bandwidth, with_flavor
from nova_lxd.virt.power import Power
from nova_lxd.virt.session import Session
from nova_lxd.virt.undo import Undo

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

SNAPSHOT = instance_translator.RESIZE_SNAPSHOT


class Migration:
    """Resizes servers; until it is confirmed each resize can be taken back."""

    def __init__(
        self, session: Session, host: HostFacts, containers: Containers, power: Power
    ) -> None:
        self._session = session
        self._host = host
        self._containers = containers
        self._power = power

    def prepare(
        self,
        instance: Any,
        dest: str,
        flavor: Any,
        network_info: Any,
        timeout: int,
        retry_interval: int,
    ) -> None:
        """Stop the server and keep a way back.

        :param dest: the other host's address
        :raises Refused: it cannot work; nothing was touched
        """
        self._check(instance, dest, flavor_of(flavor))
        for vif in vifs_of(instance, network_info):
            vif_translator.check(with_bandwidth(vif, flavor_of(flavor)))
        name = instance.name
        runs = self._session.state(name).status != "Stopped"
        with Undo(instance) as undo:
            if runs:
                undo.add("stop", functools.partial(self._power.on, instance, network_info))
            self._power.off(instance, timeout, retry_interval)
            # The guest wrote on until now.
            self._check_disk(instance, flavor_of(flavor))
            undo.add("snapshot", functools.partial(self._containers.drop_snapshot, name, SNAPSHOT))
            self._containers.take_snapshot(name, SNAPSHOT)

    def finish(
        self, context: Any, instance: Any, network_info: Any, image_meta: Any, power_on: bool
    ) -> None:
        """Give a stopped server its new flavor.

        One for which that fails has its old flavor again, as Nova says then, and is in ERROR.  Nova
        lets nobody revert it, so the way back goes.
        """
        drop = functools.partial(self._containers.drop_snapshot, instance.name, SNAPSHOT)
        order = order_of(context, instance, image_meta, network_info)
        old = with_flavor(order, flavor_of(instance.old_flavor))
        with Undo(instance) as undo:
            undo.add("snapshot", drop)
            undo.add("new flavor", functools.partial(self._configure, old))
            self._configure(order)
            if any(vif.bandwidth != Bandwidth() for vif in old.vifs):
                # The limits go with the wires.
                network.unplug(instance, network_info)
            if power_on:
                self._power.on(instance, network_info)

    def settle(self, context: Any, instance: Any) -> None:
        """Make a server what its flavor says when its resize was cut off; there is no way back."""
        network_info = instance.get_network_info()
        order = order_of(context, instance, instance.image_meta, network_info)
        self._configure(order)
        self._containers.drop_snapshot(instance.name, SNAPSHOT)

    def _configure(self, order: Order) -> None:
        self._containers.configure(self._containers.spec_of(order))

    def confirm(self, instance: Any) -> None:
        """Forget the way back."""
        self._containers.drop_snapshot(instance.name, SNAPSHOT)

    def revert(self, context: Any, instance: Any, network_info: Any, power_on: bool) -> None:
        """Go the way back, as far as the resize came; the server has its old flavor again.

        One that fails before the disk is what it was, the next start completes.
        """
        name = instance.name
        self._session.change_state(name, "stop", force=True)
        order = order_of(context, instance, instance.image_meta, network_info)
        if SNAPSHOT in self._session.snapshot_names(name):
            self._session.mark_reverting(name)
            self._session.restore_snapshot(name, SNAPSHOT)
            LOG.info("The root disk is what it was before the resize", instance=instance)
        self._configure(order)
        self._containers.drop_snapshot(name, SNAPSHOT)
        if power_on:
            self._power.on(instance, network_info)

    def _check(self, instance: Any, dest: str, new: Flavor) -> None:
        if dest != CONF.my_ip:
            raise exception.Refused(
                "LXD servers are resized on their own host only, and this one would have to move "
                f"to {dest}: choose a flavor that fits beside it, or ask the operator to set "
                "allow_resize_to_same_host"
            )
        old = flavor_of(instance.flavor)
        config = flavor_translator.profile_config(new, self._host)
        flavor_translator.root_device(new, self._host)
        before = flavor_translator.profile_config(old, self._host)
        if config.get("security.privileged") != before.get("security.privileged"):
            raise exception.FlavorRefused(
                "lxd:privileged_allowed differs between the two flavors: a server stays what it "
                "was built as; build a new one"
            )
        self._check_disk(instance, new)

    def _check_disk(self, instance: Any, new: Flavor) -> None:
        old = flavor_of(instance.flavor)
        if new.root_gb and (not old.root_gb or new.root_gb < old.root_gb):
            self._check_use(instance.name, new.root_gb)

    def _check_use(self, name: str, root_gb: int) -> None:
        used = self._session.usage(name).disk_bytes
        if used is None:
            raise exception.FlavorRefused(
                f"the new flavor's disk of {root_gb} GiB is smaller, and this host's storage pool "
                "cannot tell how much of the old one is in use: choose a flavor whose disk is as "
                "large"
            )
        if used > root_gb * units.Gi:
            raise exception.FlavorRefused(
                f"{used} bytes of the server's disk are in use, more than the {root_gb} GiB of the "
                "new flavor: remove files or choose a flavor with a larger disk"
            )
