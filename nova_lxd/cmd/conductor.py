"""Nova's word on the servers of this host, as nova-compute gets it: from the conductor."""

from __future__ import annotations

import queue
import shlex
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import nova.conf
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects, rpc
from nova.compute import power_state, vm_states
from nova.conductor import rpcapi
from nova.db.main import api as database
from nova.objects import base as objects_base
from nova.objects import fields

from nova_lxd.cmd.options import ovs_database
from nova_lxd.invariants import Expected, ExpectedPort, ExpectedServer
from nova_lxd.virt import download
from nova_lxd.virt.flavor import PRIVILEGED
from nova_lxd.virt.instance import RESIZE_SNAPSHOT

CONF = nova.conf.CONF

_T = TypeVar("_T")
_POWER = {
    power_state.RUNNING: "Running",
    power_state.PAUSED: "Frozen",
    power_state.SHUTDOWN: "Stopped",
}
_UNSETTLED = (vm_states.BUILDING, vm_states.ERROR)
_NO_INSTANCE = (*_UNSETTLED, vm_states.SHELVED_OFFLOADED)
_MOVING = (
    "accepted",
    "confirming",
    "error",
    "finished",
    "migrating",
    "post-migrating",
    "pre-migrating",
    "preparing",
    "queued",
    "reverting",
    "running",
)
"""Nova's migrations that may yet need something on both hosts."""


class CannotTell(Exception):
    """Somebody who must be asked did not answer; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a server that Nova knows, or knew."""

    host: str
    """Empty for one that is on none."""
    vm_state: str
    busy: bool
    """Whether Nova is doing something with it."""
    deleted_at: datetime | None = None
    """With its time zone; None for a server that there is."""


def connect() -> None:
    """Let Nova's objects ask the conductor.  As in nova-compute, the database is out of reach."""
    rpc.init(CONF)
    objects.register_all()
    database.DISABLE_DB_ACCESS = True
    objects_base.NovaObject.indirection_api = rpcapi.ConductorAPI()


class Nova:
    """Answers within ``seconds``, or raises :class:`CannotTell`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def expected(self) -> Expected:
        """Return what this host has to have for Nova's servers, those that come and go as well."""
        here, moving = self._within(_instances)
        servers = [_server(instance) for instance in here]
        servers += [_server(instance, moving=True) for instance in moving]
        endpoint = CONF.lxd.endpoint
        return Expected(
            project=CONF.lxd.project,
            servers=tuple(servers),
            integration_bridge=CONF.neutron.ovs_bridge,
            naming_seconds=CONF.lxd.operation_timeout,
            makes_images=any(instance.task_state for instance in here),
            image_folders=download.folder_prefix(),
            lxc=f"LXD_SOCKET={shlex.quote(endpoint)} lxc" if endpoint else "lxc",
            ovs_vsctl=f"ovs-vsctl --db={shlex.quote(ovs_database())}",
        )

    def fate(self, uuid: str) -> Fate | None:
        """Return what became of a server; None for one that Nova does not know."""
        return self._within(lambda: _fate(uuid))

    def _within(self, ask: Callable[[], _T]) -> _T:
        """Bound all of it: oslo.messaging looks for its broker for ever."""
        answers: queue.SimpleQueue[tuple[_T | None, Exception | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put((ask(), None))
            except Exception as error:  # noqa: BLE001 -- raised below
                answers.put((None, error))

        threading.Thread(target=run, daemon=True, name="conductor").start()
        try:
            answer, error = answers.get(timeout=self._seconds)
        except queue.Empty:
            raise CannotTell(
                f"nova-conductor did not answer within {self._seconds:g} s: see that it runs and "
                "that [DEFAULT]transport_url is right, or wait longer with --timeout"
            ) from None
        if isinstance(error, CannotTell):
            raise error
        if error:
            raise CannotTell(f"nova-conductor: {type(error).__name__}: {error}") from error
        return answer  # type: ignore[return-value]


def _instances() -> tuple[list[Any], list[Any]]:
    """Read the servers of this host, and those that leave it or come to it."""
    context = nova_context.get_admin_context()
    _check_host(context)
    attributes = ["flavor", "info_cache"]
    here = list(objects.InstanceList.get_by_host(context, CONF.host, expected_attrs=attributes))
    known = {instance.uuid for instance in here}
    moving = {}
    filters = {"host": CONF.host, "status": list(_MOVING)}
    for migration in objects.MigrationList.get_by_filters(context, filters):
        uuid = migration.instance_uuid
        found = None if uuid in known else _find(context, uuid, attributes)
        # One that failed long ago is over when its server is well.
        if found and (migration.status != "error" or not _is_settled(found)):
            moving[uuid] = found
    return here, list(moving.values())


def _check_host(context: Any) -> None:
    """Refuse to compare this LXD with the servers of a host that is not its own.

    With another configuration than nova-compute's every server here would look like one of another
    host, or of none.
    """
    try:
        nodes = objects.ComputeNodeList.get_all_by_host(context, CONF.host)
    except nova_exception.ComputeHostNotFound:
        nodes = []
    kinds = {node.hypervisor_type.lower() for node in nodes}
    if kinds == {fields.HVType.LXD}:
        return
    found = f"{', '.join(sorted(kinds))}, not LXD," if kinds else "no compute node"
    raise CannotTell(
        f"Nova has {found} on host {CONF.host}: name nova-compute's own configuration files with "
        "--config-file, for [DEFAULT]host and [lxd]"
    )


def _find(context: Any, uuid: str, attributes: list[str]) -> Any:
    try:
        return objects.Instance.get_by_uuid(context, uuid, expected_attrs=attributes)
    except nova_exception.InstanceNotFound:
        return None


def _is_settled(instance: Any) -> bool:
    return not instance.task_state and instance.vm_state not in _UNSETTLED


def _server(instance: Any, *, moving: bool = False) -> ExpectedServer:
    state = instance.vm_state
    settled = not moving and _is_settled(instance)
    flavor = instance.flavor
    return ExpectedServer(
        name=instance.name,
        uuid=instance.uuid,
        memory_mb=flavor.memory_mb,
        vcpus=flavor.vcpus,
        root_gb=flavor.root_gb,
        status=_POWER.get(instance.power_state, "") if settled else "",
        built=state not in _NO_INSTANCE,
        privileged=flavor.extra_specs.get(PRIVILEGED.name, "").lower() == "true",
        ports=tuple(map(_port, instance.get_network_info() or ())),
        rescued=state == vm_states.RESCUED,
        settled=settled,
        snapshots=frozenset({RESIZE_SNAPSHOT} if state == vm_states.RESIZED else ()),
    )


def _port(vif: Any) -> ExpectedPort:
    bridge = vif["network"]["bridge"] or ""
    return ExpectedPort(
        port_id=vif["id"],
        mac=vif["address"],
        mtu=vif["network"].get_meta("mtu"),
        hybrid=vif.is_hybrid_plug_enabled(),
        bridge=bridge if bridge != CONF.neutron.ovs_bridge else "",
    )


def _fate(uuid: str) -> Fate | None:
    instance = _find(nova_context.get_admin_context(read_deleted="yes"), uuid, [])
    if instance is None:
        return None
    return Fate(
        host=instance.host or "",
        vm_state=instance.vm_state or "",
        busy=bool(instance.task_state) or instance.vm_state == vm_states.BUILDING,
        deleted_at=instance.deleted_at if instance.deleted else None,
    )
