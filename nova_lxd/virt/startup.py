"""What nova-compute finds when it starts: work that was cut off.

What is done about it is decided by tables, from what Nova says of the server.  Nothing is touched
without Nova's word: not an instance without ``user.nova.uuid``, not one whose server Nova does not
know or has on another host.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import nova.conf
from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states, vm_states
from nova.network import model as network_model
from oslo_log import log as logging
from oslo_utils import timeutils, uuidutils

from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt import network
from nova_lxd.virt.container import Containers
from nova_lxd.virt.lifecycle import Lifecycle
from nova_lxd.virt.model import InstanceState
from nova_lxd.virt.session import Session

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_RESCUE_TASKS = (task_states.RESCUING, task_states.UNRESCUING)
_IMAGE_TASKS = (
    task_states.IMAGE_SNAPSHOT,
    task_states.IMAGE_SNAPSHOT_PENDING,
    task_states.IMAGE_BACKUP,
    task_states.IMAGE_PENDING_UPLOAD,
    task_states.IMAGE_UPLOADING,
)
_SHELVE_TASKS = (
    task_states.SHELVING,
    task_states.SHELVING_IMAGE_PENDING_UPLOAD,
    task_states.SHELVING_IMAGE_UPLOADING,
    task_states.SHELVING_OFFLOADING,
)


class Action(enum.Enum):
    """What is done about a server when the service starts."""

    KEEP = "nothing: it is whole, or Nova itself goes on with it"
    REMOVE_BUILD = "remove what a build made; Nova puts the server into ERROR"
    GIVE_UP_RESCUE = "boot from the own root again, and say ERROR: Nova forgets the task"
    DROP_SNAPSHOT = "drop the snapshot of an image that was not finished"
    GIVE_UP_SHELVING = "drop the snapshot, and forget the task, which Nova would keep for ever"
    MEND_RESCUE = "take away a rescue container of a server that is not rescued"


class Stray(enum.Enum):
    """What is done about an instance that is none of this host's servers."""

    REMOVE = "its server is deleted"
    NOT_YET = "its server is deleted, but running_deleted_instance_* say to keep it"
    ELSEWHERE = "its server is on another host"
    UNKNOWN = "Nova does not know its server"


def action_for(vm_state: str, task_state: str | None, *, rescue_remains: bool) -> Action:
    """Choose what to do about a server of this host.

    :param rescue_remains: whether it has a rescue container, or lacks the NICs that one was lent
    """
    if vm_state == vm_states.BUILDING:
        return Action.REMOVE_BUILD
    if task_state in _RESCUE_TASKS:
        return Action.GIVE_UP_RESCUE
    if task_state in _IMAGE_TASKS:
        return Action.DROP_SNAPSHOT
    if task_state in _SHELVE_TASKS:
        return Action.GIVE_UP_SHELVING
    if rescue_remains and vm_state != vm_states.RESCUED and task_state is None:
        return Action.MEND_RESCUE
    return Action.KEEP


def stray_for(*, known: bool, deleted: bool, may_reap: bool) -> Stray:
    """Choose what to do about an instance whose server is not among this host's."""
    if not known:
        return Stray.UNKNOWN
    if not deleted:
        return Stray.ELSEWHERE
    return Stray.REMOVE if may_reap else Stray.NOT_YET


@dataclass(frozen=True, slots=True)
class _Found:
    """The instances of one server in LXD."""

    states: tuple[InstanceState, ...] = ()

    @property
    def rescue_remains(self) -> bool:
        return any(state.role for state in self.states)

    @property
    def nics(self) -> dict[str, str]:
        return {name: mac for state in self.states for name, mac in state.nics.items()}

    @property
    def names(self) -> str:
        return " ".join(state.name for state in self.states)


