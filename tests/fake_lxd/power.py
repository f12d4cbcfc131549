"""Power state and console."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .answers import Answer, Refusal, empty, sync
from .clock import now
from .idmap import fits
from .instances import check_macs, claim, expand, find
from .operations import Operation
from .request import Request
from .state import STATUS_CODES, Instance, State

_NOT_RUNNING = "The container isn't running"


def show_state(state: State, request: Request, name: str) -> Answer:
    """Answer ``GET /1.0/instances/NAME/state``."""
    instance = find(state, request, name)
    running = instance.status != "Stopped"
    return sync(
        {
            "status": instance.status,
            "status_code": STATUS_CODES[instance.status],
            "disk": {"root": {"usage": 16384}},
            "memory": {
                "usage": 2478080 if running else 0,
                "usage_peak": 3309568 if running else 0,
                "swap_usage": 0,
                "swap_usage_peak": 0,
            },
            "network": _network(state, instance) if running else None,
            "pid": instance.pid,
            "processes": 2 if running else 0,
            "cpu": {"usage": 9477252 if running else 0},
        }
    )


def _network(state: State, instance: Instance) -> dict[str, Any]:
    config, devices = expand(state, instance)
    kinds = ("bytes", "packets")
    counters = {f"{kind}_{way}": 0 for kind in kinds for way in ("received", "sent")}
    found = {}
    for key, device in devices.items():
        if device["type"] == "nic":
            found[device.get("name") or config[f"volatile.{key}.name"]] = {
                "addresses": [],
                "counters": counters,
                "hwaddr": device.get("hwaddr") or config.get(f"volatile.{key}.hwaddr", ""),
                "host_name": device.get("host_name", ""),
                "mtu": int(device.get("mtu", "1500")),
                "state": "up",
                "type": "broadcast",
            }
    return found


def change_state(state: State, request: Request, name: str) -> Answer:
    """Answer ``PUT /1.0/instances/NAME/state``."""
    instance = find(state, request, name)
    body = request.json()
    action = body.get("action", "")
    if action not in _ACTIONS:
        raise Refusal(400, f"Unknown action: '{action}'")
    description, carry_out = _ACTIONS[action]

    def task(operation: Operation) -> None:
        carry_out(state, instance, body, operation)

    resources = {"instances": [f"/1.0/instances/{name}"]}
    return state.operations.start(request, f"{description} instance", resources, task)


def _start(state: State, instance: Instance, body: dict[str, Any], operation: Operation) -> None:
    if instance.status != "Stopped":
        raise Refusal(400, "The instance is already running")
    claim(state, instance, "start")
    try:
        operation.work(state.seconds.get("start", 0))
        check_macs(state, instance, expand(state, instance)[1], "start")
        _check_parents(state, instance)
        _check_idmap(state, instance)
        _boot(instance)
    finally:
        if instance.busy == "start":
            instance.busy = ""


def _check_parents(state: State, instance: Instance) -> None:
    for name, device in expand(state, instance)[1].items():
        parent = device.get("parent")
        if parent and state.bridges is not None and parent not in state.bridges:
            text = f'Failed to start device "{name}": Parent device "{parent}" doesn\'t exist'
            raise Refusal(400, text)


def _check_idmap(state: State, instance: Instance) -> None:
    wanted = instance.config["volatile.idmap.next"]
    if fits(state, wanted):
        return
    instance.busy = "stop"
    operation = f"lxd forkstart {instance.name} {state.folder}/containers lxc.conf"
    _release_later(state, instance)
    raise Refusal(400, f"Failed to run: {operation}: exit status 1")


def _release_later(state: State, instance: Instance) -> None:
    """A start whose init could not be run leaves the instance busy for a while."""

    def release() -> None:
        instance.busy = ""

    timer = threading.Timer(state.busy_after_failed_start, release)
    timer.daemon = True
    timer.start()


def _boot(instance: Instance) -> None:
    entries = instance.config["volatile.idmap.next"]
    instance.config = {
        **instance.config,
        "volatile.idmap.current": entries,
        "volatile.last_state.idmap": entries,
        "volatile.last_state.power": "RUNNING",
    }
    instance.config.pop("volatile.apply_template", None)
    instance.last_used_at = now()
    instance.console, instance.console_log = b"fake guest: booted\r\n", b""
    instance.pid = 4242
    instance.status = "Running"


def _stop(state: State, instance: Instance, body: dict[str, Any], operation: Operation) -> None:
    _check_runs(instance)
    force = body.get("force", False)
    # A forced stop overtakes a graceful one that still waits for the guest.
    if not (force and instance.busy == "stop"):
        claim(state, instance, "stop")
    try:
        operation.work(state.seconds.get("stop", 0))
        if not force:
            _shut_down(instance, float(body.get("timeout") or 0))
        _halt(instance)
    finally:
        instance.busy = ""


def _check_runs(instance: Instance) -> None:
    if instance.status == "Stopped":
        raise Refusal(400, "The instance is already stopped")


def _shut_down(instance: Instance, timeout: float) -> None:
    """Wait for a guest that may be deaf; LXD waits ten minutes when no time is given."""
    deadline = time.monotonic() + (timeout if timeout > 0 else 600)
    while instance.deaf and instance.status != "Stopped":
        if time.monotonic() > deadline:
            text = f'Failed shutting down instance, status is "{instance.status}"'
            raise Refusal(400, f"{text}: shutting down the container failed")
        time.sleep(0.01)


def _halt(instance: Instance) -> None:
    instance.config = {**instance.config, "volatile.last_state.power": "STOPPED"}
    instance.status, instance.pid = "Stopped", 0
    _drain(instance)


def _restart(state: State, instance: Instance, body: dict[str, Any], operation: Operation) -> None:
    _check_runs(instance)
    claim(state, instance, "restart")
    try:
        operation.work(state.seconds.get("restart", 0))
        if not body.get("force", False):
            _shut_down(instance, float(body.get("timeout") or 0))
        _halt(instance)
        check_macs(state, instance, expand(state, instance)[1], "start")
        _check_parents(state, instance)
        _boot(instance)
    finally:
        instance.busy = ""


def _freeze(state: State, instance: Instance, body: dict[str, Any], operation: Operation) -> None:
    if instance.status == "Stopped":
        raise Refusal(400, _NOT_RUNNING)
    if instance.status == "Frozen":
        raise Refusal(400, "The container is already frozen")
    operation.work(state.seconds.get("freeze", 0))
    instance.status = "Frozen"


def _unfreeze(state: State, instance: Instance, body: dict[str, Any], operation: Operation) -> None:
    if instance.status == "Stopped":
        raise Refusal(400, _NOT_RUNNING)
    if instance.status == "Running":
        raise Refusal(400, "The container is already running")
    operation.work(state.seconds.get("unfreeze", 0))
    instance.status = "Running"


_Action = Callable[[State, Instance, dict[str, Any], Operation], None]
_ACTIONS: dict[str, tuple[str, _Action]] = {
    "start": ("Starting", _start),
    "stop": ("Stopping", _stop),
    "restart": ("Restarting", _restart),
    "freeze": ("Freezing", _freeze),
    "unfreeze": ("Unfreezing", _unfreeze),
}


def show_console(state: State, request: Request, name: str) -> Answer:
    """Answer ``GET /1.0/instances/NAME/console``: reading a running guest's takes it away."""
    instance = find(state, request, name)
    if instance.console_log is None:
        raise Refusal(500, f"open {_log(state, instance)}: no such file or directory")
    if instance.status == "Stopped":
        return Answer(200, instance.console_log, "application/octet-stream")
    text = _drain(instance)
    if not text:
        raise Refusal(500, "open : no such file or directory")
    return Answer(200, text, "application/octet-stream")


def clear_console(state: State, request: Request, name: str) -> Answer:
    """Answer ``DELETE /1.0/instances/NAME/console``."""
    instance = find(state, request, name)
    if instance.console_log is None:
        raise Refusal(404, f"stat {_log(state, instance)}: no such file or directory")
    instance.console = b""
    if instance.status == "Stopped":
        instance.console_log = b""
    return empty()


def _drain(instance: Instance) -> bytes:
    text, instance.console = instance.console, b""
    instance.console_log = (instance.console_log or b"") + text
    return text


def _log(state: State, instance: Instance) -> str:
    prefix = "" if instance.project == "default" else f"{instance.project}_"
    return f"{state.folder}/logs/{prefix}{instance.name}/console.log"
