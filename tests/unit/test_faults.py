"""A failure at every step: the first error is told, and nothing stays behind.

What a clean run asks of LXD is recorded; then the run is repeated as often as there are calls, and
each time another one fails, in every way there is.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from nova import exception as nova_exception
from nova.compute import power_state, vm_states

from tests.fake_lxd import Call, Fault

from .compute_host import Host, attempt, check_destroy_at_last, check_images

pytestmark = pytest.mark.usefixtures("options")

ABSENT = (Fault.DOWN, Fault.RESTART)
"""Faults that may outlast the undoing of what was done."""
UNKNOWN = (Fault.DROPPED_AFTER, Fault.BROKEN_JSON)
"""Faults after which LXD may still take in an image that nobody waits for, as when a wait fails."""
LIES = (Fault.HTTP_404,)
"""Answers that let the driver believe that a thing is gone which is not."""
REFUSALS = (Fault.HTTP_404, Fault.HTTP_409, Fault.HTTP_412, Fault.HTTP_503)
"""Answers that only matter where things are made and removed."""
OUT_OF_REACH = (nova_exception.HypervisorUnavailable, nova_exception.BuildAbortException)
"""What Nova is told when LXD was away; a build is given up, since it could not be undone."""


@dataclass(frozen=True)
class Case:
    """An action on a server, what must come before it, and where it leads."""

    before: tuple[str, ...]
    action: str
    power: int | None = None
    """The power state that it leads to."""


CASES = {
    "first spawn": Case((), "spawn", power_state.RUNNING),
    "later spawn": Case(("spawn", "destroy"), "spawn", power_state.RUNNING),
    "destroy": Case(("spawn",), "destroy"),
    "power_on": Case(("spawn", "power_off"), "power_on", power_state.RUNNING),
    "power_off": Case(("spawn",), "power_off", power_state.SHUTDOWN),
    "shut_down": Case(("spawn",), "shut_down", power_state.SHUTDOWN),
    "reboot": Case(("spawn",), "reboot", power_state.RUNNING),
    "resize": Case(("spawn",), "resize", power_state.RUNNING),
    "confirm": Case(("spawn", "resize"), "confirm", power_state.RUNNING),
    "revert": Case(("spawn", "resize"), "revert", power_state.RUNNING),
    "pause": Case(("spawn",), "pause", power_state.PAUSED),
    "rescue": Case(("spawn", "power_off"), "rescue", power_state.RUNNING),
    "unrescue": Case(("spawn", "rescued"), "unrescue", power_state.RUNNING),
    "destroy of a rescued server": Case(("spawn", "rescued"), "destroy"),
    "snapshot": Case(("spawn",), "snapshot", power_state.RUNNING),
    "unpause": Case(("spawn", "pause"), "unpause", power_state.RUNNING),
}


@contextlib.contextmanager
def prepared(case: Case, folder, ports):
    host = Host(folder, ports)
    try:
        for action in case.before:
            getattr(host, action)()
        host.lxd.faults.forget_calls()
        yield host
    finally:
        host.close()


def check_spawn(host: Host, case: Case, index: int, kind: Fault) -> list[str]:
    error = attempt(host.spawn)
    problems = check_error(host, index, kind, error)
    if error and kind not in (*ABSENT, Fault.NEVER_ENDS):
        problems += [f"the undo left {thing}" for thing in left_by_undo(host, kind)]
    host.recover()
    if error is None and host.power_state() != case.power:
        problems.append(f"it says that all is well, but the power state is {host.power_state()}")
    return problems + check_destroy_at_last(host)


def left_by_undo(host: Host, kind: Fault) -> list[str]:
    (struck,) = host.lxd.faults.hits
    if kind in UNKNOWN and struck == Call("POST", "/1.0/instances"):
        # LXD may not even have begun when the undo looks for the instance.
        return [thing for thing in host.remains() if thing.startswith("port")]
    return host.remains(images=kind not in UNKNOWN and not struck.path.endswith("/wait"))


def check_destroy(host: Host, case: Case, index: int, kind: Fault) -> list[str]:
    error = attempt(host.destroy)
    problems = check_error(host, index, kind, error)
    if error is None and kind not in LIES:
        problems += [f"it says that all is well, but left {thing}" for thing in host.remains()]
    host.recover()
    return problems + check_destroy_at_last(host)


def check_power(host: Host, case: Case, index: int, kind: Fault) -> list[str]:
    action = getattr(host, case.action)
    error = attempt(action)
    problems = check_error(host, index, kind, error)
    host.recover()
    again = attempt(action) if error else None
    if again:
        problems.append(f"it cannot be repeated on a sound host: {again!r}")
    if host.power_state() != case.power:
        problems.append(f"the power state is {host.power_state()} in the end")
    return problems + check_destroy_at_last(host)


def check_error(host: Host, index: int, kind: Fault, error: Exception | None) -> list[str]:
    """Nova acts on the type: an instance that is there must never be called absent."""
    if error is None:
        return []
    if not isinstance(error, nova_exception.NovaException):
        return [f"raised {error!r}"]
    away = (Fault.DROPPED, Fault.DROPPED_AFTER, Fault.DOWN, Fault.RESTART, Fault.HTTP_503)
    problems = []
    if isinstance(error, nova_exception.InstanceNotFound) and kind not in LIES:
        problems.append(f"raised {error!r}")
    if kind is Fault.SLOW:
        problems.append(f"a late answer was taken for an error: {error!r}")
    if kind in away and not isinstance(error, OUT_OF_REACH):
        problems.append(f"LXD was away, but Nova is told {error!r}")
    if kind in (Fault.HTTP_500, Fault.OPERATION_FAILURE) and "injected fault" not in str(error):
        problems.append(f"the error is not the first one: {error!r}")
    return problems


def check_rescue(host: Host, case: Case, index: int, kind: Fault) -> list[str]:
    error = attempt(host.rescue)
    problems = check_error(host, index, kind, error)
    if error and kind not in (*ABSENT, Fault.NEVER_ENDS, *UNKNOWN):
        problems += [f"the undo left {thing}" for thing in host.rescue_remains()]
    host.recover()
    again = attempt(host.rescue) if error else None
    if again:
        problems.append(f"it cannot be repeated on a sound host: {again!r}")
    if host.power_state() != case.power:
        problems.append(f"the power state is {host.power_state()} in the end")
    if left := attempt(host.unrescue):
        problems.append(f"the server cannot be taken out of rescue: {left!r}")
    problems += [f"unrescue left {thing}" for thing in host.rescue_remains()]
    return problems + check_destroy_at_last(host)


def check_way_back(host: Host, case: Case, index: int, kind: Fault) -> list[str]:
    """Check what ends a rescue or a resize; whatever fails, a hard reboot brings it back whole."""
    action = getattr(host, case.action)
    error = attempt(action)
    problems = check_error(host, index, kind, error)
    host.recover()
    host.order.instance.vm_state = vm_states.ERROR
    again = attempt(host.reboot) if error else None
    if again:
        problems.append(f"a hard reboot does not mend it: {again!r}")
    if host.power_state() != case.power:
        problems.append(f"the power state is {host.power_state()} in the end")
    problems += [f"it left {thing}" for thing in host.rescue_remains() + host.snapshots()]
    return problems + check_destroy_at_last(host)


def check_snapshot(host: Host, case: Case, index: int, kind: Fault) -> list[str]:
    error = attempt(host.snapshot)
    problems = check_error(host, index, kind, error)
    if error and host.glance.known:
        problems.append("an image that failed is left in Glance")
    (struck,) = host.lxd.faults.hits
    undone = struck.method != "DELETE" and not struck.path.endswith("/wait")
    if undone and kind not in (*ABSENT, Fault.NEVER_ENDS, *UNKNOWN):
        problems += [f"it left {thing}" for thing in host.snapshot_remains()]
    host.recover()
    if again := attempt(host.snapshot):
        problems.append(f"it cannot be repeated on a sound host: {again!r}")
    if not host.glance.content:
        problems.append("Glance got nothing")
    problems += [f"the next one left {thing}" for thing in host.snapshots()]
    if host.power_state() != case.power:
        problems.append(f"the power state is {host.power_state()} in the end")
    return problems + check_destroy_at_last(host)


CHECKS = {
    "snapshot": check_snapshot,
    "spawn": check_spawn,
    "destroy": check_destroy,
    "rescue": check_rescue,
    "unrescue": check_way_back,
    "confirm": check_way_back,
    "revert": check_way_back,
}


def combinations():
    for name, case in CASES.items():
        for kind in Fault:
            if case.power is None or case.action == "spawn" or kind not in REFUSALS:
                yield pytest.param(name, kind, id=f"{name}-{kind.name}")


@pytest.mark.parametrize(("name", "kind"), combinations())
def test_every_call(name, kind, tmp_path, ports):
    case = CASES[name]
    with prepared(case, tmp_path / "clean", ports) as host:
        getattr(host, case.action)()
        clean = host.lxd.calls
        assert not check_destroy_at_last(host)
    assert clean

    hosts = [Host(tmp_path / f"{index}", ports) for index in range(len(clean))]

    def run(index: int) -> list[str]:
        host = hosts[index]
        for action in case.before:
            getattr(host, action)()
        host.lxd.faults.forget_calls()
        host.lxd.faults.fail(index, kind, text="injected fault")
        if kind is Fault.NEVER_ENDS:
            host.be_impatient()
        check = CHECKS.get(case.action, check_power)
        problems = check(host, case, index, kind)
        struck = [" ".join(call) for call in host.lxd.faults.hits] or ["nothing"]
        return [f"call {index} ({struck[0]}): {problem}" for problem in problems]

    try:
        with ThreadPoolExecutor(8) as pool:
            found = [line for lines in pool.map(run, range(len(clean))) for line in lines]
        for host in hosts:
            assert host.lxd.faults.hits
            assert check_images(host) == []
    finally:
        for host in hosts:
            host.close()
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "call", [("GET", "/1.0/profiles/"), ("POST", "/1.0/profiles"), ("PUT", "/state")]
)
def test_a_resize_that_fails_at_its_end_leaves_no_snapshot(call, tmp_path, ports):
    def struck(method, path):
        prepared = any(host.lxd.state.projects["nova"].instances[host.order.name].snapshots)
        return method == call[0] and call[1] in path and prepared

    with contextlib.closing(Host(tmp_path, ports)) as host:
        host.spawn()
        host.order.instance.flavor.memory_mb = 96
        host.lxd.faults.fail(struck, Fault.HTTP_500)
        assert attempt(host.resize)
        assert host.lxd.faults.hits
        assert not host.lxd.state.projects["nova"].instances[host.order.name].snapshots
