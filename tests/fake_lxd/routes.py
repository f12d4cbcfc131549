"""Which handler answers which request."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib import parse

from . import creation, files, host, images, instances, power, profiles, snapshots
from .answers import Answer, Refusal, refusal
from .faults import Fault
from .request import Request
from .state import State

Handler = Callable[..., Answer]

_TABLE: dict[str, dict[str, Handler]] = {
    "/": {"GET": host.show_root},
    "/1.0": {"GET": host.show_server},
    "/1.0/resources": {"GET": host.show_resources},
    "/1.0/projects": {"GET": host.list_projects, "POST": host.create_project},
    "/1.0/projects/*": {"GET": host.show_project, "DELETE": host.delete_project},
    "/1.0/storage-pools": {"GET": host.list_pools, "POST": host.create_pool},
    "/1.0/storage-pools/*": {"GET": host.show_pool, "DELETE": host.delete_pool},
    "/1.0/storage-pools/*/resources": {"GET": host.show_pool_space},
    "/1.0/storage-pools/*/volumes": {"GET": snapshots.list_volumes},
    "/1.0/profiles": {"GET": profiles.list_profiles, "POST": profiles.create_profile},
    "/1.0/profiles/*": {
        "GET": profiles.show_profile,
        "PUT": profiles.replace_profile,
        "PATCH": profiles.patch_profile,
        "DELETE": profiles.delete_profile,
    },
    "/1.0/images": {"GET": images.list_images, "POST": images.create_image},
    "/1.0/images/aliases": {"GET": images.list_aliases, "POST": images.create_alias},
    "/1.0/images/aliases/*": {"GET": images.show_alias, "DELETE": images.delete_alias},
    "/1.0/images/*/export": {"GET": images.export_image},
    "/1.0/images/*": {
        "GET": images.show_image,
        "PUT": images.replace_image,
        "PATCH": images.patch_image,
        "DELETE": images.delete_image,
    },
    "/1.0/instances": {"GET": instances.list_instances, "POST": creation.create_instance},
    "/1.0/instances/*": {
        "GET": instances.show_instance,
        "PUT": instances.replace_instance,
        "PATCH": instances.patch_instance,
        "DELETE": instances.delete_instance,
    },
    "/1.0/instances/*/snapshots": {
        "GET": snapshots.list_snapshots,
        "POST": snapshots.create_snapshot,
    },
    "/1.0/instances/*/snapshots/*": {"DELETE": snapshots.delete_snapshot},
    "/1.0/instances/*/files": {"POST": files.put_file, "DELETE": files.delete_file},
    "/1.0/instances/*/state": {"GET": power.show_state, "PUT": power.change_state},
    "/1.0/instances/*/console": {"GET": power.show_console, "DELETE": power.clear_console},
}

_OPERATIONS: dict[str, dict[str, str]] = {
    "/1.0/operations": {"GET": "listing"},
    "/1.0/operations/*": {"GET": "show", "DELETE": "cancel"},
    "/1.0/operations/*/wait": {"GET": "wait"},
}

_BACKGROUND = {
    images.create_image,
    images.delete_image,
    creation.create_instance,
    instances.replace_instance,
    instances.delete_instance,
    power.change_state,
    snapshots.create_snapshot,
    snapshots.delete_snapshot,
}
_UNLOCKED = {images.create_image}
"""Handlers that read a long body: they take the lock themselves."""


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\*", "([^/]+)"))


_ROUTES = [(_pattern(path), methods) for path, methods in _TABLE.items()]
_OPERATION_ROUTES = [(_pattern(path), methods) for path, methods in _OPERATIONS.items()]


def answer(state: State, request: Request) -> Answer:
    """Answer a request; errors are answers too."""
    try:
        return _dispatch(state, request)
    except Refusal as error:
        return refusal(error)


def _dispatch(state: State, request: Request) -> Answer:
    for pattern, names in _OPERATION_ROUTES:
        if match := pattern.fullmatch(request.path):
            if request.method not in names:
                raise Refusal(501, "not implemented")
            handler: Handler = getattr(state.operations, names[request.method])
            return handler(request, *match.groups())
    for pattern, methods in _ROUTES:
        if match := pattern.fullmatch(request.path):
            if request.method not in methods:
                raise Refusal(501, "not implemented")
            parts = [parse.unquote(part) for part in match.groups()]
            return _call(state, request, methods[request.method], parts)
    raise Refusal(404, "not found")


def _call(state: State, request: Request, handler: Handler, parts: list[str]) -> Answer:
    fault = request.fault
    if fault and handler not in _BACKGROUND:
        if fault.kind is Fault.OPERATION_FAILURE:
            raise Refusal(500, fault.text)
        if fault.kind is Fault.NEVER_ENDS:
            fault.over.wait()
            raise Refusal(500, "context canceled")
    if handler in _UNLOCKED:
        return handler(state, request, *parts)
    with state.lock:
        return handler(state, request, *parts)
