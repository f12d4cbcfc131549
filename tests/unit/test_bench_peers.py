"""How the benchmark of peers pairs what ran together, finds processes, and does without a peer."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid

import pytest

from aio.process import wait_until
from benchmarks import libvirtd, peers, tcg
from benchmarks.stats import Cost


@pytest.mark.parametrize(("rounds", "times"), [(30, 5), (31, 5), (5, 5), (3, 3)])
def test_a_slow_peer_takes_part_in_few_rounds_after_one_warm_up(rounds, times) -> None:
    taken = [n for n in range(-peers.WARM_UPS, rounds) if peers._takes_part(n, rounds)]
    assert taken[0] == -1
    assert len(taken) == times + 1


def test_a_peer_is_compared_with_what_ran_in_its_rounds() -> None:
    ours = {5: Cost(1), 6: Cost(8), 7: Cost(1), 8: Cost(8)}
    raw = dict.fromkeys(ours, Cost(2))
    slow = {6: Cost(16), 8: Cost(16)}
    raw, slow = peers._rows("spawn", {peers.OURS: ours, peers.RAW: raw, peers.TCG: slow})
    assert (raw.n, raw.target) == (4, 1.10)
    assert (slow.peer, slow.n, slow.ratio, slow.target) == (peers.TCG, 2, 0.5, None)


def test_a_system_is_its_monitor_and_all_that_it_started() -> None:
    mark = str(uuid.uuid4())
    monitor = subprocess.Popen(["sh", "-c", "sleep 60 & wait", mark], start_new_session=True)
    try:
        wait_until(lambda: len(peers._family(mark)) == 2, 30, "the monitor's child")
        family = peers._family(mark)
        assert family[0] == monitor.pid
    finally:
        os.killpg(monitor.pid, signal.SIGKILL)
        monitor.wait()


def test_without_libvirt_the_error_says_what_to_install(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(libvirtd, "_DRIVERS", tmp_path)
    with (
        pytest.raises(libvirtd.AbsentError, match="libvirt-daemon-driver-lxc"),
        libvirtd.libvirtd(tmp_path / "daemon"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_without_a_kernel_the_error_says_how_to_get_one(tmp_path) -> None:
    daemon = libvirtd.Libvirtd(tmp_path)
    with (
        pytest.raises(libvirtd.AbsentError, match="--kernel"),
        tcg.machines(daemon, tmp_path, tmp_path / "vmlinuz"),
    ):
        pass
