"""nova-lxd-status on a host with servers, as the user that nova-compute runs as."""

from __future__ import annotations

import json
import pwd
import subprocess

import pytest

from aio.settings import Settings

TAP, TIN = "tapffffffff-ff", "tinffffffff-ff"
"""A wire of a port that never was."""
_RUN = "import sys; from nova_lxd.cmd.status import main; sys.exit(main())"


def status(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    user = settings.choices.user
    python = settings.program("python") if user == "root" else settings.code / "bin" / "python"
    folder, names = settings.etc / "compute", ("nova.conf", "nova-compute.conf")
    files = [f"--config-file={folder / name}" for name in names]
    return subprocess.run(
        [str(python), "-c", _RUN, *files, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        # As aio starts nova-compute: it is in the group of LXD's socket, its user is not.
        user=user,
        group=pwd.getpwnam(user).pw_gid,
        extra_groups=["lxd"],
    )


@pytest.fixture
def wire():
    make = ["ip", "link", "add", "dev", TAP, "type", "veth", "peer", "name", TIN]
    subprocess.run(make, check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "delete", "dev", TAP], capture_output=True, check=False)


def test_the_host_is_fit(settings):
    done = status(settings, "check", "--json")
    unfit = [check for check in json.loads(done.stdout)["checks"] if check["result"]]
    assert (done.returncode, unfit) == (0, [])


def test_what_has_no_server_is_found_and_removed(settings, web, wire):
    found = status(settings, "orphans", "--commands")
    assert found.returncode == 1, found.stderr
    commands = found.stdout.splitlines()
    assert len(commands) == 1, commands
    assert TAP in commands[0]
    subprocess.run(commands[0], shell=True, check=True)
    clean = status(settings, "orphans")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert web.lets_in()
