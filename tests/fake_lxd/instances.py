"""Instances: listing, changing, deleting."""

from __future__ import annotations

import uuid
from typing import Any

from .answers import Answer, Refusal, empty, sync
from .idmap import next_idmap
from .operations import Operation
from .request import Request
from .state import STATUS_CODES, Devices, Instance, Profile, Project, State, suffix
from .validation import check_config, check_devices

_IDMAP = ("idmap.base", "idmap.isolated", "idmap.size")


def list_instances(state: State, request: Request) -> Answer:
    """Answer ``GET /1.0/instances``; an unknown project has none."""
    everywhere = request.query.get("all-projects") == "true"
    if everywhere and "project" in request.query:
        raise Refusal(400, "Cannot specify a project when requesting all projects")
    found = [
        instance
        for (project, _), instance in sorted(state.instances.items())
        if everywhere or project == request.project
    ]
    if request.recursion:
        return sync([render(state, instance) for instance in found])
    return sync([f"/1.0/instances/{item.name}{suffix(item.project)}" for item in found])


def show_instance(state: State, request: Request, name: str) -> Answer:
    """Answer ``GET /1.0/instances/NAME``."""
    instance = find(state, request, name)
    return sync(render(state, instance), etag=instance.covered())


def fill_nics(state: State, instance: Instance) -> None:
    """Choose the names and addresses that the NIC devices leave open."""
    taken = 0
    for name, device in sorted(expand(state, instance)[1].items()):
        if device["type"] != "nic":
            continue
        if "name" not in device:
            instance.config.setdefault(f"volatile.{name}.name", f"eth{taken}")
        if "hwaddr" not in device and device.get("nictype") != "physical":
            address = uuid.uuid4().hex
            mac = f"00:16:3e:{address[:2]}:{address[2:4]}:{address[4:6]}"
            instance.config.setdefault(f"volatile.{name}.hwaddr", mac)
        taken += 1


def delete_instance(state: State, request: Request, name: str) -> Answer:
    """Answer ``DELETE /1.0/instances/NAME``; refused at once while it runs."""
    instance = find(state, request, name)
    if instance.status != "Stopped":
        raise Refusal(400, "Instance is running")

    def task(operation: Operation) -> None:
        claim(state, instance, "delete")
        try:
            operation.work(state.seconds.get("delete", 0))
            if instance.published:
                raise Refusal(400, "Cannot remove an instance volume that has snapshots")
            with state.lock:
                state.projects[instance.project].instances.pop(name, None)
        finally:
            instance.busy = ""

    return state.operations.start(request, "Deleting instance", resources(name), task)


def replace_instance(state: State, request: Request, name: str) -> Answer:
    """Answer ``PUT /1.0/instances/NAME``: in the background; volatile id maps must stay."""
    instance = find(state, request, name)
    request.check_etag(instance.covered())
    body = request.json()
    if snapshot := body.get("restore"):
        from .snapshots import restore

        return restore(state, request, instance, snapshot)

    def task(operation: Operation) -> None:
        operation.work()
        with state.lock:
            config = body.get("config") or {}
            if any(key not in config for key in instance.config if "volatile.idmap" in key):
                raise Refusal(400, "Volatile idmap keys can't be deleted by the user")
            _apply(state, instance, {**body, "config": config}, 400)

    return state.operations.start(request, "Updating instance", resources(name), task)


def patch_instance(state: State, request: Request, name: str) -> Answer:
    """Answer ``PATCH /1.0/instances/NAME``: at once; an empty value removes a key."""
    instance = find(state, request, name)
    request.check_etag(instance.covered())
    body = request.json()
    config = instance.config | (body.get("config") or {})
    merged = {
        "config": {key: value for key, value in config.items() if value},
        "devices": instance.devices | (body.get("devices") or {}),
        "profiles": body.get("profiles", instance.profiles),
        "description": body.get("description", instance.description),
    }
    _apply(state, instance, merged, 500)
    return empty()


