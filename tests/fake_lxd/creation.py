"""How an instance comes into being."""

from __future__ import annotations

import re
import uuid
from typing import Any

from . import images
from .answers import Answer, Refusal
from .clock import now
from .idmap import next_idmap
from .instances import expand, fill_nics, profiles_of, resources
from .operations import Operation
from .request import Request
from .state import Instance, Project, State
from .upload import unpacked_size
from .validation import check_config, check_devices

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def create_instance(state: State, request: Request) -> Answer:
    """Answer ``POST /1.0/instances`` from an image or, with source ``none``, from nothing."""
    project = state.project(request.project, "Failed loading project: ")
    body = request.json()
    name = body.get("name") or f"fake-{uuid.uuid4().hex[:8]}"
    _check_name(name)
    profiles = ["default"] if body.get("profiles") is None else body["profiles"]
    for profile in profiles:
        if profile not in profiles_of(state, project):
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
    image.last_used_at = now()
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


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([A-Za-z]*)", text)
    return int(match[1]) * _UNITS[match[2]] if match else 0
