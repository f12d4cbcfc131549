"""What nova-compute finds when it starts: work that was cut off.

What is done about it is decided by tables, from what Nova says of the server.  Nothing is touched
without Nova's word: not an instance without ``user.nova.uuid``, not one whose server Nova does not
know or has on another host.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
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
from nova_lxd.virt.container import Containers
from nova_lxd.virt.copies import vifs_of
from nova_lxd.virt.lifecycle import Lifecycle
from nova_lxd.virt.migration import Migration
from nova_lxd.virt.model import InstanceState, Nic
from nova_lxd.virt.session import Session

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


class Action(enum.Enum):
    """What is done about a server when the service starts."""

    KEEP = "nothing: it is whole, or Nova itself goes on with it"
    REMOVE_BUILD = "remove what a build made; Nova puts the server into ERROR"
    GIVE_UP_RESCUE = "boot from the own root again, and say ERROR: Nova forgets the task"
    GIVE_UP_SHELVING = "forget the task, which Nova would keep for ever"
    MEND_RESCUE = "take away a rescue container of a server that is not rescued"
    GIVE_UP_RESIZE = "make it what its new flavor says, and say ERROR: Nova forgets the task"
    END_RESIZE = "forget the way back from a resize that is over"


_CUT_OFF = {
    task_states.RESCUING: Action.GIVE_UP_RESCUE,
    task_states.UNRESCUING: Action.GIVE_UP_RESCUE,
    task_states.RESIZE_FINISH: Action.GIVE_UP_RESIZE,
    task_states.SHELVING: Action.GIVE_UP_SHELVING,
    task_states.SHELVING_IMAGE_PENDING_UPLOAD: Action.GIVE_UP_SHELVING,
    task_states.SHELVING_IMAGE_UPLOADING: Action.GIVE_UP_SHELVING,
    task_states.SHELVING_OFFLOADING: Action.GIVE_UP_SHELVING,
}
"""Tasks that Nova does not go on with.  A resize that was cut off before its end is Nova's: it is
taken back, or its message is waiting still."""


class Stray(enum.Enum):
    """What is done about an instance that is none of this host's servers."""

    REMOVE = "its server is deleted"
    NOT_YET = "its server is deleted, but running_deleted_instance_* say to keep it"
    ELSEWHERE = "its server is on another host"
    UNKNOWN = "Nova does not know its server"


def action_for(
    vm_state: str, task_state: str | None, *, rescue_remains: bool, can_go_back: bool
) -> Action:
    """Choose what to do about a server of this host.

    :param rescue_remains: whether it has a rescue container, or lacks the NICs that one was lent
    :param can_go_back: whether it has the snapshot that a resize is reverted with
    """
    if vm_state == vm_states.BUILDING:
        return Action.REMOVE_BUILD
    if task_state in _CUT_OFF:
        return _CUT_OFF[task_state]
    if task_state is None and rescue_remains and vm_state != vm_states.RESCUED:
        return Action.MEND_RESCUE
    if task_state is None and can_go_back and vm_state not in (vm_states.RESIZED, vm_states.ERROR):
        return Action.END_RESIZE
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
    snapshots: frozenset[str] = frozenset()

    @property
    def rescue_remains(self) -> bool:
        return any(state.role for state in self.states)

    @property
    def nics(self) -> dict[str, Nic]:
        return {name: nic for state in self.states for name, nic in state.nics.items()}

    @property
    def names(self) -> str:
        return " ".join(state.name for state in self.states)


