"""A Glance, and other collections, in memory; and programs that only look like the real ones."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

from aio.api import ApiError


class FakeApi:
    """Holds things by path; PUT of an image's file makes it active."""

    def __init__(self):
        self.things = {}
        self.broken = set()  # (method, path prefix) that answer 500
        self.busy = {}  # path -> how often DELETE answers 409
        self._numbers = itertools.count(1)

    def _check(self, method, path):
        for verb, prefix in self.broken:
            if method == verb and path.startswith(prefix):
                raise ApiError(500, f"{method} {path}: 500 broken")

    def post(self, service, path, body):
        self._check("POST", path)
        ((kind, wanted),) = body.items() if service != "glance" else [(None, body)]
        made = {"id": f"id-{next(self._numbers)}", "status": "queued", **wanted}
        self.things[f"{path}/{made['id']}"] = made
        return {kind: made} if kind else made

    def request(self, method, service, path, body=None):
        self._check(method, path)
        if method == "PUT" and path.endswith("/file"):
            image = self.things[path.removesuffix("/file")]
            image["os_hash_value"] = hashlib.sha512(body.read()).hexdigest()
            image["status"] = "active"
            return {}
        assert method == "DELETE"
        if self.busy.get(path, 0):
            self.busy[path] -= 1
            raise ApiError(409, f"DELETE {path}: 409 in use")
        if path not in self.things:
            raise ApiError(404, f"DELETE {path}: 404 no such thing")
        del self.things[path]
        return {}

    def find(self, service, path, name):
        prefix = path.partition("?")[0] + "/"
        found = (thing for key, thing in self.things.items() if key.startswith(prefix))
        return next((thing for thing in found if thing["name"] == name), None)


def install(folder: Path, name: str, script: str) -> Path:
    """Put a shell script called ``name`` into ``folder``."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program
