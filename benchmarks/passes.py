"""What our driver does when Nova's periodic tasks call it, with however many servers there are."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from nova import context as nova_context
from nova import objects
from nova.compute import power_state, provider_tree, vm_states
from nova.objects import block_device

from aio.lxd import LxdDaemon
from benchmarks import contest as contests
from benchmarks import usage
from benchmarks.contest import PROJECT, Step, duel
from benchmarks.stats import Row
from nova_lxd.virt.driver import LXDDriver

WARM_UPS = 2
NODE = "benchmark"


@dataclass(frozen=True)
class Task:
    """What Nova asks for: our part of it, and the requests that it cannot do without."""

    name: str
    ours: Callable[[], object]
    peer: str
    raw: Callable[[], object]
    target: float | None


class Periodic:
    """The driver in this process, on the cloud's own LXD; it only reads."""

    def __init__(self, driver: LXDDriver, client: Any) -> None:
        self._driver = driver
        self._api = client.api
        self._context = nova_context.get_admin_context()
        self._tree = provider_tree.ProviderTree()
        self._tree.new_root(NODE, "00000000-0000-4000-8000-000000000000")

    def measure(self, rounds: int) -> tuple[dict[str, Any], list[Row]]:
        """Go through the tasks, in turns with a bare client.

        :returns: of each task our requests, then milliseconds and CPU milliseconds (of the caller
            and LXD) of us and of the bare client; and the rows of the comparison
        """
        servers = self._servers()
        report, rows = {}, []
        for task in self._tasks(servers):
            step = Step(f"{task.name}, {len(servers)} servers", task.ours, task.raw)
            (row,) = duel(
                lambda _, step=step: [step],
                task.peer,
                task.target,
                rounds=rounds,
                warm_ups=WARM_UPS,
            )
            with usage.asked() as asked:
                task.ours()
            rows.append(row)
            costs = (row.ours_ms, row.ours_cpu_ms, row.peer_ms, row.peer_cpu_ms)
            names = ("ms", "cpu_ms", "peer_ms", "peer_cpu_ms")
            figures = {name: round(cost or 0, 1) for name, cost in zip(names, costs, strict=True)}
            report[task.name] = {"requests": dict(asked), **figures}
        return report, rows

    def _servers(self) -> list[objects.Instance]:
        """Make Nova's objects for the servers that LXD has."""
        images = self._api.images.get(params=PROJECT | {"recursion": "1"}).json()["metadata"]
        listed = self._api.instances.get(params=PROJECT | {"recursion": "1"}).json()["metadata"]
        glance_ids = {each["fingerprint"]: each["aliases"][0]["name"] for each in images}
        return [
            objects.Instance(
                id=int(each["name"].rpartition("-")[2], 16),
                uuid=each["config"]["user.nova.uuid"],
                host=NODE,
                image_ref=glance_ids[each["config"]["volatile.base_image"]],
                kernel_id=None,
                ramdisk_id=None,
                vm_state=vm_states.ACTIVE,
                task_state=None,
                power_state=power_state.RUNNING,
            )
            for each in listed
        ]

    def _tasks(self, servers: list[objects.Instance]) -> list[Task]:
        api = self._api
        return [
            Task(
                "power sync",
                lambda: self._power_sync(servers),
                "one request",
                lambda: api.instances.get(params=PROJECT | {"recursion": "1"}).json(),
                1.5,
            ),
            Task(
                "resource audit",
                self._audit,
                "/1.0/resources and the pool",
                lambda: (api.resources.get().json(), _pool(api).get().json()),
                1.5,
            ),
            Task(
                "image cache pass",
                lambda: self._image_cache(servers),
                "one request",
                lambda: api.images.get(params=PROJECT | {"recursion": "1"}).json(),
                1.5,
            ),
            Task(
                "look at one server",
                lambda: self._driver.get_info(servers[0], use_cache=False),
                "one request",
                lambda: api.instances[servers[0].name].get(params=PROJECT).json(),
                None,
            ),
        ]

    def _power_sync(self, servers: list[objects.Instance]) -> None:
        """Ask what ComputeManager._sync_power_states asks."""
        self._driver.get_num_instances()
        for server in servers:
            self._driver.get_info(server)

    def _audit(self) -> None:
        """Ask what ComputeManager.update_available_resource asks."""
        self._driver.get_available_resource(NODE)
        self._driver.update_provider_tree(self._tree, NODE)

    def _image_cache(self, servers: list[objects.Instance]) -> None:
        """Do what ComputeManager._run_image_cache_manager_pass orders, without Nova's database."""
        query = mock.patch.object(
            block_device.BlockDeviceMappingList, "bdms_by_instance_uuid", return_value={}
        )
        with query:
            self._driver.manage_image_cache(self._context, servers)


def _pool(api: Any) -> Any:
    return api.storage_pools["default"].resources


@contextlib.contextmanager
def periodic(lxd: LxdDaemon) -> Iterator[Periodic]:
    """Lend a driver on a LXD that runs; the servers there are left as they are."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nlb", dir="/var/tmp"))
        driver, client = stack.enter_context(contests.contestants(lxd, Path(folder)))
        yield Periodic(driver, client)
