"""What a handler may answer, as LXD words it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any


class Refusal(Exception):
    """An error answer, or the end of an operation that failed.

    :ivar status: HTTP status; operations always end with 400
    :ivar text: LXD's own words
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def sync(metadata: Any, status: int = 200, location: str | None = None, etag: Any = None) -> Answer:
    """Wrap an immediate result; ``etag`` is the part of the object its ETag covers."""
    headers = {}
    if location:
        headers["Location"] = location
    if etag is not None:
        headers["ETag"] = f'"{digest(etag)}"'
    return Answer(status, _encode("sync", metadata=metadata), headers=headers)


def empty() -> Answer:
    """Say that an update or a deletion was carried out."""
    return sync({})


def created(location: str) -> Answer:
    """Say that an object was made."""
    return sync(None, status=201, location=location)


def background(operation: dict[str, Any]) -> Answer:
    """Announce an operation that goes on in the background."""
    url = f"/1.0/operations/{operation['id']}"
    body = _encode("async", metadata=operation, operation=url)
    return Answer(202, body, headers={"Location": url})


def refusal(error: Refusal) -> Answer:
    """Word an error."""
    body = _encode("error", error=error.text, error_code=error.status)
    return Answer(error.status, body)


def digest(covered: Any) -> str:
    """Compute an ETag."""
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


_STATUS = {"sync": ("Success", 200), "async": ("Operation created", 100), "error": ("", 0)}


def _encode(
    kind: str, *, metadata: Any = None, operation: str = "", error: str = "", error_code: int = 0
) -> bytes:
    status, code = _STATUS[kind]
    body = {
        "type": kind,
        "status": status,
        "status_code": code,
        "operation": operation,
        "error_code": error_code,
        "error": error,
        "metadata": metadata,
    }
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"
