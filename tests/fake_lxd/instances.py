"""Instances: listing, creating, changing, deleting."""

from __future__ import annotations

import re
import uuid
from typing import Any

from . import images
from .answers import Answer, Refusal, empty, sync
from .clock import now
from .idmap import next_idmap
from .operations import Operation
from .request import Request
from .state import STATUS_CODES, Instance, Project, State, suffix
from .upload import unpacked_size
from .validation import check_config, check_devices

_IDMAP = ("idmap.base", "idmap.isolated", "idmap.size")
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


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


def create_instance(state: State, request: Request) -> Answer:
    """Answer ``POST /1.0/instances`` from an image or, with source ``none``, from nothing."""
    project = state.project(request.project, "Failed loading project: ")
    body = request.json()
    name = body.get("name") or f"fake-{uuid.uuid4().hex[:8]}"
    _check_name(name)
    profiles = ["default"] if body.get("profiles") is None else body["profiles"]
    for profile in profiles:
        if profile not in _profiles(state, project):
            raise Refusal(500, f'Requested profile "{profile}" doesn\'t exist')
    fingerprint = _source(state, project, body.get("source", {}))
    config, devices = body.get("config") or {}, body.get("devices") or {}
    instance = Instance(name, project.name, profiles, config, devices, deaf=state.deaf_guests)

    def task(operation: Operation) -> None:
        _create(state, project, instance, fingerprint, operation)

    return state.operations.start(request, "Creating instance", resources(name), task)


def _check_name(name: str) -> None:
    faults = (
        (len(name) > 63, "Name must be 1-63 characters long"),
        (name[0] == "-", 'Name must not start with "-" character'),
        (name[0].isdigit(), "Name must not start with a number"),
        (name[-1] == "-", 'Name must not end with "-" character'),
        (
            not re.fullmatch("[A-Za-z0-9-]+", name),
            "Name can only contain alphanumeric and hyphen characters",
        ),
    )
    for wrong, text in faults:
        if wrong:
            raise Refusal(400, f"Invalid instance name: {text}")


def _profiles(state: State, project: Project) -> dict[str, Any]:
    return (project if project.has("profiles") else state.projects["default"]).profiles


def _source(state: State, project: Project, source: dict[str, Any]) -> str | None:
    """Return the image's fingerprint; None for an instance without an image."""
    kind = source.get("type", "")
    if kind == "none":
        return None
    if kind != "image":
        raise Refusal(400, f"Unknown source type {kind}")
    if source.get("alias"):
        return images.find_alias(_image_project(state, project), source["alias"]).target
    if not source.get("fingerprint"):
        text = "Must specify one of alias, fingerprint or properties for init from image"
        raise Refusal(500, text)
    return str(source["fingerprint"])


def _image_project(state: State, project: Project) -> Project:
    return project if project.has("images") else state.projects["default"]


def _create(
    state: State,
    project: Project,
    instance: Instance,
    fingerprint: str | None,
    operation: Operation,
) -> None:
    with state.lock:
        image = _find_source(state, project, fingerprint)
        _add_record(state, project, instance)
        instance.config = {
            **{f"image.{key}": value for key, value in (image.properties if image else {}).items()},
            **instance.config,
            **({"volatile.base_image": image.fingerprint} if image else {}),
        }
        instance.busy = "create"
    try:
        operation.work(state.seconds.get("create", 0))
        if image:
            _unpack(state, instance, image)
    except Refusal:
        with state.lock:
            del project.instances[instance.name]
        raise
    finally:
        instance.busy = ""


def _find_source(state: State, project: Project, fingerprint: str | None) -> Any:
    if fingerprint is None:
        return None
    try:
        return images.find_image(_image_project(state, project), fingerprint)
    except Refusal:
        raise Refusal(400, "Image not provided for instance creation") from None


def _add_record(state: State, project: Project, instance: Instance) -> None:
    prefix = "Failed creating instance record: "
    check_config(instance.config, 400, prefix)
    if instance.name in project.instances:
        text = 'Add instance info to the database: This "instances" entry already exists'
        raise Refusal(400, prefix + text)
    prefix += "Failed initialising instance: "
    expanded = expand(state, instance)[1]
    check_devices(expanded, 400, prefix + "Invalid devices: ")
    root = next((item for item in expanded.values() if item.get("path") == "/"), None)
    if root is None:
        raise Refusal(400, prefix + "Failed getting root disk: No root device could be found")
    if root.get("pool") not in state.pools:
        raise Refusal(400, prefix + "Failed loading storage pool: Storage pool not found")
    instance.config = {
        **instance.config,
        "volatile.apply_template": "create",
        "volatile.cloud-init.instance-id": str(uuid.uuid4()),
        "volatile.last_state.idmap": "[]",
        "volatile.uuid": str(uuid.uuid4()),
        **next_idmap(state, expand(state, instance)[0]),
    }
    fill_nics(state, instance)
    project.instances[instance.name] = instance


def _unpack(state: State, instance: Instance, image: Any) -> None:
    prefix = "Failed creating instance from image: "
    rootfs = state.folder / "images" / f"{image.fingerprint}.rootfs"
    if not rootfs.exists():
        return
    try:
        needed = unpacked_size(rootfs)
    except Refusal as error:
        raise Refusal(400, prefix + error.text) from None
    root = next(item for item in expand(state, instance)[1].values() if item.get("path") == "/")
    enforced = state.pools[root["pool"]].driver != "dir" and root.get("size")
    if enforced and needed > _size(root["size"]):
        text = "ERROR: unable to limit requested quota group: Disk quota exceeded"
        raise Refusal(400, f"{prefix}Failed to run: btrfs qgroup limit: exit status 1 ({text})")
    image.last_used_at = now()


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([A-Za-z]*)", text)
    return int(match[1]) * _UNITS[match[2]] if match else 0


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
    if set(profiles) - set(_profiles(state, project)):
        raise Refusal(404, "Profile not found")
    check_config(body["config"], status, "Invalid config: ")
    check_devices(body.get("devices") or {}, status, "Invalid devices: ")
    before = _idmap_keys(state, instance)
    instance.config = body["config"]
    instance.devices = body.get("devices") or {}
    instance.profiles = profiles
    instance.description = body.get("description", "")
    if _idmap_keys(state, instance) != before:
        instance.config = instance.config | next_idmap(state, expand(state, instance)[0])
    fill_nics(state, instance)


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
        profile = _profiles(state, state.projects[instance.project])[name]
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
