"""``aio tempest REGEX``: Tempest against the running cloud, in a workspace of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Mapping, Sequence

from aio.api import Api
from aio.config import render
from aio.errors import AioError
from aio.images import cli as images
from aio.resources import FLAVORS
from aio.settings import Settings

FLAVOR, FLAVOR_ALT = "m1.nano", "m1.micro"
ALT_IMAGE = "busybox-alt"
#: Nova's default; the filters that Tempest has tests for must be named.
FILTERS = (
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
)
#: Tests that no option of Tempest's switches off.
UNSUITED = {
    "test_nova_image_snapshot_dependency": "boots a server from random bytes, which no driver but "
    "a virtual machine's can take for a disk",
}


def main(settings: Settings, argv: Sequence[str]) -> int:
    """Run the tests whose names match a regular expression; the exit status is Tempest's."""
    parser = argparse.ArgumentParser(prog="aio tempest", description=main.__doc__)
    parser.add_argument(
        "regex", help="for example 'tempest.api.compute.servers.test_create_server'"
    )
    parser.add_argument("--exclude-regex", help="names to leave out")
    parser.add_argument("--concurrency", default="2", help="tests at a time (default: %(default)s)")
    parser.add_argument("--list-tests", action="store_true", help="only say what would run")
    options = parser.parse_args(argv)
    if not (settings.venv / "bin" / "tempest").exists():
        raise AioError("there is no cloud to test", hint="python3 aio up")
    workspace = settings.state / "tempest"
    (workspace / "lock").mkdir(parents=True, exist_ok=True)
    config = workspace / "tempest.conf"
    config.touch(mode=0o600)
    config.write_text(render("tempest.conf", facts(settings)))
    command = [settings.program("tempest"), "run", "--config-file", str(config)]
    command += ["--regex", options.regex, "--concurrency", options.concurrency]
    for name, reason in UNSUITED.items():
        print(f"left out: {name}: {reason}", flush=True)
    excluded = [*UNSUITED, *([options.exclude_regex] if options.exclude_regex else [])]
    command += ["--exclude-regex", "|".join(excluded)]
    command += ["--list-tests"] if options.list_tests else []
    return subprocess.run(command, cwd=workspace, env=environment(settings), check=False).returncode


def environment(settings: Settings) -> Mapping[str, str]:
    """Return the environment for Tempest: its own HOME, and no credentials but its config's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    no_proxy = ",".join(filter(None, [os.environ.get("no_proxy"), "127.0.0.1,localhost"]))
    own = {"HOME": str(settings.state / "tempest"), "PATH": settings.path, "no_proxy": no_proxy}
    return {**inherited, **own}


def facts(settings: Settings) -> dict[str, str]:
    """Return what the template of tempest.conf needs; asks the cloud, and sees to its two images.

    Raises ApiError when the cloud does not answer.
    """
    api = Api(settings)
    file = images.build(settings, "busybox")
    for name in ("busybox", ALT_IMAGE):
        images.upload(api, name, file)
    extensions = api.get("neutron", "/extensions")["extensions"]
    return {
        "workspace": str(settings.state / "tempest"),
        "admin_password": settings.passwords["admin"],
        "keystone_url": settings.url("keystone"),
        "region": settings.region,
        "image": _id(api, "glance", "/images?name=busybox", "busybox"),
        "image_alt": _id(api, "glance", f"/images?name={ALT_IMAGE}", ALT_IMAGE),
        "image_file": str(file),
        "flavor": FLAVORS[FLAVOR][0],
        "flavor_alt": FLAVORS[FLAVOR_ALT][0],
        "public": _id(api, "neutron", "/networks", "public"),
        "public_cidr": settings.public_cidr,
        "extensions": ",".join(sorted(item["alias"] for item in extensions)),
        "filters": ",".join(FILTERS),
    }


def _id(api: Api, service: str, path: str, name: str) -> str:
    found = api.find(service, path, name)
    if not found:
        raise AioError(f"the cloud lacks {name}", hint="python3 aio up")
    return str(found["id"])
