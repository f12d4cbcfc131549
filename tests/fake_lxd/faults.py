"""Faults on demand, and the record of every call that lets a test place them."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Call(NamedTuple):
    """One request: method and path, without the query."""

    method: str
    path: str


class Fault(enum.Enum):
    """What goes wrong with a call.

    Those that name a status, and the dropped connection, act before anything is carried out.
    """

    DROPPED = "the connection is closed before anything is carried out"
    DROPPED_AFTER = "the request is carried out, then the connection is closed"
    HTTP_404 = 404
    HTTP_409 = 409
    HTTP_412 = 412
    HTTP_500 = 500
    HTTP_503 = 503
    OPERATION_FAILURE = "the operation begins and fails; another request gets a 500"
    NEVER_ENDS = "the operation begins and ends after the fault; another request is not answered"
    SLOW = "the answer is late"
    BROKEN_JSON = "carried out, but the answer breaks off in the middle"
    DOWN = "the daemon dies before the request and stays away until the fault is over"
    RESTART = "the daemon dies before the request and comes back by itself"


Selector = int | Callable[[str, str], bool]
"""A call's number, counted from 0, or a test of its method and path."""


@dataclass
class Rule:
    """One planned fault."""

    when: Selector
    kind: Fault
    text: str
    seconds: float
    times: int
    over: threading.Event = field(default_factory=threading.Event)

    def matches(self, index: int, call: Call) -> bool:
        """Whether it is this call's turn."""
        if self.times <= 0:
            return False
        return self.when == index if isinstance(self.when, int) else self.when(*call)


class Faults:
    """Records calls and hands out the faults planned for them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.hits: list[Call] = []
        """The calls that a fault struck."""
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._recover: Callable[[], None] = lambda: None

    def fail(
        self,
        when: Selector,
        kind: Fault,
        *,
        text: str = "injected fault",
        seconds: float = 0.2,
        times: int = 1,
    ) -> None:
        """Plan a fault.

        :param when: the number of a call since the last ``forget_calls``, or a predicate
        :param text: LXD's words in the error
        :param seconds: how late a slow answer is, how long a restart takes
        :param times: how many matching calls it strikes
        """
        with self._lock:
            self._rules.append(Rule(when, kind, text, seconds, times))

    def clear(self) -> None:
        """End every fault: hanging operations go on, a daemon that is down comes back."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            rule.over.set()
        self._recover()

    def forget_calls(self) -> None:
        """Count calls from 0 again."""
        with self._lock:
            self.calls.clear()
            self.hits.clear()

    def on_clear(self, recover: Callable[[], None]) -> None:
        """Say what brings the daemon back."""
        self._recover = recover

    def take(self, call: Call) -> Rule | None:
        """Record a call and return the fault that strikes it."""
        with self._lock:
            index = len(self.calls)
            self.calls.append(call)
            for rule in self._rules:
                if rule.matches(index, call):
                    rule.times -= 1
                    self.hits.append(call)
                    return rule
        return None