class Startup:
    """Finishes or takes back what was under way when the service ended."""

    def __init__(self, session: Session, containers: Containers, lifecycle: Lifecycle) -> None:
        self._session = session
        self._containers = containers
        self._lifecycle = lifecycle

    def recover(self, context: Any, instances: Any) -> Any:
        """Bring this host's containers into line with Nova's servers, and return these.

        One server's trouble is logged and does not keep the others, or the service, from starting.
        """
        try:
            found = _by_server(self._session.states())
        except Exception:  # the service must start whatever LXD answers
            LOG.exception("LXD's instances cannot be read; nothing that was cut off is mended")
            return instances
        for instance in instances:
            try:
                self._treat(instance, found.pop(instance.uuid, _Found()))
            except Exception:  # as above
                LOG.exception("What was cut off cannot be mended", instance=instance)
        in_use = {name for instance in instances for name in _port_names(instance)}
        for uuid, stray in found.items():
            try:
                self._treat_stray(context, uuid, stray, in_use)
            except Exception:  # as above
                LOG.exception("%s (server %s) is left as it is", stray.names, uuid)
        return instances

    def _treat(self, instance: Any, found: _Found) -> None:
        remains = found.rescue_remains
        action = action_for(instance.vm_state, instance.task_state, rescue_remains=remains)
        if action is Action.KEEP:
            return
        LOG.info("After a restart: %s", action.value, instance=instance)
        if action is Action.REMOVE_BUILD:
            self._lifecycle.destroy(instance, instance.get_network_info())
        elif action in (Action.DROP_SNAPSHOT, Action.GIVE_UP_SHELVING):
            self._end_image(instance, action)
        else:
            self._end_rescue(instance, action, remains)

    def _end_image(self, instance: Any, action: Action) -> None:
        try:
            snapshot = instance_translator.IMAGE_SNAPSHOT
            self._containers.drop_snapshot(instance.name, snapshot)
        finally:
            if action is Action.GIVE_UP_SHELVING:
                instance.task_state = None
                instance.save()

    def _end_rescue(self, instance: Any, action: Action, remains: bool) -> None:
        try:
            if remains:
                vifs = network.vifs_of(instance.get_network_info())
                self._containers.leave_rescue(instance, vifs)
        finally:
            if action is Action.GIVE_UP_RESCUE:
                # A hard reboot brings it back, even when LXD could not be brought to do its part.
                instance.vm_state, instance.task_state = vm_states.ERROR, None
                instance.save()

    def _treat_stray(self, context: Any, uuid: str, found: _Found, in_use: set[str]) -> None:
        instance = _find(context, uuid)
        stray = stray_for(
            known=instance is not None,
            deleted=bool(instance and instance.deleted),
            may_reap=bool(instance and _may_reap(instance)),
        )
        if stray is not Stray.REMOVE:
            text = (
                "LXD's instance %s (server %s) is left alone: %s.  If nobody needs it: "
                "lxc delete --force --project %s %s"
            )
            LOG.warning(text, found.names, uuid, stray.value, self._session.project, found.names)
            return
        LOG.info("After a restart: removing %s, %s", found.names, stray.value, instance=instance)
        nics = {name: mac for name, mac in found.nics.items() if name not in in_use}
        self._lifecycle.destroy(instance, _network_info(nics))


def _by_server(states: Iterable[InstanceState]) -> dict[str, _Found]:
    servers: dict[str, _Found] = {}
    for state in states:
        if state.uuid:
            known = servers.get(state.uuid, _Found())
            servers[state.uuid] = _Found((*known.states, state))
    return servers


def _find(context: Any, uuid: str) -> Any:
    """Read a server, even a deleted one; None for one that Nova does not know."""
    admin = context.elevated(read_deleted="yes")
    try:
        return objects.Instance.get_by_uuid(admin, uuid, expected_attrs=["system_metadata"])
    except nova_exception.InstanceNotFound:
        return None


def _may_reap(instance: Any) -> bool:
    """Whether the operator lets Nova remove what it finds of deleted servers."""
    if CONF.running_deleted_instance_action != "reap":
        return False
    deleted_at = instance.deleted_at
    timeout = CONF.running_deleted_instance_timeout
    return not deleted_at or bool(
        timeutils.is_older_than(timeutils.normalize_time(deleted_at), timeout)
    )


def _port_names(instance: Any) -> list[str]:
    return [str(vif.get("devname")) for vif in instance.get_network_info() or []]


def _network_info(nics: Mapping[str, str]) -> Any:
    """Describe ports for ``unplug`` that Neutron and Nova have forgotten with their server.

    A device's name has the first eleven characters of its port's id, and all names of its wires are
    made from these.
    """
    bridge = CONF.neutron.ovs_bridge
    return network_model.NetworkInfo(
        network_model.VIF(
            id=f"{name.removeprefix('tap')}00-0000-0000-000000000000",
            address=mac,
            network=network_model.Network(id=uuidutils.generate_uuid(), bridge=bridge, subnets=[]),
            type=network_model.VIF_TYPE_OVS,
            devname=name,
            details={network_model.VIF_DETAILS_OVS_HYBRID_PLUG: True},
        )
        for name, mac in nics.items()
    )
