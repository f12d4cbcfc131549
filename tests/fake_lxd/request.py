"""One request as the handlers see it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from .answers import Refusal, digest
from .faults import Rule


@dataclass(frozen=True)
class Request:
    """A parsed HTTP request; ``body`` is a stream that ends where the request ends."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: BinaryIO
    fault: Rule | None = None

    @property
    def project(self) -> str:
        """LXD project the request names."""
        return self.query.get("project", "default")

    @property
    def recursion(self) -> int:
        """How much detail a listing shall give."""
        return int(self.query.get("recursion", "0"))

    def json(self) -> dict[str, Any]:
        """Read the body; LXD refuses values of configuration keys that are not strings."""
        try:
            body = json.loads(self.body.read() or b"")
        except ValueError:
            raise Refusal(400, "unexpected EOF") from None
        for section in [body.get("config"), *(body.get("devices") or {}).values()]:
            for value in (section or {}).values():
                if not isinstance(value, str):
                    name = {int: "number", float: "number", bool: "bool"}.get(type(value), "object")
                    raise Refusal(
                        400, f"json: cannot unmarshal {name} into Go value of type string"
                    )
        return dict(body)

    def check_etag(self, covered: Any) -> None:
        """Refuse with 412 when the client's ``If-Match`` is out of date."""
        sent = self.headers.get("If-Match", "").strip('"')
        if sent and sent != digest(covered):
            raise Refusal(412, f"ETag doesn't match: {digest(covered)} vs {sent}")
