"""What one request told of all instances, for as long as nothing is done to them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from nova_lxd.virt.model import InstanceState

LASTS = 15.0
"""Seconds for which an answer counts: what LXD has no event for is not heard of sooner either."""


class Survey:
    """The answer to one request, and which instances were changed since that was sent.

    Who changes them must know the survey before it is sent.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._states: dict[str, InstanceState] = {}
        self._changed: set[str] = set()

    def fill(self, states: Iterable[InstanceState]) -> None:
        """Take in the answer."""
        self._states = {state.name: state for state in states}

    def forget(self, name: str) -> None:
        """Note that an instance was changed, or may have been."""
        self._changed.add(name)

    def find(self, name: str) -> InstanceState | None:
        """Return what was told of an instance; None if it is not known any more, or not yet."""
        if name in self._changed or time.monotonic() - self._begun > LASTS:
            return None
        return self._states.get(name)
