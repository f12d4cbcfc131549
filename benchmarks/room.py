"""Room in the one-node cloud for hundreds of servers: lent, and taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

RATIOS = {"VCPU": 2000.0, "MEMORY_MB": 4.0, "DISK_GB": 100.0}
"""How many times over Placement may give away what the host has."""
_PLACEMENT = "1.20"
_ATTEMPTS = 10


@contextlib.contextmanager
def raised(cloud: Any, servers: int) -> Iterator[None]:
    """Let our project have this many servers, and the one host take them."""
    project = cloud.current_project_id
    amount = servers + 100
    nova = {"instances": amount, "cores": amount, "ram": 1024 * amount}
    with contextlib.ExitStack() as stack:
        lend = stack.enter_context
        lend(_quota(cloud.compute, f"/os-quota-sets/{project}", "quota_set", nova))
        lend(_quota(cloud.network, f"/quotas/{project}", "quota", {"port": amount}))
        lend(_overcommitted(cloud.placement))
        yield


@contextlib.contextmanager
def _quota(service: Any, path: str, kind: str, wanted: dict[str, int]) -> Iterator[None]:
    before = _checked(service.get(path))[kind]
    higher = {key: max(value, before[key]) for key, value in wanted.items()}
    _checked(service.put(path, json={kind: higher}))
    try:
        yield
    finally:
        _checked(service.put(path, json={kind: {key: before[key] for key in wanted}}))


@contextlib.contextmanager
def _overcommitted(placement: Any) -> Iterator[None]:
    (host,) = _get(placement, "/resource_providers")["resource_providers"]
    path = f"/resource_providers/{host['uuid']}/inventories"
    before = {name: each["allocation_ratio"] for name, each in _inventories(placement, path)}
    _set(placement, path, RATIOS.__getitem__)
    try:
        yield
    finally:
        _set(placement, path, before.__getitem__)


def _set(placement: Any, path: str, ratio: Callable[[str], float]) -> None:
    """Write the ratios; Nova does as well, so what it wrote in between is read again."""
    for _ in range(_ATTEMPTS):
        body = _get(placement, path)
        for name, each in body["inventories"].items():
            each["allocation_ratio"] = ratio(name)
        answer = placement.put(path, json=body, microversion=_PLACEMENT)
        if answer.status_code != 409:
            break
    _checked(answer)


def _inventories(placement: Any, path: str) -> Any:
    return _get(placement, path)["inventories"].items()


def _get(placement: Any, path: str) -> dict[str, Any]:
    return _checked(placement.get(path, microversion=_PLACEMENT))


def _checked(answer: Any) -> dict[str, Any]:
    answer.raise_for_status()
    return dict(answer.json())


@contextlib.contextmanager
def flavor(cloud: Any, name: str) -> Iterator[str]:
    """Lend the smallest flavor."""
    made = cloud.compute.create_flavor(name=name, ram=64, vcpus=1, disk=1)
    try:
        yield made.id
    finally:
        cloud.compute.delete_flavor(made)
