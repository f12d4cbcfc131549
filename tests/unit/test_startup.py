"""nova-compute dies anywhere, starts again, and nothing is left half done."""

from __future__ import annotations

import contextlib
import itertools
from unittest import mock

import pytest
from nova import exception as nova_exception
from nova import objects
from nova.compute import power_state, task_states, vm_states
from nova.virt import fake as nova_fake
from oslo_utils import timeutils

from nova_lxd.virt.driver import LXDDriver
from nova_lxd.virt.startup import Action, Stray, action_for, stray_for
from tests.fake_lxd import Fault

from . import servers
from .compute_host import PROJECT, Host, attempt
from .ports import Ports

pytestmark = pytest.mark.usefixtures("options")

VM_STATES = [value for name, value in vars(vm_states).items() if name.isupper()]
VM_STATES = [value for value in VM_STATES if isinstance(value, str)]
TASKS = [None, *(v for n, v in vars(task_states).items() if n.isupper() and isinstance(v, str))]


# -- the tables


def actions():
    """Name every action with all that leads to it."""
    for vm, task in itertools.product(VM_STATES, TASKS):
        for remains, back in itertools.product((False, True), repeat=2):
            yield action_for(vm, task, rescue_remains=remains, can_go_back=back), vm, task, remains


def test_only_a_build_is_removed():
    for action, vm, _, _ in actions():
        assert (action is Action.REMOVE_BUILD) == (vm == vm_states.BUILDING)


def test_a_rescue_is_mended_only_while_nothing_else_goes_on():
    for action, vm, task, remains in actions():
        if action is Action.MEND_RESCUE:
            assert remains
            assert task is None
            assert vm != vm_states.RESCUED


def test_a_way_back_is_kept_while_a_resize_can_be_reverted():
    for action, vm, task, _ in actions():
        if action is Action.END_RESIZE:
            assert task is None
            # In ERROR a revert may have failed, which the next start completes.
            assert vm not in (vm_states.RESIZED, vm_states.ERROR)
        if action is Action.GIVE_UP_RESIZE:
            assert task == task_states.RESIZE_FINISH


@pytest.mark.parametrize("task", [task_states.RESCUING, task_states.UNRESCUING])
@pytest.mark.parametrize("vm", [vm_states.ACTIVE, vm_states.STOPPED, vm_states.RESCUED])
def test_a_rescue_that_was_cut_off_is_given_up(vm, task):
    for remains in (False, True):
        action = action_for(vm, task, rescue_remains=remains, can_go_back=False)
        assert action is Action.GIVE_UP_RESCUE


@pytest.mark.parametrize(
    ("known", "deleted", "may_reap", "stray"),
    [
        (False, False, True, Stray.UNKNOWN),
        (False, True, True, Stray.UNKNOWN),
        (True, False, True, Stray.ELSEWHERE),
        (True, False, False, Stray.ELSEWHERE),
        (True, True, False, Stray.NOT_YET),
        (True, True, True, Stray.REMOVE),
    ],
)
def test_strays(known, deleted, may_reap, stray):
    assert stray_for(known=known, deleted=deleted, may_reap=may_reap) is stray


# -- what is done


@pytest.fixture
def host(tmp_path, ports):
    with contextlib.closing(Host(tmp_path / "host", ports)) as host:
        yield host


class Everything:
    """A set that holds all numbers: no port can be plugged or unplugged."""

    def __contains__(self, number: int) -> bool:
        return True


def restart(host: Host, *instances, known=None) -> None:
    """Start the service anew.

    :param known: the server that Nova still knows though it is none of this host's
    """

    def find(context, uuid, expected_attrs=None):
        assert context.read_deleted == "yes"
        if known is None:
            raise nova_exception.InstanceNotFound(instance_id=uuid)
        return known

    host.driver = LXDDriver(nova_fake.FakeVirtAPI())
    host.driver.init_host("host")
    found = objects.InstanceList(objects=list(instances))
    with (
        mock.patch.object(objects.Instance, "get_by_uuid", find),
        mock.patch.object(objects.Instance, "save"),
    ):
        assert host.driver.process_instances_at_startup(host.order.context, found) is found


def deleted(host: Host):
    """Return the server as Nova keeps it after a deletion: without ports."""
    instance = host.order.instance
    instance.deleted, instance.deleted_at = True, timeutils.utcnow()
    instance.info_cache.network_info = type(host.order.network_info)([])
    return instance


def test_what_is_whole_is_not_touched(host):
    host.spawn()
    host.lxd.faults.forget_calls()
    restart(host, host.order.instance)
    assert host.power_state() == power_state.RUNNING
    assert not [call for call in host.lxd.calls if host.order.name in call.path and _changes(call)]


def _changes(call) -> bool:
    return call.method != "GET"


def test_a_server_deleted_while_the_service_was_down_is_removed(host, options):
    options(running_deleted_instance_timeout=-1)
    host.spawn()
    restart(host, known=deleted(host))
    assert host.remains() == []


@pytest.mark.parametrize(
    "values",
    [{"running_deleted_instance_action": "log"}, {"running_deleted_instance_timeout": 3600}],
)
def test_the_operator_may_keep_deleted_servers(host, options, values):
    options(**values)
    host.spawn()
    restart(host, known=deleted(host))
    assert host.power_state() == power_state.RUNNING


def test_a_port_that_another_server_uses_now_stays(host, options, ports):
    options(running_deleted_instance_timeout=-1)
    host.spawn()
    other = servers.order(port_ids=host.order.port_ids)
    restart(host, other.instance, known=deleted(host))
    assert host.remains() == [f"port {host.order.port_ids[0]}"]


