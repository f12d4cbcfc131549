"""Snapshots: of what the fake has of an instance, which is no root disk."""

from __future__ import annotations

from .answers import Answer, Refusal, sync
from .instances import claim, find, resources
from .operations import Operation
from .request import Request
from .state import Instance, State, suffix


def list_snapshots(state: State, request: Request, name: str) -> Answer:
    """Answer ``GET /1.0/instances/NAME/snapshots``."""
    instance = find(state, request, name)
    return sync([{"name": snapshot} for snapshot in instance.snapshots])


def list_volumes(state: State, request: Request, pool: str) -> Answer:
    """Answer ``GET /1.0/storage-pools/NAME/volumes``: root disks, and after each its snapshots."""
    base = f"/1.0/storage-pools/{pool}/volumes/container"
    urls = []
    for (project, name), instance in sorted(state.instances.items()):
        if project == request.project:
            urls.append(f"{base}/{name}")
            urls += [f"{base}/{name}/snapshots/{snapshot}" for snapshot in instance.snapshots]
    return sync([f"{url}{suffix(request.project)}" for url in urls])


def create_snapshot(state: State, request: Request, name: str) -> Answer:
    """Answer ``POST /1.0/instances/NAME/snapshots``."""
    instance = find(state, request, name)
    snapshot = request.json()["name"]

    def task(operation: Operation) -> None:
        operation.work()
        with state.lock:
            if snapshot in instance.snapshots:
                raise Refusal(400, f'Snapshot "{name}/{snapshot}" already exists')
            kept = (dict(instance.config), dict(instance.devices))
            instance.snapshots[snapshot] = kept

    return state.operations.start(request, "Snapshotting instance", resources(name), task)


def delete_snapshot(state: State, request: Request, name: str, snapshot: str) -> Answer:
    """Answer ``DELETE /1.0/instances/NAME/snapshots/SNAPSHOT``."""
    instance = find(state, request, name)
    if snapshot not in instance.snapshots:
        raise Refusal(404, "Instance snapshot not found")

    def task(operation: Operation) -> None:
        operation.work()
        with state.lock:
            instance.snapshots.pop(snapshot, None)

    return state.operations.start(request, "Deleting snapshot", resources(name), task)


def restore(state: State, request: Request, instance: Instance, snapshot: str) -> Answer:
    """Answer ``PUT /1.0/instances/NAME`` that names a snapshot to restore."""

    def task(operation: Operation) -> None:
        if snapshot not in instance.snapshots:
            raise Refusal(400, "Instance snapshot not found")
        claim(state, instance, "restore")
        try:
            operation.work()
            with state.lock:
                # LXD 5.0.2 keeps no profiles in a snapshot (measured).
                config, devices = instance.snapshots[snapshot]
                instance.config, instance.devices = dict(config), dict(devices)
        finally:
            instance.busy = ""

    return state.operations.start(request, "Restoring snapshot", resources(instance.name), task)
