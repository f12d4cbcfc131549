"""A server can be deleted whatever it is and whatever is done to it, and nothing stays behind."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass

import fixtures
from nova.cmd import manage
from nova.context import get_admin_context
from nova.tests.functional.api import client as api_client

from tests.functional.base import DEADLINE, ServerTestCase, wait_for

Steps = tuple[tuple[dict, str], ...]
"""Actions of the API, each with the status that it leads to."""

STOP = ({"os-stop": None}, "SHUTOFF")
PAUSE = ({"pause": None}, "PAUSED")
SUSPEND = ({"suspend": None}, "SUSPENDED")
RESCUE = ({"rescue": None}, "RESCUE")
RESIZE = ({"resize": {"flavorRef": "larger"}}, "VERIFY_RESIZE")

STATES: dict[str, Steps] = {
    "active": (),
    "shutoff": (STOP,),
    "paused": (PAUSE,),
    "suspended": (SUSPEND,),
    "rescue": (RESCUE,),
    "stopped_in_rescue": (STOP, RESCUE),
    "verify_resize": (RESIZE,),
    "stopped_verify_resize": (STOP, RESIZE),
    "locked": (({"lock": {"locked_reason": "mine"}}, "ACTIVE"),),
}


@dataclass(frozen=True)
class Task:
    """Something that is done to a server, and where it is held while the server is deleted."""

    hold: str
    """A function of the driver's, by its path from the driver, or of Nova's, by its own."""
    action: dict
    before: Steps = ()
    when: str = ""
    """The second argument of the call that is held; empty when any call is."""
    waits: bool = False
    """Whether Nova itself lets the deletion wait for the end of the action."""


_STATE = "_session.change_state"

TASKS = {
    "stopping": Task(_STATE, {"os-stop": None}, when="stop", waits=True),
    "starting": Task(_STATE, {"os-start": None}, (STOP,), "start"),
    "rebooting": Task(_STATE, {"reboot": {"type": "HARD"}}, when="start", waits=True),
    "pausing": Task(_STATE, {"pause": None}, when="freeze"),
    "unpausing": Task(_STATE, {"unpause": None}, (PAUSE,), "unfreeze"),
    "suspending": Task(_STATE, {"suspend": None}, when="freeze"),
    "resuming": Task(_STATE, {"resume": None}, (SUSPEND,), "unfreeze"),
    "rescuing": Task("_session.create_instance", {"rescue": None}),
    "rescuing_at_its_end": Task("_power.start", {"rescue": None}),
    "unrescuing": Task("_containers.leave_rescue", {"unrescue": None}, (RESCUE,)),
    "unrescuing_at_its_end": Task("_power.start", {"unrescue": None}, (RESCUE,)),
    "resize_migrating": Task("_session.create_snapshot", RESIZE[0]),
    "resize_finish": Task("_containers.configure", RESIZE[0]),
    "resize_finish_at_its_end": Task("_power.on", RESIZE[0]),
    "reverting": Task("_session.restore_snapshot", {"revertResize": None}, (RESIZE,)),
    "confirming": Task("_session.delete_snapshot", {"confirmResize": None}, (RESIZE,), waits=True),
    "rebuilding": Task("nova_lxd.virt.download.opened", {"rebuild": {"imageRef": "another"}}),
    "rebuild_spawning": Task("_session.create_instance", {"rebuild": {"imageRef": "another"}}),
    "rebuild_spawning_at_its_end": Task(_STATE, {"rebuild": {"imageRef": "another"}}, when="start"),
}


class Held:
    """A function that waits, once, until it is told to go on."""

    def __init__(self, function: Callable, when: str) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self._function = function
        self._when = when

    def __call__(self, *args, **kwargs):
        if not self.reached.is_set() and (not self._when or args[1] == self._when):
            self.reached.set()
            assert self.go.wait(DEADLINE)
        return self._function(*args, **kwargs)


class DeleteTestCase(ServerTestCase):
    def setUp(self):
        super().setUp()
        self.flags(allow_resize_to_same_host=True)
        # An action that loses its server fails, and Nova says so.
        self.expect_log(
            r"\[nova\.compute\.(manager|resource_tracker)\]",
            r"\[nova\.(api\.openstack\.wsgi|scheduler\.client\.report)\]",
            r"\[oslo_messaging\.rpc\.server\]",
        )

    def take(self, server: dict, steps: Steps) -> None:
        """Bring a server where a test begins."""
        for action, status in steps:
            self.act(server, self.filled(action), status)

    def filled(self, action: dict) -> dict:
        """Put a flavor and an image of this test's into an action."""
        if "resize" in action:
            return {"resize": {"flavorRef": self.flavor(memory_mb=96, vcpus=2, disk=2)}}
        if "rebuild" in action:
            return {"rebuild": {"imageRef": self.image(self._images.busybox, name="another")}}
        return action

    def held(self, hold: str, when: str = "") -> Held:
        """Let the next call of a function wait."""
        path, name = hold.rsplit(".", 1)
        owner = self.compute.driver
        owner = (
            importlib.import_module(path) if path.startswith("nova_lxd.") else getattr(owner, path)
        )
        held = Held(getattr(owner, name), when)
        self.useFixture(fixtures.MockPatchObject(owner, name, held))
        self.addCleanup(held.go.set)
        return held

    def delete_while(self, server: dict, held: Held, *, waits: bool) -> None:
        """Delete a server while an action is held, let that go on, and see what is left."""
        assert held.reached.wait(DEADLINE)
        if waits:
            with futures.ThreadPoolExecutor() as pool:
                deletion = pool.submit(self.insist, server)
                # The answer itself may wait for the end of the action.
                futures.wait([deletion], timeout=1)
                held.go.set()
                deletion.result()
            self.wait_gone(server["id"])
        else:
            promised = self.lxd_names("profiles")
            self.delete(server)
            self.assert_nothing_on_host(promised=promised)
            held.go.set()
        wait_for(lambda: self.ended(server), "the action to end")
        self.assert_nothing_on_host()
        # Nova gives a server that it resizes its allocation back, though it is deleted.
        manage.PlacementCommands().audit(delete=True)

    def insist(self, server: dict) -> None:
        """Delete a server; Nova answers 500 when a deletion meets a confirmation of a resize."""
        try:
            self.api.delete_server(server["id"])
        except api_client.OpenStackApiException as error:
            if error.response.status_code != 500:
                raise
            wait_for(lambda: self.ended(server), "the confirmation to end")
            self.api.delete_server(server["id"])

    def ended(self, server: dict) -> bool:
        """Whether every action of a server has come to its end."""
        for action in self.api.get_instance_actions(server["id"]):
            details = self.api.get_instance_action_details(server["id"], action["request_id"])
            if not all(event["finish_time"] for event in details["events"]):
                return False
        return True


