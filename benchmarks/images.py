"""First boots and snapshots against the raw LXD API: the same bytes, pool, limits and compression.

Run as root from the repository root with the cloud's virtual environment::

    eval "$(python3 aio env)"; python benchmarks/images.py [-n 7] [--size 300]

It starts a LXD of its own and removes it.  Glance is a file that both contestants read, ours by
way of a double of Nova's ``glance.API``; what Glance and its network cost is in neither figure.
The contestants take turns in one process.  Writes benchmarks/results/images.json.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import io
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nova import context as nova_context
from requests_toolbelt import MultipartEncoder

from aio.images.busybox import build_busybox
from benchmarks import contest as contests
from benchmarks.contest import CONF, PROJECT, Contest, timed
from benchmarks.stats import Cost, Row, paired, table
from nova_lxd.virt import image, rootfs
from nova_lxd.virt import snapshot as snapshots
from nova_lxd.virt.imagecache import source_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = 64 * 1024
WARM_UPS = 1
FORMS = ("tar", "tar.gz", "tar.zst")
TREES = ("/usr/lib", "/usr/share", "/usr/bin")
"""Where the files of the image are from: real ones, so that they compress as such."""


class Glance:
    """Nova's ``glance.API``, as far as the driver asks it: images are files, uploads are read."""

    content: Path

    def download(self, context: Any, image_id: str, trusted_certs: Any = None) -> Iterator[bytes]:
        """Give the image in the pieces that glanceclient gives."""
        with self.content.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def get(self, context: Any, image_id: str) -> dict[str, str]:
        """Describe the image that is made of a server."""
        return {"id": image_id, "name": "bench"}

    def update(self, *args: Any, data: Any, **kwargs: Any) -> None:
        """Read what is uploaded."""
        while data.read(1024 * 1024):
            pass


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=7, help="counted rounds")
    parser.add_argument("--size", type=int, default=300, help="MiB in the image, unpacked")
    options = parser.parse_args()
    glance = mock.patch("nova.image.glance.API", Glance)
    scratch = tempfile.TemporaryDirectory(dir="/var/tmp")
    with contests.contest() as contest, scratch as folder, glance:
        paths = _images(Path(folder), options.size)
        rows = [row for path in paths for row in _boots(contest, path, options.n)]
        rows += _snapshots(contest, paths[-1], options.n)
    print(table(rows))
    contests.write(rows, Path(__file__).parent / "results" / "images.json")


def _images(folder: Path, size_mib: int) -> list[Path]:
    """Write one root file system in every form."""
    paths = [folder / f"image.{form}" for form in FORMS]
    with tarfile.open(paths[0], "w") as tar:
        with tarfile.open(build_busybox(folder / "busybox.tar.gz")) as base:
            for member in base:
                tar.addfile(member, base.extractfile(member) if member.isreg() else None)
        left = size_mib * 1024 * 1024
        for path in (path for tree in TREES for path in sorted(Path(tree).rglob("*"))):
            if left > 0 and path.is_file() and not path.is_symlink():
                left -= path.stat().st_size
                tar.add(path, f"opt{path}")
    content = paths[0].read_bytes()
    with tarfile.open(paths[0]) as tar:
        print(f"image: {len(tar.getmembers())} entries, {len(content) >> 20} MiB")
    paths[1].write_bytes(gzip.compress(content, 6))
    paths[2].write_bytes(zstd.compress(content, 3))
    return paths


def _boots(contest: Contest, path: Path, rounds: int) -> list[Row]:
    """Boot from an image that the host has not seen: ours, ours without inspection, and raw."""
    turns = {
        "ours": lambda number: _cold_boot(contest, path, number),
        "blind": lambda number: _blind_boot(contest, path, number),
        "raw": lambda number: _raw_boot(contest, path, number),
    }
    times: dict[str, list[Cost]] = {name: [] for name in turns}
    for number in range(rounds + WARM_UPS):
        names = list(turns)
        for name in names[number % 3 :] + names[: number % 3]:
            cost = turns[name](number)
            if number >= WARM_UPS:
                times[name].append(cost)
    form = path.name.partition(".")[2]
    return [
        paired(f"first boot, {form}", times["ours"], "raw LXD", times["raw"], 1.30),
        paired(f"{form}, not inspected", times["blind"], "raw LXD", times["raw"], 1.15),
    ]


def _cold_boot(contest: Contest, path: Path, number: int) -> Cost:
    driver = contest.driver
    server = contests.server(number)
    meta = contests.image_meta()
    meta.id = server.image_ref = str(uuid.uuid4())
    meta.size = path.stat().st_size
    Glance.content = path
    context = nova_context.get_admin_context()
    cost = timed(lambda: driver.spawn(context, server, meta, [], "", {}))
    driver.destroy(None, server, None)
    found = driver._session.find_image(source_of(meta).id)
    assert found
    driver._session.delete_image(found.fingerprint)
    return cost


