"""On and off: what changes whether a server runs, and nothing else about it."""

from __future__ import annotations

import functools
from typing import Any

import nova.conf
from nova.compute import task_states, vm_states
from nova.compute import utils as compute_utils
from oslo_log import log as logging
from oslo_utils import excutils, timeutils

from nova_lxd import exception
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt import network
from nova_lxd.virt.console import ConsoleLogs
from nova_lxd.virt.container import Containers
from nova_lxd.virt.copies import vifs_of
from nova_lxd.virt.model import InstanceState
from nova_lxd.virt.order import order_of
from nova_lxd.virt.session import Session
from nova_lxd.virt.undo import Undo, remove_all

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_FOR_REMOVAL = (
    task_states.REBUILDING,
    task_states.SHELVING_OFFLOADING,
    task_states.SOFT_DELETING,
)
"""Tasks for which Nova stops a server that is to go: one that is gone already is as good."""


class Power:
    """Switches servers."""

    def __init__(self, session: Session, containers: Containers, consoles: ConsoleLogs) -> None:
        self._session = session
        self._containers = containers
        self._consoles = consoles

    def on(self, instance: Any, network_info: Any) -> None:
        """Start a server: of one in rescue the rescue container."""
        self.start(instance, network_info, self._mended(instance, network_info))

    def _mended(self, instance: Any, network_info: Any) -> InstanceState:
        """Read the container that a server starts from.

        One that Nova does not call rescued starts from its own root, whatever a rescue or its end
        left when it was cut off.  And one whose resize was to be reverted has its old disk first.
        """
        current = self._containers.current(instance)
        if current.reverting and current.status == "Stopped":
            self._session.restore_snapshot(instance.name, instance_translator.RESIZE_SNAPSHOT)
        rescued = instance.vm_state == vm_states.RESCUED
        if not current.role or (rescued and current.role == instance_translator.RESCUE_ROLE):
            return current
        self._containers.leave_rescue(instance, vifs_of(instance, network_info))
        return self._session.state(instance.name)

    def start(self, instance: Any, network_info: Any, container: InstanceState) -> None:
        """Start one container of a server.

        The ports are plugged anew: a host reboot takes the bridges away.

        :raises NotFound: it was deleted meanwhile; its ports are unplugged
        """
        vifs = vifs_of(instance, network_info)
        try:
            if container.status == "Stopped":
                network.remove_stale_taps(vifs)
                self._consoles.discard(instance.uuid)
            network.plug(instance, network_info)
            network.connect(vifs)
            self._session.change_state(container.name, "start")
        except (exception.NotFound, exception.VifPlugFailed):
            # Nova lets a server be deleted while something else is done to it.
            with excutils.save_and_reraise_exception():
                if not self._containers.exists(container.name):
                    _unplug(instance, network_info)

    def off(self, instance: Any, timeout: int, retry_interval: int) -> None:
        """Stop a server: ask the guest for ``timeout`` seconds, then pull the plug.

        The request is repeated every ``retry_interval`` seconds, because one that comes before the
        guest's init is ready is lost (measured).

        :raises NotFound: it has no container, and Nova has something to do with it
        """
        try:
            name = self._containers.current(instance).name
        except exception.NotFound:
            if instance.task_state in _FOR_REMOVAL:
                return
            raise
        if not (timeout and self._shut_down(name, timeout, retry_interval)):
            self._session.change_state(name, "stop", force=True)

    def _shut_down(self, name: str, timeout: int, retry_interval: int) -> bool:
        watch = timeutils.StopWatch(duration=timeout)
        watch.start()
        while not watch.expired():
            patience = max(1, round(min(retry_interval or timeout, watch.leftover())))
            asked = watch.elapsed()
            try:
                self._session.change_state(name, "stop", timeout=patience)
            except exception.NotFound:
                raise
            except exception.LXDError as error:
                LOG.debug("%s has not stopped after %d s: %s", name, patience, error)
                if watch.elapsed() - asked < patience / 2:
                    # LXD cannot ask, of a frozen guest for one; asking again would not end.
                    return False
            else:
                return True
        return False

    def reboot(self, context: Any, instance: Any, network_info: Any, *, hard: bool) -> None:
        """Stop and start a server; a soft reboot asks the guest first.

        A hard one is Nova's repair: profile, devices and ports are made anew from what Nova knows,
        and snapshots that failed actions left are dropped; Nova allows none while a resize is open.
        Its ports are wired from scratch, since os-vif leaves a port that Open vSwitch knows as it
        is, even when half of its wires are gone.  A rescued server's own container must not have
        its NICs back yet.
        """
        timeout = 0 if hard else _shutdown_timeout(instance)
        self.off(instance, timeout, CONF.compute.shutdown_retry_interval)
        if hard:
            _unplug(instance, network_info)
        container = self._mended(instance, network_info)
        if hard and not container.role:
            order = order_of(context, instance, instance.image_meta, network_info)
            self._containers.drop_leftovers(instance.name)
            self._containers.configure(self._containers.spec_of(order))
        self.start(instance, network_info, container)

    def pause(self, instance: Any) -> None:
        """Freeze all processes of a server, and cut it off from its networks.

        A suspended one is frozen too: a container has no memory image that could be written to
        disk.
        """
        vifs = vifs_of(instance, instance.get_network_info())
        with Undo(instance) as undo:
            undo.add("cut", functools.partial(network.connect, vifs))
            network.disconnect(vifs)
            self._session.change_state(instance.name, "freeze")

    def unpause(self, instance: Any) -> None:
        """Let a frozen server go on."""
        network.connect(vifs_of(instance, instance.get_network_info()))
        self._session.change_state(instance.name, "unfreeze")

    def resume(self, instance: Any, network_info: Any) -> None:
        """Let a suspended server go on, or start it when the host was rebooted meanwhile."""
        try:
            self.unpause(instance)
        except exception.LXDError:
            if self._session.state(instance.name).status != "Stopped":
                raise
            self.on(instance, network_info)


def _shutdown_timeout(instance: Any) -> int:
    """Return the seconds that a guest gets to shut down, as Nova reckons them for a stop."""
    seconds: int = compute_utils.get_value_from_system_metadata(
        instance, key="image_os_shutdown_timeout", type=int, default=CONF.shutdown_timeout
    )
    return seconds


def _unplug(instance: Any, network_info: Any) -> None:
    unplug = functools.partial(network.unplug, instance, network_info)
    remove_all(instance, [("ports", unplug)])
