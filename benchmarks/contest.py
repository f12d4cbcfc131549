"""What the benchmarks of single actions share: a driver and a bare client on a LXD of their own."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from urllib import parse

import nova.conf
import psutil
import pylxd
from nova import context as nova_context
from nova import objects
from nova.compute import vm_states
from nova.network import model as network_model
from oslo_utils import timeutils

from aio.images.busybox import build_busybox
from aio.lxd import LxdDaemon
from benchmarks.stats import Cost, Row, paired
from nova_lxd.virt import image, network
from nova_lxd.virt.driver import LXDDriver
from nova_lxd.virt.model import ImageSource

CONF = nova.conf.CONF
IMAGE_ID = "6d1c2cf0-0f4b-4b5e-9a39-7d8f0c3f1a00"
PROJECT = {"project": "nova"}
ROOT = {"type": "disk", "path": "/", "pool": "default", "size": "1GiB"}
RAW = "raw"
_daemons: list[psutil.Process] = []
CONFIG = {"limits.cpu": "1", "limits.memory": "64MiB", "security.idmap.isolated": "true"}


@dataclass(frozen=True)
class Contest:
    """The contestants: our driver, and a client that only sends requests."""

    driver: LXDDriver
    client: Any
    fingerprint: str


@dataclass(frozen=True)
class Step:
    """One action of both contestants; what is unnamed is not reported."""

    name: str
    ours: Callable[[], object]
    raw: Callable[[], object]
    ready: Callable[[], object] = lambda: None
    """Waits until both are where the action begins; it is not timed."""


def duel(
    steps: Callable[[int], Iterable[Step]],
    peer: str,
    target: float | None,
    *,
    rounds: int,
    warm_ups: int,
) -> list[Row]:
    """Let both go through the steps of each round; who is first changes from round to round."""
    ours: dict[str, list[Cost]] = defaultdict(list)
    raw: dict[str, list[Cost]] = defaultdict(list)
    for number in range(rounds + warm_ups):
        for step in steps(number):
            step.ready()
            cost, raw_cost = both(step.ours, step.raw, number)
            if step.name and number >= warm_ups:
                ours[step.name].append(cost)
                raw[step.name].append(raw_cost)
    return [paired(name, ours[name], peer, raw[name], target) for name in ours]


def both(ours: Callable[[], object], raw: Callable[[], object], number: int) -> tuple[Cost, Cost]:
    """Time both; who is first changes with the number of the round."""
    if number % 2:
        cost = timed(ours)
        return cost, timed(raw)
    raw_cost = timed(raw)
    return timed(ours), raw_cost


@contextlib.contextmanager
def contest() -> Iterator[Contest]:
    """Start a LXD with an image in its store, and remove it."""
    with tempfile.TemporaryDirectory(prefix="nlb", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)  # an unprivileged guest's root must reach its own file system
        lxd = LxdDaemon(Path(folder) / "lxd", group=None)
        try:
            lxd.start()
            lxd.create_pool("default", size="5GiB")
            with contestants(lxd, Path(folder)) as (driver, client):
                yield Contest(driver, client, _upload(driver, Path(folder)))
        finally:
            lxd.purge()


@contextlib.contextmanager
def contestants(lxd: LxdDaemon, folder: Path) -> Iterator[tuple[LXDDriver, Any]]:
    """Make our driver and a bare client of a LXD that runs, whose CPU time ``timed`` counts."""
    _daemons.append(psutil.Process(lxd.process.pid))
    try:
        endpoint = f"http+unix://{parse.quote(str(lxd.socket), safe='')}"
        yield _driver(lxd, folder), pylxd.Client(endpoint, project="nova")
    finally:
        _daemons.clear()


def timed(call: Callable[[], object]) -> Cost:
    """Return what a call costs; the CPU time is that of this process and of LXD."""
    cpu = _cpu_seconds()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    return Cost(seconds, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    """CPU time of this process, the daemons, and those children of theirs that have ended."""
    times = [process.cpu_times() for process in (psutil.Process(), *_daemons)]
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


def server(number: int) -> objects.Instance:
    """Order a server as Nova does, without ports."""
    flavor = objects.Flavor(
        name="bench", vcpus=1, memory_mb=64, root_gb=1, ephemeral_gb=0, swap=0, extra_specs={}
    )
    return objects.Instance(
        id=number + 1,
        uuid=f"00000000-0000-4000-8000-{number:012x}",
        project_id="bench",
        user_id="bench",
        image_ref=IMAGE_ID,
        flavor=flavor,
        trusted_certs=None,
        config_drive="",
        system_metadata={},
        device_metadata=None,
        vm_state=vm_states.ACTIVE,
        task_state=None,
        info_cache=objects.InstanceInfoCache(network_info=network_model.NetworkInfo([])),
    )


def image_meta() -> objects.ImageMeta:
    """Describe the image as Glance does."""
    return objects.ImageMeta(
        id=IMAGE_ID,
        name="busybox",
        disk_format="raw",
        container_format="bare",
        created_at=timeutils.utcnow(),
        properties=objects.ImageMetaProps(),
    )


def spawn(driver: LXDDriver, instance: objects.Instance, *vifs: network_model.VIF) -> None:
    """Build a server with these ports."""
    context = nova_context.get_admin_context()
    ports = network_model.NetworkInfo(vifs)
    driver.spawn(context, instance, image_meta(), [], "", {}, ports)


def raw_create(
    contest: Contest,
    name: str,
    devices: dict[str, Any] | None = None,
    fingerprint: str | None = None,
    config: Mapping[str, str] | None = None,
) -> None:
    """Create a container with a request and a wait."""
    body = {
        "name": name,
        "source": {"type": "image", "fingerprint": fingerprint or contest.fingerprint},
        "config": CONFIG | dict(config or {}),
        "profiles": [],
        "devices": {"root": ROOT} | (devices or {}),
    }
    finish(contest.client, contest.client.api.instances.post(json=body, params=PROJECT))


def raw_state(contest: Contest, name: str, action: str, **more: Any) -> None:
    """Start, stop, freeze or unfreeze with a request and a wait."""
    body = {"action": action, "timeout": -1, **more}
    node = contest.client.api.instances[name].state
    finish(contest.client, node.put(json=body, params=PROJECT))


def raw_spawn(contest: Contest, name: str = RAW, config: Mapping[str, str] | None = None) -> None:
    """Create and start a container, as a bare client's spawn."""
    raw_create(contest, name, config=config)
    raw_state(contest, name, "start")