def _apply(state: State, instance: Instance, body: dict[str, Any], status: int) -> None:
    claim(state, instance, "update", status)
    instance.busy = ""
    project = state.projects[instance.project]
    profiles = body.get("profiles")
    profiles = instance.profiles if profiles is None else profiles
    if set(profiles) - set(profiles_of(state, project)):
        raise Refusal(404, "Profile not found")
    check_config(body["config"], status, "Invalid config: ")
    check_devices(body.get("devices") or {}, status, "Invalid devices: ")
    devices = body.get("devices") or {}
    added = {name: value for name, value in devices.items() if instance.devices.get(name) != value}
    check_macs(state, instance, added, "add")
    before = _idmap_keys(state, instance)
    instance.config = body["config"]
    instance.devices = devices
    instance.profiles = profiles
    instance.description = body.get("description", "")
    if _idmap_keys(state, instance) != before:
        instance.config = instance.config | next_idmap(state, expand(state, instance)[0])
    fill_nics(state, instance)


def check_macs(state: State, instance: Instance, devices: Devices, action: str) -> None:
    """Refuse an address that any other instance has on the same bridge, even a stopped one."""
    others = [other for other in state.instances.values() if other is not instance]
    taken = {nic for other in others for nic in _addresses(expand(state, other)[1]).values()}
    for name, nic in _addresses(devices).items():
        if nic in taken:
            text = f'Failed {action} validation for device "{name}"'
            raise Refusal(400, f'{text}: MAC address "{nic[1]}" already defined on another NIC')


def _addresses(devices: Devices) -> dict[str, tuple[str, str]]:
    """Return bridge and MAC address by device, of the bridged NICs that name both."""
    return {
        name: (device["parent"], device["hwaddr"])
        for name, device in devices.items()
        if device.get("nictype") == "bridged" and "parent" in device and "hwaddr" in device
    }


def _idmap_keys(state: State, instance: Instance) -> list[str | None]:
    config = expand(state, instance)[0]
    return [config.get(f"security.{key}") for key in ("privileged", *_IDMAP)]


def claim(state: State, instance: Instance, action: str, status: int = 400) -> None:
    """Take the instance for an operation; refused while another one holds it."""
    with state.lock:
        if instance.busy:
            text = f'Instance is busy running a "{instance.busy}" operation'
            raise Refusal(status, f"Failed to create instance {action} operation: {text}")
        instance.busy = action


def profiles_of(state: State, project: Project) -> dict[str, Profile]:
    """Return the profiles that the project's instances may name."""
    return (project if project.has("profiles") else state.projects["default"]).profiles


def find(state: State, request: Request, name: str) -> Instance:
    """Return the instance that a request names."""
    project = state.projects.get(request.project)
    if project is None or name not in project.instances:
        raise Refusal(404, "Instance not found")
    return project.instances[name]


def resources(name: str) -> dict[str, list[str]]:
    """Return what an operation says it works on."""
    return {"containers": [f"/1.0/containers/{name}"], "instances": [f"/1.0/instances/{name}"]}


def expand(state: State, instance: Instance) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return configuration and devices with those of the profiles below them."""
    config: dict[str, str] = {}
    devices: dict[str, dict[str, str]] = {}
    for name in instance.profiles:
        profile = profiles_of(state, state.projects[instance.project])[name]
        config |= profile.config
        devices |= profile.devices
    return config | instance.config, devices | instance.devices


def render(state: State, instance: Instance) -> dict[str, Any]:
    """Word an instance as LXD does."""
    config, devices = expand(state, instance)
    return {
        "architecture": instance.architecture,
        "config": instance.config,
        "devices": instance.devices,
        "ephemeral": instance.ephemeral,
        "profiles": instance.profiles,
        "stateful": False,
        "description": instance.description,
        "created_at": instance.created_at,
        "expanded_config": config,
        "expanded_devices": devices,
        "name": instance.name,
        "status": instance.status,
        "status_code": STATUS_CODES[instance.status],
        "last_used_at": instance.last_used_at,
        "location": "none",
        "type": "container",
        "project": instance.project,
    }
