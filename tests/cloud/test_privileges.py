"""nova-compute may do what its user may, and each of its helpers what that one declares."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from vif_plug_ovs import privsep as vif_plug_ovs

from aio import process
from aio.cloud import Cloud
from aio.services import nova
from nova_lxd import privsep

CONTEXTS = {
    context.pypath: context
    for context in (privsep.net_admin, privsep.console, vif_plug_ovs.vif_plug)
}


def status(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def argument(pid: int, name: str) -> str:
    """Return the word behind an argument's name, empty when there is none."""
    words = process.command_line(pid).decode(errors="replace").split("\0")
    return words[words.index(name) + 1] if name in words else ""


@pytest.fixture
def compute(settings, web) -> int:
    """nova-compute that has booted a server."""
    return Cloud(settings).unit(nova.COMPUTE).pid


@pytest.fixture
def helpers(settings, compute) -> dict[str, int]:
    """The privsep daemons of nova-compute by their contexts."""
    conf = f"{settings.etc}/compute/nova.conf"
    ours = [pid for pid in process.all_pids() if argument(pid, "--config-file") == conf]
    return {argument(pid, "--privsep_context"): pid for pid in ours}


def test_nova_compute_is_its_user_and_may_use_lxds_socket(settings, compute):
    user = pwd.getpwnam(settings.choices.user)
    socket = (settings.lxd / "unix.socket").stat()
    assert set(status(compute)["Uid"].split()) == {str(user.pw_uid)}
    assert set(status(compute)["Gid"].split()) == {str(user.pw_gid)}
    owns = user.pw_uid == socket.st_uid
    assert owns or str(socket.st_gid) in status(compute)["Groups"].split()


def test_nova_compute_holds_no_capability_that_its_user_lacks(settings, compute):
    wanted = status(os.getpid())["CapEff"] if settings.choices.user == "root" else "0" * 16
    assert status(compute)["CapEff"] == status(compute)["CapPrm"] == wanted


def test_helpers_hold_what_they_declare(helpers):
    assert helpers.keys() == CONTEXTS.keys()
    for name, pid in helpers.items():
        declared = sum(1 << number for number in CONTEXTS[name].conf.capabilities)
        assert int(status(pid)["CapEff"], 16) == int(status(pid)["CapPrm"], 16) == declared
        assert int(status(pid)["CapInh"], 16) == 0


def test_configuration_is_closed_to_all_but_the_user(settings):
    group = pwd.getpwnam(settings.choices.user).pw_gid
    for path in (settings.etc / "compute").glob("*.conf"):
        found = path.stat()
        assert (found.st_uid, found.st_mode & 0o037) == (0, 0), path
        assert found.st_gid in (0, group), path
