"""How nova-compute's memory grows while a large image comes in, and while one is made of a server.

Run as root against a running cloud::

    eval "$(python3 aio env)"; python benchmarks/image_memory.py [--size 1024]

The image holds one file of noise, so it is as large in Glance as in the server.  A small image goes
first, both ways, so that what Python loads once is loaded.  Prints the figures, writes
benchmarks/results/image_memory.json and ends with status 1 when either grew more than 20 MiB.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import openstack

from aio.images.busybox import build_busybox
from benchmarks import cloud as clouds
from benchmarks.cloud import PREFIX

COMPUTE = Path("/var/lib/nova-lxd-aio/run/nova-compute.pid")
PROPERTIES = {"hypervisor_type": "lxd", "hw_vm_mode": "exe"}
MIB = 1024 * 1024
TARGET_MIB = 20


def main() -> int:
    """Measure both ways, and compare with the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="MiB in the large image")
    size = parser.parse_args().size
    cloud = openstack.connect()
    with clouds.network(cloud) as network, _flavor(cloud, size) as flavor:
        _both_ways(cloud, network, flavor, 1)
        report = _both_ways(cloud, network, flavor, size)
    print(json.dumps(report, indent=1))
    results = Path(__file__).parent / "results"
    (results / "image_memory.json").write_text(json.dumps(report, indent=1) + "\n")
    return int(max(report["download_mib"], report["snapshot_mib"]) > TARGET_MIB)


@contextmanager
def _flavor(cloud: Any, size_mib: int) -> Iterator[str]:
    disk = 2 * -(-size_mib // 1024)
    flavor = cloud.compute.create_flavor(name=f"{PREFIX}memory", ram=128, vcpus=1, disk=disk)
    try:
        yield flavor.id
    finally:
        cloud.compute.delete_flavor(flavor)


def _both_ways(cloud: Any, network: str, flavor: str, size_mib: int) -> dict[str, Any]:
    """Boot from a new image and make an image of the server; nothing of it is left."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        image = _image(cloud, Path(folder), size_mib)
    made: list[str] = []

    def boot() -> None:
        server = cloud.compute.create_server(
            name=f"{PREFIX}memory",
            image_id=image,
            flavor_id=flavor,
            networks=[{"uuid": network}],
        )
        clouds.until(lambda: cloud.compute.get_server(server.id).status != "BUILD", "the server")
        found = cloud.compute.get_server(server.id)
        if found.status != "ACTIVE":
            raise RuntimeError(f"the server became {found.status}: {found.fault}")
        made.append(server.id)

    def snapshot() -> None:
        copy = cloud.compute.create_server_image(made[0], f"{PREFIX}copy")
        made.append(copy.id)
        clouds.until(lambda: cloud.image.get_image(copy.id).status == "active", "the image")

    try:
        download, seconds = _growth(boot)
        upload, upload_seconds = _growth(snapshot)
        return {
            "image_mib": round(cloud.image.get_image(image).size / MIB),
            "download_mib": round(download, 1),
            "boot_seconds": round(seconds, 1),
            "snapshot_image_mib": round(cloud.image.get_image(made[1]).size / MIB),
            "snapshot_mib": round(upload, 1),
            "snapshot_seconds": round(upload_seconds, 1),
            "loadavg": os.getloadavg(),
        }
    finally:
        clouds.delete_servers(cloud)
        for each in (image, *made[1:]):
            cloud.image.delete_image(each)


def _image(cloud: Any, folder: Path, size_mib: int) -> str:
    """Upload a root file system that boots and holds a file of noise."""
    path = folder / "image.tar"
    with tarfile.open(path, "w") as tar:
        with tarfile.open(build_busybox(folder / "busybox.tar.gz")) as base:
            for member in base:
                tar.addfile(member, base.extractfile(member) if member.isreg() else None)
        for number in range(size_mib):
            noise = tarfile.TarInfo(f"var/noise/{number}")
            noise.size = MIB
            tar.addfile(noise, io.BytesIO(os.urandom(MIB)))
    image = cloud.image.create_image(
        name=f"{PREFIX}memory",
        filename=str(path),
        disk_format="raw",
        container_format="bare",
        wait=True,
        **PROPERTIES,
    )
    return str(image.id)


def _growth(action: Callable[[], None]) -> tuple[float, float]:
    """Return by how many MiB nova-compute was larger than at the beginning, and the seconds."""
    process = Path("/proc", str(json.loads(COMPUTE.read_text())["pid"]))
    (process / "clear_refs").write_text("5")  # the peak is forgotten
    before = _memory(process, "VmRSS")
    start = time.monotonic()
    action()
    return (_memory(process, "VmHWM") - before) / 1024, time.monotonic() - start


def _memory(process: Path, key: str) -> int:
    """Read a figure of the kernel's, in KiB."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise RuntimeError(f"{process} tells no {key}")


if __name__ == "__main__":
    sys.exit(main())