class _Blind:
    """A screening that looks at nothing."""

    def __init__(self, stream: io.BufferedReader, *args: Any) -> None:
        self._stream = stream
        self.facts = SimpleNamespace(unpacked_bytes=0)

    def __iter__(self) -> Iterator[bytes]:
        return iter(functools.partial(self._stream.read, 4 * CHUNK), b"")


def _blind_boot(contest: Contest, path: Path, number: int) -> Cost:
    with mock.patch.object(rootfs, "Screening", _Blind):
        return _cold_boot(contest, path, number)


def _raw_boot(contest: Contest, path: Path, number: int) -> Cost:
    source = source_of(contests.image_meta())
    metadata = image.metadata_tarball(source, contest.driver._facts)
    fingerprint = ""

    def boot() -> None:
        nonlocal fingerprint
        fingerprint = _raw_upload(contest, metadata, path)
        contests.raw_create(contest, "raw", fingerprint=fingerprint)
        contests.raw_state(contest, "raw", "start")

    cost = timed(boot)
    contests.raw_state(contest, "raw", "stop", force=True)
    contests.raw_delete(contest, "raw")
    contest.driver._session.delete_image(fingerprint)
    return cost


def _raw_upload(contest: Contest, metadata: bytes, path: Path) -> str:
    """Send a split image as pylxd does, and let LXD check what it is said to be."""
    digest = hashlib.sha256(metadata)
    with path.open("rb") as file:
        encoder = MultipartEncoder(
            {
                "metadata": ("metadata", metadata, "application/octet-stream"),
                "rootfs": ("rootfs", file, "application/octet-stream"),
            }
        )
        headers = {"Content-Type": encoder.content_type}
        images = contest.client.api.images
        answer = images.post(data=encoder, headers=headers, params=PROJECT)
        contests.finish(contest.client, answer)
    digest.update(path.read_bytes())
    return digest.hexdigest()


def _snapshots(contest: Contest, path: Path, rounds: int) -> list[Row]:
    """Make images of a running server: ours, and the requests that it takes."""
    driver = contest.driver
    server = contests.server(1000)
    meta = contests.image_meta()
    meta.id = server.image_ref = str(uuid.uuid4())
    Glance.content = path
    context = nova_context.get_admin_context()
    driver.spawn(context, server, meta, [], "", {})
    times: dict[str, list[Cost]] = {"ours": [], "raw": []}
    turns = {
        "ours": lambda: _snapshot(contest, server),
        "raw": lambda: _raw_snapshot(contest, server.name),
    }
    for number in range(rounds + WARM_UPS):
        for name in sorted(turns, reverse=bool(number % 2)):
            cost = turns[name]()
            if number >= WARM_UPS:
                times[name].append(cost)
    driver.destroy(None, server, None)
    return [paired("snapshot", times["ours"], "raw LXD", times["raw"], 1.10)]


def _snapshot(contest: Contest, server: Any) -> Cost:
    image_id = str(uuid.uuid4())
    context = nova_context.get_admin_context()
    driver = contest.driver
    cost = timed(lambda: driver.snapshot(context, server, image_id, lambda **states: None))
    kept = driver._session.find_image(image_id)
    if kept:
        driver._session.delete_image(kept.fingerprint)
    return cost


def _raw_snapshot(contest: Contest, name: str) -> Cost:
    api = contest.client.api
    snapshot = api.instances[name].snapshots
    fingerprint = ""

    def take() -> None:
        nonlocal fingerprint
        contests.finish(contest.client, snapshot.post(json={"name": "raw"}, params=PROJECT))
        body = {
            "source": {"type": "snapshot", "name": f"{name}/raw"},
            "compression_algorithm": snapshots._PROGRAMS[CONF.lxd.snapshot_compression][0],
            "properties": {"bench": str(uuid.uuid4())},
        }
        result = contests.finish(contest.client, api.images.post(json=body, params=PROJECT))
        fingerprint = result["metadata"]["fingerprint"]
        export = api.images[fingerprint].export
        answer = export.get(stream=True, is_api=False, params=PROJECT)
        for _ in answer.iter_content(1024 * 1024):
            pass
        contests.finish(contest.client, snapshot["raw"].delete(params=PROJECT))

    cost = timed(take)
    contest.driver._session.delete_image(fingerprint)
    return cost


if __name__ == "__main__":
    main()
