"""driver.spawn() and destroy() against the raw LXD API: same image, pool and limits, no NIC.

Run as root from the repository root with the cloud's virtual environment::

    eval "$(python3 aio env)"; python benchmarks/spawn.py [-n 30]

It starts a LXD of its own and removes it.  The contestants take turns in one process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock
from urllib import parse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nova.conf
import pylxd
from nova import context as nova_context
from nova import objects
from oslo_utils import timeutils

from aio.images.busybox import build_busybox
from aio.lxd import LxdDaemon
from benchmarks.stats import Row, paired, table
from nova_lxd.virt import image, network
from nova_lxd.virt.driver import LXDDriver
from nova_lxd.virt.model import ImageSource

CONF = nova.conf.CONF
IMAGE_ID = "6d1c2cf0-0f4b-4b5e-9a39-7d8f0c3f1a00"
WARM_UPS = 5


def main() -> None:
    """Run the benchmark and write benchmarks/results/spawn.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=30, help="counted rounds")
    rounds = parser.parse_args().n
    with tempfile.TemporaryDirectory(prefix="nlb", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)  # an unprivileged guest's root must reach its own file system
        lxd = LxdDaemon(Path(folder) / "lxd", group=None)
        try:
            lxd.start()
            lxd.create_pool("default", size="5GiB")
            rows = _measure(lxd, Path(folder), rounds)
        finally:
            lxd.purge()
    print(table(rows))
    _write(rows, Path(__file__).parent / "results" / "spawn.json")


def _measure(lxd: LxdDaemon, folder: Path, rounds: int) -> list[Row]:
    driver = _driver(lxd, folder)
    client = pylxd.Client(f"http+unix://{parse.quote(str(lxd.socket), safe='')}")
    fingerprint = _upload(driver, folder)
    config = {"limits.cpu": "1", "limits.memory": "64MiB", "security.idmap.isolated": "true"}
    times: dict[str, list[float]] = {"spawn": [], "raw spawn": [], "destroy": [], "raw destroy": []}
    for number in range(rounds + WARM_UPS):
        server = _server(number)
        turns = {
            "spawn": lambda server=server: _spawn(driver, server),
            "raw spawn": lambda: _raw_spawn(client, fingerprint, config),
            "destroy": lambda server=server: driver.destroy(None, server, None),
            "raw destroy": lambda: _raw_destroy(client),
        }
        order = list(turns) if number % 2 else ["raw spawn", "spawn", "raw destroy", "destroy"]
        for name in order:
            seconds = _timed(turns[name])
            if number >= WARM_UPS:
                times[name].append(seconds)
    return [
        paired("spawn", times["spawn"], "raw LXD", times["raw spawn"], 1.10),
        paired("destroy", times["destroy"], "raw LXD", times["raw destroy"], 1.10),
    ]


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _driver(lxd: LxdDaemon, folder: Path) -> LXDDriver:
    # What the benchmark leaves out, since no contestant has NICs: the privileged helpers.
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
    fingerprint = hashlib.sha256(metadata + path.read_bytes()).hexdigest()
    with path.open("rb") as rootfs:
        driver._session.upload_image(fingerprint, metadata, rootfs, {})
    driver._session.add_alias(IMAGE_ID, fingerprint)
    return fingerprint


def _server(number: int) -> objects.Instance:
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
    )


def _spawn(driver: LXDDriver, server: objects.Instance) -> None:
    meta = objects.ImageMeta(
        id=IMAGE_ID,
        name="busybox",
        disk_format="raw",
        container_format="bare",
        created_at=timeutils.utcnow(),
        properties=objects.ImageMetaProps(),
    )
    driver.spawn(nova_context.get_admin_context(), server, meta, [], "", {})


def _raw_spawn(client: pylxd.Client, fingerprint: str, config: dict[str, str]) -> None:
    project = {"project": "nova"}
    root = {"type": "disk", "path": "/", "pool": "default", "size": "1GiB"}
    body = {
        "name": "raw",
        "source": {"type": "image", "fingerprint": fingerprint},
        "config": config,
        "profiles": [],
        "devices": {"root": root},
    }
    _finish(client, client.api.instances.post(json=body, params=project))
    start = {"action": "start", "timeout": -1}
    _finish(client, client.api.instances["raw"].state.put(json=start, params=project))


def _raw_destroy(client: pylxd.Client) -> None:
    project = {"project": "nova"}
    stop = {"action": "stop", "force": True, "timeout": -1}
    _finish(client, client.api.instances["raw"].state.put(json=stop, params=project))
    _finish(client, client.api.instances["raw"].delete(params=project))


def _finish(client: pylxd.Client, answer: object) -> None:
    operation = answer.json()["metadata"]["id"]  # type: ignore[attr-defined]
    result = client.api.operations[operation].wait.get().json()["metadata"]
    if result["status_code"] != 200:
        raise RuntimeError(result["err"])


def _write(rows: list[Row], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    machine = {"cpus": os.cpu_count(), "loadavg": os.getloadavg(), "kernel": os.uname().release}
    document = {"rows": [row.as_dict() for row in rows], "machine": machine}
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