class StateTest(DeleteTestCase):
    """One test for each row of ``STATES``."""

    def check(self, steps: Steps) -> None:
        server = self.boot(config_drive=True)
        self.take(server, steps)
        self.delete(server)
        self.assert_nothing_on_host()

    def test_an_error_that_an_administrator_declared(self):
        server = self.boot()
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "error"}})
        self.delete(server)
        self.assert_nothing_on_host()

    def test_a_build_that_failed(self):
        server = self.boot(status="ERROR", image=self.image(self._images.qcow2))
        self.delete(server)
        self.assert_nothing_on_host()


class TaskTest(DeleteTestCase):
    """One test for each row of ``TASKS``, and for a build."""

    def check(self, task: Task) -> None:
        server = self.boot()
        self.take(server, task.before)
        held = self.held(task.hold, task.when)
        self.api.post_server_action(server["id"], self.filled(task.action))
        self.delete_while(server, held, waits=task.waits)

    def test_building_while_the_image_is_fetched(self):
        held = self.held("nova_lxd.virt.download.opened")
        server = self.request_server()
        self.delete_while(server, held, waits=True)

    def test_building_at_its_end(self):
        held = self.held(_STATE, "start")
        server = self.request_server()
        self.delete_while(server, held, waits=True)

    def test_stopping_a_guest_that_does_not_listen(self):
        server = self.boot()
        os.kill(self.init_of(server), signal.SIGSTOP)
        self.api.post_server_action(server["id"], {"os-stop": None})
        self.delete(server)
        wait_for(lambda: self.ended(server), "the stop to end")
        self.assert_nothing_on_host()

    def init_of(self, server: dict) -> int:
        """Return the host's id of the server's first process."""
        path = f"/1.0/instances/{self.name_of(server)}/state?project={self._project}"
        return self._machine.get(path)["pid"]


