"""Steps that make something, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from oslo_log import log as logging

from nova_lxd import exception

LOG = logging.getLogger(__name__)

Step = tuple[str, Callable[[], None]]
"""What is removed, in a word, and how."""


class Undo:
    """Remembers how to undo what was done; a block that fails undoes it, the latest first.

    A step is added before it is taken: one whose outcome is unknown must be undone too.
    """

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self._steps: list[Step] = []

    def add(self, what: str, action: Callable[[], None]) -> None:
        """Remember one step."""
        self._steps.append((what, action))

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            remove_all(self._instance, reversed(self._steps))


def remove_all(instance: Any, steps: Iterable[Step]) -> list[exception.LXDDriverError]:
    """Take every step, whatever happens to the others, and say which failed."""
    errors = []
    for what, action in steps:
        try:
            action()
        except exception.LXDDriverError as error:
            LOG.warning("Could not remove the %s: %s", what, error, instance=instance)
            errors.append(error)
    return errors