class Startup:
    """Finishes or takes back what was under way when the service ended."""

    def __init__(
        self,
        session: Session,
        containers: Containers,
        lifecycle: Lifecycle,
        migration: Migration,
    ) -> None:
        self._session = session
        self._containers = containers
        self._lifecycle = lifecycle
        self._migration = migration

    def recover(self, context: Any, instances: Any) -> Any:
        """Bring this host's containers into line with Nova's servers, and return these.

        One server's trouble is logged and does not keep the others, or the service, from starting.
        """
        try:
            found = self._find()
        except Exception:  # the service must start whatever LXD answers
            LOG.exception("LXD's instances cannot be read; nothing that was cut off is mended")
            return instances
        for instance in instances:
            try:
                self._treat(context, instance, found.pop(instance.uuid, _Found()))
            except Exception:  # as above
                LOG.exception("What was cut off cannot be mended", instance=instance)
        in_use = {name for instance in instances for name in _port_names(instance)}
        for uuid, stray in found.items():
            try:
                self._treat_stray(context, uuid, stray, in_use)
            except Exception:  # as above
                LOG.exception("%s (server %s) is left as it is", stray.names, uuid)
        self._containers.profiles.tidy()
        return instances

    def _find(self) -> dict[str, _Found]:
        """Read what there is of every server: one request, and one for each storage pool."""
        states = self._session.states()
        snapshots = [
            snapshot
            for pool in {state.pool for state in states if state.pool}
            for snapshot in self._session.pool_snapshots(pool)
        ]
        servers: dict[str, _Found] = {}
        for state in states:
            if state.uuid:
                known = servers.get(state.uuid, _Found())
                names = {name for instance, name in snapshots if instance == state.name}
                servers[state.uuid] = _Found((*known.states, state), known.snapshots | names)
        return servers

    def _treat(self, context: Any, instance: Any, found: _Found) -> None:
        if instance_translator.IMAGE_SNAPSHOT in found.snapshots:
            LOG.info("After a restart: drop the snapshot of an image", instance=instance)
            self._containers.drop_snapshot(instance.name, instance_translator.IMAGE_SNAPSHOT)
        action = action_for(
            instance.vm_state,
            instance.task_state,
            rescue_remains=found.rescue_remains,
            can_go_back=instance_translator.RESIZE_SNAPSHOT in found.snapshots,
        )
        if action is Action.KEEP:
            return
        LOG.info("After a restart: %s", action.value, instance=instance)
        try:
            self._mend(context, instance, action, found)
        finally:
            _tell(instance, action)

    def _mend(self, context: Any, instance: Any, action: Action, found: _Found) -> None:
        if action is Action.REMOVE_BUILD:
            self._lifecycle.destroy(instance, instance.get_network_info())
        elif action is Action.GIVE_UP_RESIZE:
            self._migration.settle(context, instance)
        elif action is Action.END_RESIZE:
            self._migration.confirm(instance)
        elif found.rescue_remains:
            vifs = vifs_of(instance, instance.get_network_info())
            self._containers.leave_rescue(instance, vifs)

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
        nics = {name: nic for name, nic in found.nics.items() if name not in in_use}
        self._lifecycle.destroy(instance, _network_info(nics))


def _tell(instance: Any, action: Action) -> None:
    """Tell Nova what became of a server, even when LXD could not be brought to do its part."""
    if action in (Action.GIVE_UP_RESCUE, Action.GIVE_UP_RESIZE):
        # A hard reboot brings it back.
        instance.vm_state = vm_states.ERROR
    elif action is not Action.GIVE_UP_SHELVING:
        return
    instance.task_state = None
    instance.save()


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


def _network_info(nics: Mapping[str, Nic]) -> Any:
    """Describe ports for ``unplug`` that Neutron and Nova have forgotten with their server.

    A device's name has the first eleven characters of its port's id, and all names of its wires are
    made from these.
    """
    bridge = CONF.neutron.ovs_bridge
    return network_model.NetworkInfo(
        network_model.VIF(
            id=f"{name.removeprefix('tap')}00-0000-0000-000000000000",
            address=nic.mac,
            network=network_model.Network(id=uuidutils.generate_uuid(), bridge=bridge, subnets=[]),
            type=network_model.VIF_TYPE_OVS,
            devname=name,
            details={network_model.VIF_DETAILS_OVS_HYBRID_PLUG: nic.hybrid},
        )
        for name, nic in nics.items()
    )
