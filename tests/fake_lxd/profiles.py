"""Profiles."""

from __future__ import annotations

from typing import Any

from .answers import Answer, Refusal, created, empty, sync
from .request import Request
from .state import Profile, Project, State, suffix
from .validation import check_config, check_devices


def list_profiles(state: State, request: Request) -> Answer:
    """Answer ``GET /1.0/profiles``."""
    project = _project(state, request)
    if request.recursion:
        return sync([_render(project, profile) for profile in project.profiles.values()])
    return sync([_url(project, name) for name in project.profiles])


def create_profile(state: State, request: Request) -> Answer:
    """Answer ``POST /1.0/profiles``."""
    project = _project(state, request)
    body = request.json()
    name = body.get("name", "")
    if not name:
        raise Refusal(400, "No name provided")
    if "/" in name:
        raise Refusal(400, "Profile names may not contain slashes")
    profile = _checked(name, body, 400)
    if name in project.profiles:
        text = f'Error inserting "{name}" into database: The profile already exists'
        raise Refusal(500, text)
    project.profiles[name] = profile
    return created(_url(project, name))


def show_profile(state: State, request: Request, name: str) -> Answer:
    """Answer ``GET /1.0/profiles/NAME``."""
    project = _project(state, request)
    profile = _find(project, name, "Fetch profile: ")
    return sync(_render(project, profile), etag=profile.covered())


def replace_profile(state: State, request: Request, name: str) -> Answer:
    """Answer ``PUT /1.0/profiles/NAME``."""
    project = _project(state, request)
    old = _find(project, name, f'Failed to retrieve profile "{name}": ')
    request.check_etag(old.covered())
    project.profiles[name] = _checked(name, request.json(), 500)
    return empty()


def patch_profile(state: State, request: Request, name: str) -> Answer:
    """Answer ``PATCH /1.0/profiles/NAME``: keys are added, never removed."""
    project = _project(state, request)
    old = _find(project, name, f'Failed to retrieve profile="{name}": ')
    request.check_etag(old.covered())
    body = request.json()
    merged = {
        "config": old.config | (body.get("config") or {}),
        "devices": old.devices | (body.get("devices") or {}),
        "description": body.get("description", old.description),
    }
    project.profiles[name] = _checked(name, merged, 500)
    return empty()


def delete_profile(state: State, request: Request, name: str) -> Answer:
    """Answer ``DELETE /1.0/profiles/NAME``."""
    project = _project(state, request)
    if name == "default":
        raise Refusal(403, 'The "default" profile cannot be deleted')
    _find(project, name)
    if _users(project, name):
        raise Refusal(500, "Profile is currently in use")
    del project.profiles[name]
    return empty()


def _project(state: State, request: Request) -> Project:
    prefix = f'Failed loading project "{request.project}": '
    return state.project_for("profiles", request.project, prefix)


def _find(project: Project, name: str, prefix: str = "") -> Profile:
    try:
        return project.profiles[name]
    except KeyError:
        raise Refusal(404, f"{prefix}Profile not found") from None


def _checked(name: str, body: dict[str, Any], status: int) -> Profile:
    config, devices = body.get("config") or {}, body.get("devices") or {}
    check_config(config, status)
    check_devices(devices, status)
    return Profile(name, config, devices, body.get("description", ""))


def _url(project: Project, name: str) -> str:
    return f"/1.0/profiles/{name}{suffix(project.name)}"


def _users(project: Project, name: str) -> list[str]:
    return [
        f"/1.0/instances/{instance.name}{suffix(project.name)}"
        for instance in project.instances.values()
        if name in instance.profiles
    ]


def _render(project: Project, profile: Profile) -> dict[str, Any]:
    return {
        "config": profile.config,
        "description": profile.description,
        "devices": profile.devices,
        "name": profile.name,
        "used_by": _users(project, profile.name),
    }
