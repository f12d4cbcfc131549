"""Every action of Nova's API, and at each call that it makes to LXD every fault there is.

The table is made, not typed: an action is done once on a sound LXD behind a proxy, which notes the
calls; then it is done again for each call and fault.  Whatever happens, Nova must say what is true,
nothing may be left that has no owner, and the server must be brought back or removed by what a
tenant or an operator would do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ddt
import pytest
from nova import objects
from nova.cmd import manage
from nova.compute import power_state
from nova.context import get_admin_context
from nova.tests.functional.api import client as api_client

from nova_lxd.virt import event, migration
from nova_lxd.virt.instance import rescue_name
from tests.fake_lxd.faults import Call, Fault, Selector
from tests.functional.actions import ACTIONS, CREATIONS, GONE, GROUPS, WAY_BACK, Action
from tests.functional.base import POWER, ServerTestCase, wait_for
from tests.functional.proxy import Proxy

KINDS = (Fault.HTTP_500, Fault.DROPPED_AFTER, Fault.OPERATION_FAILURE, Fault.DROPPED)
AWAY = 3
"""Calls that find nobody when LXD is away for a moment: what DROPPED stands for here."""
TRIES = 3
"""How often a row is begun whose fault strikes another call than the one that was recorded."""
SHARE = 2
"""Calls of an action that get a fault, unless there are to be more."""
FAULTS = os.environ.get("NOVA_LXD_FAULTS", "")
"""``each``: every call gets a fault, and the kinds take turns; ``all``: every call gets all."""
TABLE = os.environ.get("NOVA_LXD_FAULT_TABLE", "")
"""A file that gets a line for each row."""
_NETWORK_DEVICES = ("tap", "tin", "qbr", "qvb", "qvo")


class Row(NamedTuple):
    """One action with one fault, and what came of it."""

    action: str
    index: int
    call: Call
    kind: Fault
    outcome: str
    problems: list[str]

    def __str__(self) -> str:
        fault = f"{self.kind.name:17} at {self.index:2} {' '.join(self.call)}"
        return f"{self.action:27} {fault:80} {self.outcome}" + "".join(
            f"\n    {problem}" for problem in self.problems
        )


def plan(calls: list[Call], background: set[Call]) -> Iterator[tuple[int, Fault]]:
    """Say which faults strike which calls."""
    for index, call in enumerate(calls):
        kinds = [kind for kind in KINDS if _suits(kind, call, background)]
        if FAULTS == "all":
            yield from ((index, kind) for kind in kinds)
        elif FAULTS == "each" or index in _share(len(calls)):
            yield index, kinds[index % len(kinds)]


def _share(count: int) -> set[int]:
    """Choose calls all along the way, by their number."""
    return {count * number // SHARE + count // (2 * SHARE) for number in range(SHARE)}


def _suits(kind: Fault, call: Call, background: set[Call]) -> bool:
    # A command's operation has ends that nobody but LXD can open.
    possible = call in background and not call.path.endswith("/exec")
    return possible or kind is not Fault.OPERATION_FAILURE


@ddt.ddt
class FaultTableTest(ServerTestCase):
    def setUp(self):
        # What Nova learns from LXD's events it learns here from the sync after each row; so all
        # calls that the proxy sees are the action's.
        self._faulty = self._uploading = self.was_away = False
        self._no_events()
        self.proxy = Proxy(self._machine.lxd.folder / "proxy.socket", self._machine.lxd.socket)
        self.proxy.start()
        self.addCleanup(self.proxy.stop)
        super().setUp()
        self.flags(allow_resize_to_same_host=True)
        self.flavors = {size: self.flavor(memory_mb=size) for size in (64, 96)}

    def _no_events(self) -> None:
        for name in ("start", "stop"):
            patch = pytest.MonkeyPatch()
            patch.setattr(event.Events, name, lambda self: None)
            self.addCleanup(patch.undo)

    def _flags_lxd(self) -> None:
        super()._flags_lxd()
        self.flags(endpoint=str(self.proxy.path), group="lxd")

    @pytest.mark.timeout(7200 if FAULTS else 900)
    @ddt.data(*GROUPS)
    def test_every_call(self, group):
        rows = [row for name in GROUPS[group] for row in self.rows(name)]
        bad = [row for row in rows if row.problems]
        assert not bad, f"{len(bad)} of {len(rows)} rows:\n" + "\n".join(map(str, bad))

    def rows(self, name: str) -> Iterator[Row]:
        """Record the calls of an action that works, then do it again with each fault."""
        action = ACTIONS[name]
        if name in CREATIONS and not action.new_image:
            self.delete(self.order(action))
        server = self.begin(action)
        self.proxy.faults.forget_calls()
        server = self.do(action, server)
        calls = list(self.proxy.faults.calls)
        assert calls, f"{name} asks nothing of LXD"
        self.assert_clean()
        self.bring_back(action, server, [])
        self._faulty = True
        for index, kind in plan(calls, self.proxy.background):
            row = self.row(name, index, kind, calls)
            if TABLE:
                with Path(TABLE).open("a") as table:
                    table.write(f"{row}\n")
            yield row

    # -- one row

    def row(self, name: str, index: int, kind: Fault, calls: list[Call]) -> Row:
        """Do the action with one fault, and see what has become of the server."""
        for _ in range(TRIES):
            strikes = _nth(calls[index], calls[: index + 1].count(calls[index]))
            outcome, problems = self.strike(ACTIONS[name], strikes, kind)
            if self.hits:
                return Row(name, index, calls[index], kind, outcome, problems)
            # A guest that shuts down late, for one, is asked more or less often.
        return Row(name, index, calls[index], kind, outcome, [f"the fault struck {self.hits}"])

    def strike(self, action: Action, strikes: Selector, kind: Fault) -> tuple[str, list[str]]:
        server = self.begin(action)
        before = server["status"] if server else ""
        self.proxy.faults.forget_calls()
        self.proxy.faults.fail(strikes, kind, times=AWAY if kind is Fault.DROPPED else 1)
        try:
            server, refusal = self.attempt(action, server)
        except AssertionError as error:
            return "stuck", [str(error)]
        finally:
            self.hits = self.proxy.faults.hits[:1]
            self.proxy.faults.clear()
        # What LXD was not there to remove, or would not, goes with the next thing that is done; so
        # does what it went on with when it would not let anybody wait.
        refused = any(hit.method == "DELETE" for hit in self.hits)
        alone = kind is Fault.HTTP_500 and any(hit.path.endswith("/wait") for hit in self.hits)
        self._uploading = action.new_image
        self.was_away = refused or alone or kind is Fault.DROPPED
        status, problems = self.judge(action, server, before)
        away, self.was_away, self._uploading = self.was_away, False, False
        problems += self.returns(action, server, problems, away)
        return f"{status} {refusal}".strip(), problems

    def judge(self, action: Action, server: dict, before: str) -> tuple[str, list[str]]:
        """Compare what Nova says once it has looked with what there is."""
        self.sync(server)
        if action.again and self.status(server) not in (action.to, GONE):
            self.attempt(action, server)
        status = self.status(server)
        problems = self.unclean()
        # A server that Nova finds stopped it calls so, and the power is among what was compared.
        if status not in (before, action.to, "ERROR", "SHUTOFF"):
            problems.append(f"the status is {status}")
        return status, problems

    def returns(self, action: Action, server: dict, problems: list[str], away: bool) -> list[str]:
        """Bring the server back, or away; say what is wrong with it then."""
        try:
            done = self.bring_back(action, server, problems, away)
            return [f"brought back, {problem}" for problem in self.unclean()] if done else []
        except (AssertionError, api_client.OpenStackApiException) as error:
            with contextlib.suppress(AssertionError, api_client.OpenStackApiException):
                self.remove(server)
            return [f"it cannot be brought back: {error}"]

    # -- how servers are led about

    def begin(self, action: Action) -> dict | None:
        """Bring about a server that the action can be done to; None when it makes its own."""
        if action.new_image:
            self._busybox = ""
        if action.send is ACTIONS["create"].send:
            return None
        here = [server for server in self._present() if server["status"] == "ACTIVE"]
        server = here[0] if here else self.order(action)
        for name in action.before:
            server = self.do(ACTIONS[name], server)
        return server

    def order(self, action: Action) -> dict:
        return self.boot(flavor=self.flavors[64], **action.request)

    def other_flavor(self, server: dict) -> str:
        """Return a flavor that the server does not have."""
        ram = self.api.get_server(server["id"])["flavor"]["ram"]
        return self.flavors[160 - ram]

    def do(self, action: Action, server: dict | None) -> dict:
        """Do the action and insist that it works."""
        server, refusal = self.attempt(action, server)
        assert not refusal, refusal
        assert self.status(server) == action.to, self.told(server)
        return self.api.get_server(server["id"]) if action.to != GONE else server

    def attempt(self, action: Action, server: dict | None) -> tuple[dict, str]:
        """Do the action, wait until Nova has settled; return what an API that answers refuses."""
        if server is None:
            server = self.request_server(flavor=self.flavors[64], **action.request)
            wait_for(lambda: self.built(server), "the build")
            return self.api.get_server(server["id"]), ""
        known = len(self.api.get_instance_actions(server["id"]))
        try:
            action.send(self, server)
        except api_client.OpenStackApiException as error:
            if not action.answers:
                raise
            return server, f"HTTP {error.response.status_code}"
        if not action.answers:
            wait_for(lambda: self.settled(server, known), f"{action.to}: {self.told(server)}")
        return server, ""

    def settled(self, server: dict, known: int) -> bool:
        """Whether the last action has ended, and Nova does nothing with the server."""
        if self.is_busy(server["id"]):
            return False
        actions = self.api.get_instance_actions(server["id"])
        if len(actions) == known:
            return False
        request = actions[0]["request_id"]
        events = self.api.get_instance_action_details(server["id"], request)["events"]
        # Of two events with one name, as of a resize that is tried again, Nova ends only one.
        begun = {event["event"] for event in events}
        ended = {event["event"] for event in events if event["result"]}
        return bool(begun) and begun == ended and not self.is_busy(server["id"])

    def built(self, server: dict) -> bool:
        return not self.is_busy(server["id"]) and self.status(server) != "BUILD"

    def status(self, server: dict) -> str:
        try:
            return self.api.get_server(server["id"])["status"]
        except api_client.OpenStackApiNotFoundException:
            return GONE

    def told(self, server: dict) -> str:
        """Return what a tenant reads of the last failure."""
        if self.status(server) == GONE:
            return GONE
        return str(self.api.get_server(server["id"]).get("fault", {}).get("message"))

    def sync(self, server: dict) -> None:
        """Let Nova look at the server's power, as it does every ten minutes and after events."""
        context = get_admin_context()
        if self.status(server) == GONE:
            return
        instance = objects.Instance.get_by_uuid(context, server["id"])
        self.compute.manager._query_driver_power_state_and_sync(context, instance)
        self.wait_idle(server)

    def bring_back(
        self, action: Action, server: dict, problems: list[str], away: bool = False
    ) -> bool:
        """Make the server run again, or end it when it was to end or to begin.

        :returns: whether anything had to be done
        """
        status = self.status(server)
        if action.send is ACTIONS["create"].send or action.to == GONE:
            self.remove(server)
            if action.new_image and self.nameless():
                # What an upload left while LXD was away goes when the next one begins.
                self._busybox = ""
                self.remove(self.order(action))
        elif status == "ERROR":
            self.do(ACTIONS[action.back], server)
            self.heal(server)
        elif problems or away or not self.runs(server):
            self.do(ACTIONS[WAY_BACK.get(status, "hard reboot")], server)
            # What LXD was not there to remove, or would not, goes in this pass of Nova's.
            self.compute.manager._run_image_cache_manager_pass(get_admin_context())
        else:
            return False
        return True

    def nameless(self) -> bool:
        return not all(image.aliases for image in super()._facts().images)

    def heal(self, server: dict) -> None:
        """Do what the runbook tells operators to do.

        Nova's books of a server are wrong when its rebuild on its own host or its move failed.
        """
        for move in self.admin_api.get_migrations():
            self.placement.delete(f"/allocations/{move['uuid']}", version="1.28")
        placement = manage.PlacementCommands()
        placement.heal_allocations(instance_uuid=server["id"], force=True)

    def runs(self, server: dict) -> bool:
        now = self.api.get_server(server["id"])
        running = now["OS-EXT-STS:power_state"] == power_state.RUNNING
        return now["status"] == "ACTIVE" and running

    def remove(self, server: dict) -> None:
        """Delete the server; what a failed build left goes when Nova next looks for such."""
        if self._exists(server["id"]):
            self.delete(server)
        self.compute.manager._cleanup_running_deleted_instances(get_admin_context())
        self._servers.remove(server["id"])

    # -- what is wrong

    def unclean(self) -> list[str]:
        try:
            self.assert_clean()
        except AssertionError as error:
            return str(error).splitlines()[1:]
        return []

    def _expected_server(self, server: dict):
        """A server in ERROR may be in rescue, or have the limits of the other flavor of a resize.

        Its power is Nova's all the same.
        """
        expected = super()._expected_server(server)
        if server["status"] != "ERROR":
            return expected
        return dataclasses.replace(
            expected,
            root_gb=0,
            memory_mb=self.limit(server) or expected.memory_mb,
            status=POWER.get(server["OS-EXT-STS:power_state"], ""),
            rescued=rescue_name(expected.name) in self.lxd_names("instances"),
        )

    def limit(self, server: dict) -> int:
        """Return the memory in MiB that LXD gives a server; 0 for one that it does not have."""
        if self.name_of(server) not in self.lxd_names("instances"):
            return 0
        limit = self.lxd_instance(server)["expanded_config"].get("limits.memory", "0MiB")
        return int(limit.removesuffix("MiB"))

    def _expected(self):
        """A server in ERROR may have its ports."""
        failed = [server for server in self._present() if server["status"] == "ERROR"]
        ports = [
            port["id"][:11] for server in failed for port in self.neutron.ports_of(server["id"])
        ]
        links = frozenset(f"{kind}{port}" for port in ports for kind in _NETWORK_DEVICES)
        return dataclasses.replace(super()._expected(), other_links=links)

    def _facts(self):
        """One that waits for a verdict on its resize may have its way back, and so may a failed."""
        facts = super()._facts()
        if self._uploading or self.was_away:
            named = tuple(image for image in facts.images if image.aliases)
            facts = dataclasses.replace(facts, images=named)
        if self.was_away:
            others = tuple(dataclasses.replace(each, snapshots=()) for each in facts.instances)
            used = tuple(each for each in facts.objects if not _is_unused_profile(each))
            facts = dataclasses.replace(facts, instances=others, objects=used)
        waiting = [each for each in self._present() if each["status"] in ("VERIFY_RESIZE", "ERROR")]
        if not waiting:
            return facts
        names = {self.name_of(server) for server in waiting}
        instances = tuple(_without_way_back(i) if i.name in names else i for i in facts.instances)
        # What Nova holds for a move, and holds wrongly when one failed, is not LXD's doing.
        open_ = {str(move["uuid"]) for move in self.admin_api.get_migrations()}
        open_ |= {each["id"] for each in waiting if each["status"] == "ERROR"}
        held = {k: v for k, v in facts.placement.allocations.items() if k not in open_}
        placement = dataclasses.replace(facts.placement, allocations=held)
        return dataclasses.replace(facts, instances=instances, placement=placement)

    def _log_errors(self) -> tuple[str, ...]:
        """What is injected is logged, as it is to be."""
        return () if self._faulty else super()._log_errors()


def _nth(call: Call, number: int) -> Selector:
    """Strike from the call's occurrence of that number on."""
    seen = 0

    def strikes(method: str, path: str) -> bool:
        nonlocal seen
        seen += (method, path) == call
        return seen >= number

    return strikes


def _is_unused_profile(item) -> bool:
    return item.kind == "profile" and not item.instances


def _without_way_back(instance):
    others = tuple(name for name in instance.snapshots if name != migration.SNAPSHOT)
    return dataclasses.replace(instance, snapshots=others)
