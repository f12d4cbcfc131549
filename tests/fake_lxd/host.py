"""The server itself, its projects and storage pools."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .answers import Answer, Refusal, created, empty, sync
from .request import Request
from .state import Pool, Profile, Project, State, suffix

_RESOURCES = Path(__file__).with_name("resources.json")


def show_root(state: State, request: Request) -> Answer:
    """Answer ``GET /``."""
    return sync(["/1.0"])


def show_server(state: State, request: Request) -> Answer:
    """Answer ``GET /1.0``."""
    environment = {**state.server["environment"], "project": request.project}
    return sync({**state.server, "environment": environment}, etag=state.server["config"])


def show_resources(state: State, request: Request) -> Answer:
    """Answer ``GET /1.0/resources``."""
    return sync(json.loads(_RESOURCES.read_text()))


def list_projects(state: State, request: Request) -> Answer:
    """Answer ``GET /1.0/projects``."""
    if request.recursion:
        return sync([_render_project(project) for project in state.projects.values()])
    return sync([f"/1.0/projects/{name}" for name in state.projects])


def create_project(state: State, request: Request) -> Answer:
    """Answer ``POST /1.0/projects``."""
    body = request.json()
    name = body.get("name", "")
    if not name:
        raise Refusal(400, "No name provided")
    for character, word in (("/", "slashes"), (" ", "spaces"), ("_", "underscores")):
        if character in name:
            raise Refusal(400, f"Project names may not contain {word}")
    if name in state.projects:
        raise Refusal(
            409,
            f'Failed creating project "{name}": Failed adding database record: '
            'This "projects" entry already exists',
        )
    default = dict.fromkeys(("features.images", "features.profiles"), "true")
    config = {**default, "features.storage.volumes": "true", **body.get("config", {})}
    project = Project(name, config, body.get("description", ""))
    if project.has("profiles"):
        text = f"Default LXD profile for project {name}"
        project.profiles["default"] = Profile("default", description=text)
    state.projects[name] = project
    return created(f"/1.0/projects/{name}")


def show_project(state: State, request: Request, name: str) -> Answer:
    """Answer ``GET /1.0/projects/NAME``."""
    project = state.project(name)
    return sync(_render_project(project), etag=[project.config, project.description])


def delete_project(state: State, request: Request, name: str) -> Answer:
    """Answer ``DELETE /1.0/projects/NAME``."""
    if name == "default":
        raise Refusal(403, "The 'default' project cannot be deleted")
    project = state.project(name, f'Fetch project "{name}": ')
    if project.instances or project.images or set(project.profiles) - {"default"}:
        raise Refusal(500, "Only empty projects can be removed")
    del state.projects[name]
    return empty()


def _render_project(project: Project) -> dict[str, Any]:
    kinds: dict[str, Iterable[str]] = {
        "images": project.images,
        "instances": project.instances,
        "profiles": project.profiles,
    }
    used = [
        f"/1.0/{kind}/{name}{suffix(project.name)}"
        for kind, named in kinds.items()
        for name in named
    ]
    return {
        "config": project.config,
        "description": project.description,
        "name": project.name,
        "used_by": used,
    }


def list_pools(state: State, request: Request) -> Answer:
    """Answer ``GET /1.0/storage-pools``."""
    if request.recursion:
        return sync([_render_pool(state, pool) for pool in state.pools.values()])
    return sync([f"/1.0/storage-pools/{name}" for name in state.pools])


def create_pool(state: State, request: Request) -> Answer:
    """Answer ``POST /1.0/storage-pools``."""
    body = request.json()
    name = body["name"]
    if name in state.pools:
        raise Refusal(409, "The storage pool already exists: The record already exists")
    state.pools[name] = Pool(name, body["driver"], body.get("config", {}))
    return created(f"/1.0/storage-pools/{name}")


def show_pool(state: State, request: Request, name: str) -> Answer:
    """Answer ``GET /1.0/storage-pools/NAME``."""
    return sync(_render_pool(state, _pool(state, name, 404)))


def show_pool_space(state: State, request: Request, name: str) -> Answer:
    """Answer ``GET /1.0/storage-pools/NAME/resources``; 5.0.2 says 500 for an unknown pool."""
    pool = _pool(state, name, 500)
    space = {"used": pool.used, "total": pool.total}
    return sync({"space": space, "inodes": {"used": 0, "total": 0}})


def delete_pool(state: State, request: Request, name: str) -> Answer:
    """Answer ``DELETE /1.0/storage-pools/NAME``."""
    if _users(state, _pool(state, name, 404)):
        raise Refusal(400, "The storage pool is currently in use")
    del state.pools[name]
    return empty()


def _pool(state: State, name: str, status: int) -> Pool:
    if name not in state.pools:
        raise Refusal(status, "Storage pool not found")
    return state.pools[name]


def _render_pool(state: State, pool: Pool) -> dict[str, Any]:
    return {
        "config": pool.config,
        "description": "",
        "name": pool.name,
        "driver": pool.driver,
        "used_by": _users(state, pool) or None,
        "status": "Created",
        "locations": ["none"],
    }


def _users(state: State, pool: Pool) -> list[str]:
    found = []
    for project in state.projects.values():
        for kind, named in (("instances", project.instances), ("profiles", project.profiles)):
            for name, item in named.items():
                if any(device.get("pool") == pool.name for device in item.devices.values()):
                    found.append(f"/1.0/{kind}/{name}{suffix(project.name)}")
    return found