def raw_destroy(contest: Contest, name: str = RAW) -> None:
    """Stop a container by force and delete it, as a bare client's destroy."""
    raw_state(contest, name, "stop", force=True)
    raw_delete(contest, name)


def raw_delete(contest: Contest, name: str) -> None:
    """Delete a stopped container with a request and a wait."""
    finish(contest.client, contest.client.api.instances[name].delete(params=PROJECT))


def finish(client: Any, answer: Any) -> dict[str, Any]:
    """Wait for the end of an operation, and return what LXD says of it."""
    operation = answer.json()["metadata"]["id"]
    result = client.api.operations[operation].wait.get().json()["metadata"]
    if result["status_code"] != 200:
        raise RuntimeError(result["err"])
    return dict(result)


def write(
    rows: list[Row], path: Path, *, more: Mapping[str, object] | None = None, **facts: object
) -> None:
    """Write the rows and what is no ratio, and on what machine and with what they were measured."""
    path.parent.mkdir(exist_ok=True)
    machine = {"cpus": os.cpu_count(), "loadavg": os.getloadavg(), "kernel": os.uname().release}
    document = {"rows": [row.as_dict() for row in rows], "machine": machine | facts, **(more or {})}
    path.write_text(json.dumps(document, indent=1) + "\n")


def _driver(lxd: LxdDaemon, folder: Path) -> LXDDriver:
    # The privileged helpers: a benchmark of ports has started its own (wires.py), others need none.
    CONF([], project="nova", default_config_files=[])
    CONF.set_override("endpoint", str(lxd.socket), "lxd")
    CONF.set_override("instances_path", str(folder / "instances"))
    objects.register_all()
    virtapi = mock.MagicMock()
    driver = LXDDriver(virtapi)
    with mock.patch.object(network, "start_helpers"):
        driver.init_host("benchmark")
    return driver


def _upload(driver: LXDDriver, folder: Path) -> str:
    """Put the image where spawn finds it cached; the raw contestant uses the same one."""
    source = ImageSource(IMAGE_ID, "busybox", "raw", "bare", created_at=1)
    metadata = image.metadata_tarball(source, driver._facts)
    path = build_busybox(folder / "busybox.tar.gz")
    fingerprint = driver._session.upload_image(metadata, [path.read_bytes()], {})
    driver._session.add_alias(IMAGE_ID, fingerprint)
    return fingerprint
