"""Files in instances: those that were put there, and the folders above them."""

from __future__ import annotations

import posixpath

from .answers import Answer, Refusal, empty
from .instances import find
from .request import Request
from .state import State


def put_file(state: State, request: Request, name: str) -> Answer:
    """Answer ``POST /1.0/instances/NAME/files``; where a folder is to be, all that exists stays."""
    files, path = find(state, request, name).files, request.query["path"]
    folder = posixpath.dirname(path)
    if folder not in files:
        raise Refusal(404, "Not Found")
    if files[folder] is not None:
        raise Refusal(500, "sftp: not a directory")
    if request.headers.get("X-LXD-type") == "directory":
        files.setdefault(path, None)
        return empty()
    if path in files and files[path] is None:
        raise Refusal(500, 'sftp: "Failure" (SSH_FX_FAILURE)')
    files[path] = request.body.read()
    return empty()


def delete_file(state: State, request: Request, name: str) -> Answer:
    """Answer ``DELETE /1.0/instances/NAME/files``."""
    files, path = find(state, request, name).files, request.query["path"]
    if path not in files:
        raise Refusal(404, "Not Found")
    if any(posixpath.dirname(other) == path for other in files if other != path):
        raise Refusal(500, 'sftp: "Failure" (SSH_FX_FAILURE)')
    del files[path]
    return empty()
