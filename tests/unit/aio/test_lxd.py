"""Our own LXD: where it may live, and how it is told from another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aio import lxd
from aio.errors import AioError
from aio.lxd import LxdDaemon


def folder(length: int) -> Path:
    return Path("/" + "x" * (length - 1))


def test_the_longest_socket_must_fit_into_an_address() -> None:
    LxdDaemon(folder(92))
    with pytest.raises(AioError, match="at most 92 bytes") as caught:
        LxdDaemon(folder(93))
    assert "shorter" in caught.value.hint


@pytest.mark.parametrize("serves", [True, False])
def test_containers_get_lxcs_defaults_with_our_lxcfs(
    serves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "common.conf.d").mkdir(parents=True)
    (theirs / "common.conf").write_text("lxc.tty.dir = lxc\n")
    hooks = "lxc.hook.mount = /x/lxc.mount.hook\nlxc.hook.post-stop = /x/lxc.reboot.hook"
    (theirs / "common.conf.d" / "00-lxcfs.conf").write_text(hooks)
    monkeypatch.setattr(lxd, "_LXC_CONFIG", theirs)
    daemon = LxdDaemon(tmp_path / "lxd")
    if serves:
        daemon.lxcfs.hook.parent.mkdir(parents=True)
        daemon.lxcfs.hook.touch()
    for _ in range(2):
        ours = Path(daemon._environment()["LXD_LXC_TEMPLATE_CONFIG"])
    assert (ours / "common.conf").read_text() == "lxc.tty.dir = lxc\n"
    kept = (ours / "common.conf.d" / "00-lxcfs.conf").read_text()
    assert kept == (f"lxc.hook.mount = {daemon.lxcfs.hook}\n" if serves else "")


def test_without_lxcfs_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    lxcfs = LxdDaemon(tmp_path / "lxd").lxcfs
    lxcfs.start()
    assert lxcfs.healthy()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("lives_in", "ours"), [("a/lxd", True), ("a/lxd2", False)])
def test_only_guests_of_this_folder_are_ended(lives_in: str, ours: bool, tmp_path: Path) -> None:
    title = f"[lxc monitor] {tmp_path / lives_in}/containers nova_instance-00000001"
    daemon = LxdDaemon(tmp_path / "a" / "lxd")
    code = "import sys; print(1, flush=True); sys.stdin.read()"
    argv = [title, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, executable=sys.executable, **pipes) as monitor:  # type: ignore[call-overload]
        monitor.stdout.readline()
        assert daemon._is_monitor(monitor.pid) is ours
        monitor.stdin.close()


def test_purging_what_never_was_is_harmless(tmp_path: Path) -> None:
    daemon = LxdDaemon(tmp_path / "lxd")
    assert not daemon.healthy()
    assert daemon.purge() == []
    assert os.listdir(tmp_path) == []


def test_a_lxcfs_that_fails_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "lxcfs"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    lxcfs = LxdDaemon(tmp_path / "lxd").lxcfs
    monkeypatch.setattr(type(lxcfs), "works_here", staticmethod(lambda: True))
    lxcfs.start()
    assert not lxcfs.process.pid
    assert not lxcfs.hook.exists()
    assert lxcfs.healthy()