def _fill(case: type[DeleteTestCase], table: dict) -> None:
    """Give a class a test for each row of a table."""
    for name, row in table.items():

        def test(self, row=row):
            self.check(row)

        test.__name__ = f"test_{name}"
        setattr(case, test.__name__, test)


_fill(StateTest, STATES)
_fill(TaskTest, TASKS)


class SoftDeleteTest(ServerTestCase):
    def setUp(self):
        super().setUp()
        self.flags(reclaim_instance_interval=3600)

    def _prove_clean(self) -> None:
        # What the test deletes at its end is to be gone at once.
        self.flags(reclaim_instance_interval=0)
        super()._prove_clean()

    def soft_delete(self, server: dict) -> None:
        """Delete a server so that it can be restored: it is off, and whole."""
        self.api.delete_server(server["id"])
        self.wait_status(server, "SOFT_DELETED")
        assert self.lxd_instance(server)["status"] == "Stopped"

    def test_nothing_is_lost(self):
        begins: dict[str, Steps] = {"running": (), "stopped": (STOP,), "paused": (PAUSE,)}
        for name, steps in begins.items():
            with self.subTest(name):
                server = self.boot()
                self.guest(server, "sh", "-c", "echo kept >/root/note")
                for action, status in steps:
                    self.act(server, action, status)
                self.soft_delete(server)
                self.act(server, {"restore": None}, "ACTIVE")
                assert self.guest(server, "cat", "/root/note") == "kept"
                self.assert_clean()
                self.soft_delete(server)
                self.api.post_server_action(server["id"], {"forceDelete": None})
                self.wait_gone(server["id"])
                self.assert_nothing_on_host()

    def test_it_is_reclaimed_when_its_time_has_come(self):
        server, other = self.boot(), self.boot()
        self.soft_delete(server)
        self.compute.manager._reclaim_queued_deletes(get_admin_context())
        assert self.lxd_instance(server)["status"] == "Stopped", "not yet"
        self.flags(reclaim_instance_interval=1)
        wait_for(lambda: self.reclaimed(server), "the server to be old enough")
        assert self.lxd_names("instances") == [self.name_of(other)]

    def reclaimed(self, server: dict) -> bool:
        self.compute.manager._reclaim_queued_deletes(get_admin_context())
        return self.name_of(server) not in self.lxd_names("instances")

    def test_a_rebuild_that_failed_can_be_soft_deleted(self):
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[oslo_messaging\.rpc\.server\]")
        server = self.boot()
        self.agent.verdict = "failed"
        self.api.post_server_action(server["id"], {"rebuild": {"imageRef": self.busybox_image()}})
        self.wait_status(server, "ERROR")
        self.api.delete_server(server["id"])
        wait_for(
            lambda: self.api.get_server(server["id"])["status"] == "SOFT_DELETED", "the deletion"
        )
        self.api.post_server_action(server["id"], {"forceDelete": None})
        self.wait_gone(server["id"])
        self.assert_nothing_on_host()
