"""What Nova is told of what happens to containers."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager

import pytest
from nova.virt import event as virtevent

from nova_lxd import exception
from nova_lxd.virt import event
from nova_lxd.virt.model import InstanceState, LifecycleEvent

STARTED = virtevent.EVENT_LIFECYCLE_STARTED
STOPPED = virtevent.EVENT_LIFECYCLE_STOPPED
PAUSED = virtevent.EVENT_LIFECYCLE_PAUSED
RESUMED = virtevent.EVENT_LIFECYCLE_RESUMED

HOLD = 1.0


def state(status="Running", name="one", uuid="uuid-one", role=""):
    return InstanceState(name=name, uuid=uuid, status=status, role=role)


def heard(action, name="one"):
    return LifecycleEvent(name, f"instance-{action}")


@pytest.fixture
def watch():
    watch = event.Watch()
    watch.survey([state()], 0, HOLD)
    return watch


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ("running", "shutdown", STOPPED),
        ("paused", "shutdown", STOPPED),
        ("running", "crashed", STOPPED),
        ("running", "paused", PAUSED),
        ("paused", "running", RESUMED),
        ("shutdown", "running", STARTED),
        ("shutdown", "paused", PAUSED),
        ("running", "running", None),
        ("", "shutdown", None),
        ("", "running", None),
    ],
)
def test_transitions(before, now, told):
    assert event.transition(before, now) == told


def test_a_forced_stop_is_told_at_once(watch):
    watch.hear(heard("stopped"), 5, HOLD)
    assert watch.due(5) == ["one"]
    assert watch.look(state("Stopped"), 5) == STOPPED
    assert watch.due(99) == []


def test_a_shutdown_is_held_back(watch):
    watch.hear(heard("shutdown"), 5, HOLD)
    assert watch.due(5.9) == []
    assert watch.patience(5.5, 10) == 0.5
    assert watch.due(6) == ["one"]
    assert watch.look(state("Stopped"), 6) == STOPPED


def test_a_reboot_from_inside_is_no_stop(watch):
    watch.hear(heard("shutdown"), 5, HOLD)
    watch.hear(heard("restarted"), 5.3, HOLD)
    assert watch.due(5.3) == ["one"]
    assert watch.look(state("Running"), 5.3) is None
    assert watch.due(99) == []


def test_a_passing_state_is_looked_at_again(watch):
    watch.hear(heard("shutdown"), 5, HOLD)
    assert watch.look(state("Starting"), 6) is None
    assert watch.due(6) == []
    assert watch.due(7) == ["one"]
    assert watch.look(state("Running"), 7) is None


def test_an_event_that_comes_twice_is_told_once(watch):
    assert watch.look(state("Stopped"), 1) == STOPPED
    assert watch.look(state("Stopped"), 2) is None


def test_events_of_no_interest_cause_no_look(watch):
    watch.hear(heard("exec"), 1, HOLD)
    watch.hear(heard("shutdown"), 1, HOLD)
    watch.hear(heard("deleted"), 1.1, HOLD)
    assert watch.due(99) == []


def test_a_survey_finds_what_no_event_told(watch):
    watch.survey([state("Stopped"), state("Stopped", "two", "uuid-two")], 20, HOLD)
    assert watch.due(20) == []
    assert watch.due(21) == ["one"], "a server that was not known before is only remembered"
    assert watch.look(state("Stopped"), 21) == STOPPED


def test_a_server_that_is_gone_is_forgotten(watch):
    watch.survey([], 20, HOLD)
    assert watch.look(state("Stopped"), 21) is None, "it is not known any more"


def test_a_rescued_servers_own_container_tells_nothing(watch):
    assert watch.look(state("Stopped", role="rescued"), 1) is None
    assert watch.look(state("Running", "one-rescue", role="rescue"), 2) is None
    assert watch.look(state("Stopped", "one-rescue", role="rescue"), 3) == STOPPED


def test_instances_of_others_tell_nothing(watch):
    assert watch.look(state("Stopped", "other", ""), 1) is None


class Stream:
    """Stands in for LXD's websocket, which the fake LXD does not have."""

    def __init__(self):
        self.events = queue.Queue()
        self.aborted = threading.Event()

    def next(self, seconds):
        try:
            item = self.events.get(timeout=min(seconds, 0.05))
        except queue.Empty:
            item = None
        if isinstance(item, Exception) or self.aborted.is_set():
            raise exception.LXDUnreachable("gone")
        return item

    def abort(self):
        self.aborted.set()


class LXD:
    """Stands in for the session: one container."""

    def __init__(self):
        self.status = "Running"
        self.streams = queue.Queue()
        self.forgotten = []

    @contextmanager
    def events(self):
        stream = Stream()
        self.streams.put(stream)
        yield stream

    def states(self):
        return [state(self.status)]

    def state(self, name):
        return state(self.status)

    def forget(self, name):
        self.forgotten.append(name)


@pytest.fixture
def lxd():
    return LXD()


@pytest.fixture
def told(lxd, monkeypatch):
    told = queue.Queue()
    monkeypatch.setattr(event.thread_pool_factory, "spawn", lambda call, *args: call(*args))
    monkeypatch.setattr(event, "_RETRY", (0.01, 0.01))
    events = event.Events(lxd, told.put)
    events.start()
    events.start()
    yield told
    events.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "lxd-events"]


def test_nova_is_told(lxd, told):
    stream = lxd.streams.get(timeout=30)
    stream.events.put(heard("started"))
    lxd.status = "Stopped"
    stream.events.put(heard("stopped"))
    event = told.get(timeout=30)
    assert (event.get_instance_uuid(), event.get_transition()) == ("uuid-one", STOPPED)
    assert lxd.forgotten == ["one", "one"]


def test_what_happened_while_lxd_was_away_is_told(lxd, told):
    stream = lxd.streams.get(timeout=30)
    stream.events.put(heard("started"))
    lxd.status = "Stopped"
    stream.events.put(RuntimeError())
    assert lxd.streams.get(timeout=30)
    assert told.get(timeout=30).get_transition() == STOPPED
