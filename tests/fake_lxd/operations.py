"""Background operations: begun by a request, carried out by a thread, forgotten soon after."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from .answers import Answer, Refusal, background, empty, sync
from .clock import now
from .faults import Fault, Rule
from .request import Request

Task = Callable[["Operation"], None]


class Abandoned(Exception):
    """The daemon died under the operation."""


class Operation:
    """One background operation."""

    def __init__(
        self, description: str, resources: dict[str, list[str]], fault: Rule | None
    ) -> None:
        self.id = str(uuid.uuid4())
        self.description = description
        self.resources = resources
        self.metadata: dict[str, Any] | None = None
        self.created_at = self.updated_at = now()
        self.status, self.status_code, self.err = "Running", 103, ""
        self.done = threading.Event()
        self.abandoned = False
        self.ended_at = 0.0
        self._fault = fault

    def work(self, seconds: float = 0) -> None:
        """Spend the operation's long part; this is where faults strike.

        :raises Refusal: the operation was made to fail
        :raises Abandoned: the daemon died meanwhile
        """
        fault = self._fault
        if fault and fault.kind is Fault.OPERATION_FAILURE:
            raise Refusal(400, fault.text)
        if fault and fault.kind is Fault.NEVER_ENDS:
            fault.over.wait()
        if seconds:
            time.sleep(seconds)
        if self.abandoned:
            raise Abandoned

    def run(self, task: Task) -> None:
        """Carry out and note how it ended."""
        try:
            task(self)
        except Refusal as error:
            self._end("Failure", 400, error.text)
        except Abandoned:
            self._end("Cancelled", 401, "")
        else:
            self._end("Success", 200, "")

    def _end(self, status: str, code: int, err: str) -> None:
        self.status, self.status_code, self.err = status, code, err
        self.updated_at, self.ended_at = now(), time.monotonic()
        self.done.set()

    def render(self) -> dict[str, Any]:
        """Word it as LXD does."""
        return {
            "id": self.id,
            "class": "task",
            "description": self.description,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "status": self.status,
            "status_code": self.status_code,
            "resources": self.resources or None,
            "metadata": self.metadata,
            "may_cancel": False,
            "err": self.err,
            "location": "none",
        }


class Operations:
    """All operations the daemon still knows of."""

    def __init__(self, remember: float = 5.0) -> None:
        """:param remember: seconds a finished operation can still be asked for"""
        self.remember = remember
        self._known: dict[str, Operation] = {}

    def start(
        self, request: Request, description: str, resources: dict[str, list[str]], task: Task
    ) -> Answer:
        """Begin an operation and answer with what it looked like at that moment."""
        operation = Operation(description, resources, request.fault)
        first = operation.render()
        self._known[operation.id] = operation
        threading.Thread(target=operation.run, args=(task,), daemon=True).start()
        return background(first)

    def running(self) -> list[Operation]:
        """Return the operations that have not ended."""
        return [item for item in list(self._known.values()) if not item.done.is_set()]

    def abandon(self) -> None:
        """Forget everything, as a daemon that dies does."""
        for operation in self._known.values():
            operation.abandoned = True
        self._known = {}

    def find(self, identifier: str) -> Operation:
        """Return an operation that has not been forgotten."""
        operation = self._known.get(identifier)
        if operation is None or self._forgotten(operation):
            raise Refusal(404, "Operation not found")
        return operation

    def _forgotten(self, operation: Operation) -> bool:
        age = time.monotonic() - operation.ended_at
        return operation.done.is_set() and age > self.remember

    def listing(self, request: Request) -> Answer:
        """Answer ``GET /1.0/operations``: grouped by status."""
        groups: dict[str, list[Any]] = {}
        for operation in list(self._known.values()):
            url = f"/1.0/operations/{operation.id}"
            entry = operation.render() if request.recursion else url
            groups.setdefault(operation.status.lower(), []).append(entry)
        return sync(groups)

    def show(self, request: Request, identifier: str) -> Answer:
        """Answer ``GET /1.0/operations/ID``."""
        return sync(self.find(identifier).render())

    def cancel(self, request: Request, identifier: str) -> Answer:
        """Answer ``DELETE /1.0/operations/ID``: tasks cannot be cancelled."""
        if self.find(identifier).done.is_set():
            return empty()
        raise Refusal(400, "This operation can't be cancelled")

    def wait(self, request: Request, identifier: str) -> Answer:
        """Answer ``GET /1.0/operations/ID/wait``: its state after ``timeout`` whole seconds."""
        operation = self.find(identifier)
        timeout = int(request.query.get("timeout", "-1"))
        operation.done.wait(None if timeout < 0 else timeout)
        return sync(operation.render())
