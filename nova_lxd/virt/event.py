"""LXD's lifecycle events as Nova's: what happens to servers outside Nova, told at once.

An event says only that a container is worth a look; what Nova is told is what the look shows.  So
events that come late, twice or out of order do no harm.  Those that nobody heard (LXD was away) or
that LXD never sent (somebody killed a container's monitor process: measured on 5.0.2) are made up
for by looking at all containers, in one request, whenever the stream begins and now and then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from nova import thread_pool_factory
from nova.virt import event as virtevent
from oslo_log import log as logging

from nova_lxd import exception
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.model import InstanceState, LifecycleEvent
from nova_lxd.virt.session import Session
from nova_lxd.virt.session.streams import EventStream

LOG = logging.getLogger(__name__)

HOLD = 1.0
"""Seconds before a guest's own shutdown is believed.  A reboot from inside begins with the same
event, and nothing else tells them apart until the container runs again (0.2 s later, LXD 5.0.2)."""
_SLOWNESS = 20
"""A slow LXD gets this many times the time of its last answer on top."""
_LOOK_AGAIN = 0.3
"""Seconds until a container that LXD is changing right now is looked at again."""
_ROUND = 60.0
"""Seconds between two looks at all containers: what has no event is rare, and with 200 servers LXD
takes a tenth of a second for it."""
_RETRY = (0.5, 10.0)
"""Seconds between two attempts to reach LXD: at first, and at most."""
_PATIENCE = 10
"""Seconds that ``stop`` waits for the thread."""

_RESTARTABLE = "instance-shutdown"
_GONE = "instance-deleted"
_OF_NO_INTEREST = frozenset({"instance-created", "instance-exec", "instance-console"})


def transition(before: str, now: str) -> int | None:
    """Name Nova's event for a change of power; None when there is nothing to tell.

    :param before: as :func:`instance.power` names it, or empty for a server not seen before
    """
    if not before or before == now:
        return None
    if now == "running" and before == "paused":
        return int(virtevent.EVENT_LIFECYCLE_RESUMED)
    events = {
        "running": virtevent.EVENT_LIFECYCLE_STARTED,
        "paused": virtevent.EVENT_LIFECYCLE_PAUSED,
        "shutdown": virtevent.EVENT_LIFECYCLE_STOPPED,
        "crashed": virtevent.EVENT_LIFECYCLE_STOPPED,
    }
    return events.get(now)


class Watch:
    """What was last told of each server, and which containers are to be looked at when.

    It does no I/O and knows no clock but the one that it is given.
    """

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._due: dict[str, float] = {}

    def hear(self, event: LifecycleEvent, now: float, hold: float) -> None:
        """Take in an event."""
        if event.action == _GONE:
            self._due.pop(event.name, None)
        elif event.action not in _OF_NO_INTEREST:
            self._due[event.name] = now + (hold if event.action == _RESTARTABLE else 0)

    def survey(self, states: list[InstanceState], now: float, hold: float) -> None:
        """Take in all containers: those that changed are looked at again after ``hold``."""
        seen = {state.uuid: state for state in states if state.uuid and _tells(state)}
        self._told = {uuid: power for uuid, power in self._told.items() if uuid in seen}
        for uuid, state in seen.items():
            power = instance_translator.power(state.status)
            if power != self._told.setdefault(uuid, power):
                self._due.setdefault(state.name, now + hold)

    def due(self, now: float) -> list[str]:
        """Name the containers whose time has come."""
        return [name for name, when in self._due.items() if when <= now]

    def patience(self, now: float, most: float) -> float:
        """Say for how many seconds there is nothing to do."""
        return max(0.0, min([most, *(when - now for when in self._due.values())]))

    def forget(self, name: str) -> None:
        """Strike out a container that is gone."""
        self._due.pop(name, None)

    def look(self, state: InstanceState, now: float) -> int | None:
        """Take in one container and return what Nova is to be told of its server."""
        self._due.pop(state.name, None)
        if not state.uuid or not _tells(state):
            return None
        power = instance_translator.power(state.status)
        if power == "pending":
            self._due[state.name] = now + _LOOK_AGAIN
            return None
        before = self._told.get(state.uuid, "")
        self._told[state.uuid] = power
        return transition(before, power)


def _tells(state: InstanceState) -> bool:
    """Whether a container's state is its server's: not that of a rescued server's own one."""
    return state.role != instance_translator.RESCUED_ROLE


class Events:
    """Listens to LXD in a thread of its own, for as long as Nova wants to know."""

    def __init__(self, session: Session, emit: Callable[[Any], None]) -> None:
        self._session = session
        self._emit = emit
        self._watch = Watch()
        self._hold = HOLD
        self._stopping = threading.Event()
        self._stream: EventStream | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen from now on; harmless when it does."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="lxd-events", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        if stream := self._stream:
            stream.abort()
        if thread:
            thread.join(_PATIENCE)

    def _run(self) -> None:
        pause = _RETRY[0]
        while not self._stopping.is_set():
            try:
                with self._session.events() as stream:
                    self._stream = stream
                    pause = _RETRY[0]
                    self._listen(stream)
            except exception.LXDDriverError as error:
                if not self._stopping.is_set():
                    LOG.warning("LXD's events are not heard for the moment: %s", error)
            finally:
                self._stream = None
            self._stopping.wait(pause)
            pause = min(2 * pause, _RETRY[1])

    def _listen(self, stream: EventStream) -> None:
        """Hear events and look at containers until the stream ends."""
        surveyed = -_ROUND
        while not self._stopping.is_set():
            now = time.monotonic()
            if now - surveyed >= _ROUND:
                self._watch.survey(self._session.states(), now, self._hold)
                surveyed = now
            for name in self._watch.due(now):
                self._look(name)
            now = time.monotonic()
            event = stream.next(self._watch.patience(now, surveyed + _ROUND - now))
            if event:
                self._session.forget(event.name)
                self._watch.hear(event, time.monotonic(), self._hold)

    def _look(self, name: str) -> None:
        begun = time.monotonic()
        try:
            state = self._session.state(name)
        except exception.NotFound:
            self._watch.forget(name)
            return
        now = time.monotonic()
        self._hold = HOLD + _SLOWNESS * (now - begun)
        change = self._watch.look(state, now)
        if change is not None:
            LOG.info("LXD says that %s is %s", name, state.status.lower())
            # Nova's handler asks LXD and may stop the server: not in the thread that listens.
            event = virtevent.LifecycleEvent(state.uuid, change)
            thread_pool_factory.spawn(self._emit, event)