def test_a_server_of_another_host_stays(host):
    host.spawn()
    host.order.instance.deleted = False
    restart(host, known=host.order.instance)
    assert host.power_state() == power_state.RUNNING


def test_what_nova_does_not_know_stays(host, caplog):
    host.spawn()
    restart(host)
    assert host.power_state() == power_state.RUNNING
    assert f"lxc delete --force --project nova {host.order.name}" in caplog.text


def test_an_instance_without_our_mark_stays(host):
    host.lxd.state.add_instance(PROJECT, "mine")
    host.lxd.state.add_instance("default", host.order.name)
    host.order.instance.vm_state = vm_states.BUILDING
    restart(host, host.order.instance)
    assert "mine" in host.lxd.state.projects[PROJECT].instances
    assert host.order.name in host.lxd.state.projects["default"].instances


def test_one_servers_trouble_does_not_keep_the_others(host, caplog):
    first, second = host.order, servers.order()
    host.spawn()
    host.order = second
    host.spawn()
    for order in (first, second):
        order.instance.vm_state = vm_states.BUILDING
    host.lxd.faults.fail(lambda method, path: path.endswith(first.name), Fault.HTTP_500, times=9)
    restart(host, first.instance, second.instance)
    assert list(host.lxd.state.projects[PROJECT].instances) == [first.name]
    assert "cannot be mended" in caplog.text


def test_the_service_starts_when_lxd_cannot_list(host, caplog):
    host.spawn()
    real = host.driver.process_instances_at_startup
    host.lxd.stop()
    assert real(host.order.context, [host.order.instance]) == [host.order.instance]
    assert "cannot be read" in caplog.text


# -- the crash matrix


CRASHES = {
    "spawn": ((), "spawn", vm_states.BUILDING, task_states.SPAWNING),
    "destroy": (("spawn",), "destroy", vm_states.ACTIVE, task_states.DELETING),
    "destroy, rescued": (("spawn", "rescued"), "destroy", vm_states.RESCUED, task_states.DELETING),
    "rescue": (("spawn", "power_off"), "rescue", vm_states.ACTIVE, task_states.RESCUING),
    "unrescue": (("spawn", "rescued"), "unrescue", vm_states.RESCUED, task_states.UNRESCUING),
    "finish": (("spawn", "prepare"), "finish", vm_states.ACTIVE, task_states.RESIZE_FINISH),
    "confirm": (("spawn", "resize"), "confirm", vm_states.ACTIVE, None),
}


def die_at(host: Host, index: int, ports: Ports, *, after: bool) -> None:
    """Let nothing reach LXD or the ports from this call on: nova-compute is dead."""
    numbers = itertools.count()

    def dead(method: str, path: str) -> bool:
        if next(numbers) < index + after:
            return False
        ports.failing = Everything()
        return True

    host.lxd.faults.forget_calls()
    if after:
        host.lxd.faults.fail(index, Fault.DROPPED_AFTER)
    host.lxd.faults.fail(dead, Fault.DROPPED, times=10**6)


def check_converged(host: Host, action: str) -> list[str]:
    if action in ("spawn", "destroy"):
        return [f"it left {thing}" for thing in host.remains()]
    instance = host.order.instance
    problems = [f"it left {thing}" for thing in host.rescue_remains() + host.snapshots()]
    if action == "confirm":
        return problems
    if (instance.vm_state, instance.task_state) != (vm_states.ERROR, None):
        problems.append(f"the server is {instance.vm_state} {instance.task_state}")
    if error := attempt(host.reboot):
        problems.append(f"a hard reboot fails: {error!r}")
    elif host.power_state() != power_state.RUNNING:
        problems.append("a hard reboot does not start it")
    return problems


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", CRASHES)
def test_death_at_every_call(name, after, tmp_path, ports):
    before, action, vm_state, task_state = CRASHES[name]
    with contextlib.closing(Host(tmp_path / "clean", ports)) as host:
        for step in before:
            getattr(host, step)()
        host.lxd.faults.forget_calls()
        getattr(host, action)()
        count = len(host.lxd.calls)
        host.destroy()
    assert count
    found = []
    for index in range(count):
        with contextlib.closing(Host(tmp_path / f"{index}", ports)) as host:
            for step in before:
                getattr(host, step)()
            die_at(host, index, ports, after=after)
            attempt(getattr(host, action))
            ports.failing = set()
            host.recover()
            struck = " ".join(host.lxd.faults.hits[0])
            instance = host.order.instance
            instance.vm_state, instance.task_state = vm_state, task_state
            restart(host, instance)
            if action == "destroy":
                # Nova deletes it again right after the recovery.
                host.destroy()
            problems = check_converged(host, action)
            found += [f"call {index} ({struck}): {problem}" for problem in problems]
            ports.plugged.clear()
    assert not found, "\n".join(found)


# -- ports


@pytest.mark.parametrize("error", [RuntimeError("netlink"), KeyError("mtu"), OSError(5, "no")])
def test_no_other_error_escapes_from_plug_vifs(host, error):
    order = host.order
    with mock.patch("nova_lxd.privsep.disable_ipv6", side_effect=error):
        with pytest.raises(nova_exception.VirtualInterfacePlugException):
            host.driver.plug_vifs(order.instance, order.network_info)


def test_a_broken_network_model_does_not_escape_from_plug_vifs(host):
    broken = host.order.network_info
    broken[0]["network"] = None
    with pytest.raises(nova_exception.VirtualInterfacePlugException):
        host.driver.plug_vifs(host.order.instance, broken)
