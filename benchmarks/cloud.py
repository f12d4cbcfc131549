"""What the benchmarks of a running cloud share: a network to lend, servers to remove, waits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PREFIX = "bench-"
"""Begins the name of all that benchmarks make in the cloud."""
IMAGE = "busybox"
DEADLINE = 900.0
"""Seconds."""


@contextlib.contextmanager
def network(cloud: Any, cidr: str = "10.99.0.0/22") -> Iterator[str]:
    """Lend a tenant network to the servers of the block, and remove both."""
    made = cloud.network.create_network(name=f"{PREFIX}net")
    try:
        cloud.network.create_subnet(
            network_id=made.id, ip_version=4, cidr=cidr, name=f"{PREFIX}subnet"
        )
        yield made.id
    finally:
        delete_servers(cloud)
        cloud.network.delete_network(made)


def order(cloud: Any, name: str, flavor: str, networks: Any, count: int, **more: Any) -> None:
    """Order servers of the tiny image in one request, without waiting.

    :param networks: as ``[{"uuid": ...}]``, or ``none``
    :param more: of the SDK's ``create_server``
    """
    cloud.compute.create_server(
        name=name,
        image_id=cloud.image.find_image(IMAGE, ignore_missing=False).id,
        flavor_id=flavor,
        networks=networks,
        min_count=count,
        max_count=count,
        **more,
    )


def servers(cloud: Any, **filters: Any) -> list[Any]:
    """List the benchmarks' servers in full."""
    return list(cloud.compute.servers(details=True, name=f"^{PREFIX}", **filters))


def delete_servers(cloud: Any, seconds: float = DEADLINE) -> None:
    """Delete the benchmarks' servers and wait until Nova has forgotten them."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cloud.compute.delete_server, servers(cloud)))
    until(lambda: not is_any(cloud), "the deletion of the servers", seconds, pause=0.5)


def is_any(cloud: Any, **filters: Any) -> bool:
    """Tell whether there is one of the benchmarks' servers; cheap, however many there are."""
    found = cloud.compute.servers(
        details=False, name=f"^{PREFIX}", limit=1, paginated=False, **filters
    )
    return any(found)


def until_built(cloud: Any, seconds: float = DEADLINE, pause: float = 1) -> None:
    """Wait until none of the benchmarks' servers is being built."""
    until(lambda: not is_any(cloud, status="BUILD"), "servers to be built", seconds, pause)


def until(
    condition: Callable[[], bool], what: str, seconds: float = DEADLINE, pause: float = 0.1
) -> None:
    """Wait for a condition; after ``seconds`` raise TimeoutError naming ``what``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still waiting for {what} after {seconds:g} s")
        time.sleep(pause)
