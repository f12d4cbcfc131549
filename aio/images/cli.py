"""``aio image NAME``: build an image and put it into the running cloud's Glance."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aio.api import Api, ApiError
from aio.errors import AioError
from aio.images.busybox import build_busybox
from aio.images.debian import build_debian
from aio.settings import Settings

PROPERTIES = {
    "hypervisor_type": "lxd",
    "hw_vm_mode": "exe",
    "architecture": "x86_64",
}
NAMES = ("busybox", "debian")


def main(settings: Settings, argv: Sequence[str]) -> int:
    """Build the image that ``argv`` names; upload it when the cloud runs."""
    parser = argparse.ArgumentParser(prog="aio image", description=main.__doc__)
    parser.add_argument("name", choices=NAMES, help="busybox: tiny; debian: Debian 12")
    parser.add_argument("--upload", action="store_true", help="fail when there is no cloud")
    options = parser.parse_args(argv)
    began = time.monotonic()
    file = build(settings, options.name)
    size = file.stat().st_size / 1e6
    print(f"built {file}: {size:.1f} MB, {time.monotonic() - began:.1f} s")
    if options.upload or _answers(settings):
        print(upload(Api(settings), options.name, file))
    else:
        print("The cloud does not run: not uploaded.")
    return 0


def build(settings: Settings, name: str) -> Path:
    """Build an image into the state folder and return its path."""
    file = settings.state / "images" / f"{name}.tar.gz"
    if name == "debian":
        settings.log.mkdir(parents=True, exist_ok=True)
        return build_debian(file, settings.log / "image-debian.log")
    return build_busybox(file)


def upload(api: Api, name: str, file: Path) -> str:
    """Make ``file`` the content of the public image ``name``; say what was done.

    An image of that name with the same content stays; one with another content is replaced, which
    does not disturb the servers that were made from it.
    """
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha512").hexdigest()
    old = api.find("glance", f"/images?name={name}", name)
    if old and old["status"] == "active" and old.get("os_hash_value") == digest:
        return f"image {name} is in Glance already: {old['id']}"
    made = _create(api, name, file)
    if old:
        api.request("DELETE", "glance", f"/images/{old['id']}")
    return f"image {name} uploaded: {made['id']}"


def _create(api: Api, name: str, file: Path) -> dict[str, Any]:
    facts = {"disk_format": "raw", "container_format": "bare", "visibility": "public"}
    facts |= {"os_distro": name.partition("-")[0], **PROPERTIES}
    made: dict[str, Any] = api.post("glance", "/images", {"name": name, **facts})
    try:
        with file.open("rb") as content:
            api.request("PUT", "glance", f"/images/{made['id']}/file", content)
    except AioError:
        api.request("DELETE", "glance", f"/images/{made['id']}")
        raise
    return made


def _answers(settings: Settings) -> bool:
    if not (settings.state / "secrets.json").exists():
        return False
    try:
        Api(settings).get("glance", "/images?limit=1")
    except ApiError:
        return False
    return True
