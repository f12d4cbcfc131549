"""Processes that we own: never mistaken for others', always ended with what they started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aio import process
from aio.errors import AioError
from aio.process import Process


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    found = Process("sleeper", tmp_path / "run", tmp_path / "log", owner=str(tmp_path))
    yield found
    found.stop(1)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_started_process_is_found_again_by_its_pid_file(sleeper: Process, tmp_path: Path) -> None:
    sleeper.start(["sleep", "60"])
    other = Process("sleeper", tmp_path / "run", tmp_path / "log", owner=str(tmp_path))
    assert other.pid == sleeper.pid is not None


def test_starting_twice_keeps_the_first(sleeper: Process) -> None:
    sleeper.start(["sleep", "60"])
    first = sleeper.pid
    sleeper.start(["sleep", "60"])
    assert sleeper.pid == first


@pytest.mark.parametrize(
    "forged", [{"started": 1}, {"boot": "another boot"}, {"pid": 2**22 + 1}], ids=str
)
def test_a_number_that_somebody_else_has_now_is_not_ours(
    sleeper: Process, forged: dict[str, object]
) -> None:
    sleeper.start(["sleep", "60"])
    pid = sleeper.pid
    record = json.loads(sleeper.pid_file.read_text())
    sleeper.pid_file.write_text(json.dumps({**record, **forged}))
    assert sleeper.pid is None
    sleeper.stop()
    assert process.start_time(pid or 0) is not None, "stop() has killed a process that is not ours"
    os.kill(pid or 0, signal.SIGKILL)


def test_a_half_written_pid_file_means_not_running(sleeper: Process) -> None:
    sleeper.pid_file.parent.mkdir()
    sleeper.pid_file.write_text('{"pid": 1')
    assert sleeper.pid is None


def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen(["true"])
    process.wait_until(lambda: process.start_time(child.pid) is None, 10, "the zombie")
    child.wait()


def test_stop_kills_what_ignores_sigterm(sleeper: Process) -> None:
    ignore = "import signal, time; signal.signal(15, signal.SIG_IGN)"
    sleeper.start(python(f"{ignore}; print(1, flush=True); time.sleep(60)"))
    process.wait_until(sleeper.tail, 20, "the process to ignore SIGTERM")
    pid = sleeper.pid
    sleeper.stop(0.2)
    assert process.start_time(pid or 0) is None
    assert not sleeper.pid_file.exists()


def test_stop_ends_the_children_too(sleeper: Process) -> None:
    sleeper.start(["sh", "-c", "sleep 60 & echo $!; wait"])
    process.wait_until(sleeper.tail, 20, "the child's number")
    child = int(sleeper.tail())
    sleeper.stop(1)
    process.wait_until(lambda: process.start_time(child) is None, 10, "the child to end")


def test_a_process_that_ended_before_it_was_looked_at_does_not_run(
    sleeper: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "start_time", lambda pid: None)
    sleeper.start(["true"])
    assert json.loads(sleeper.pid_file.read_text())["started"] is None
    assert sleeper.pid is None


def test_a_process_that_ends_early_fails_the_wait_at_once_with_its_log(sleeper: Process) -> None:
    sleeper.start(python("import sys; sys.exit('no such database')"))
    began = time.monotonic()
    with pytest.raises(AioError, match="sleeper ended while starting") as caught:
        sleeper.wait_ready(lambda: False, 60)
    assert "no such database" in caught.value.log
    assert time.monotonic() - began < 30


def test_a_wait_names_what_it_waited_for() -> None:
    with pytest.raises(AioError, match=r"waited 0 s for the moon"):
        process.wait_until(lambda: False, 0.01, "the moon", interval=0.001)


def test_the_mark_finds_children_that_left_the_session(sleeper: Process, tmp_path: Path) -> None:
    sleeper.start(["setsid", "--fork", "sleep", "61"])
    process.wait_until(lambda: process.owned_by(str(tmp_path)), 10, "the child")
    (child,) = process.owned_by(str(tmp_path))
    assert process.environment(child)[process.SERVICE] == "sleeper"
    process.kill([child], 1)
    assert process.owned_by(str(tmp_path)) == []


def test_a_process_without_its_mark_is_found_by_its_configuration(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "input()", f"--config-file={tmp_path}/etc/x.conf"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as child:
        process.wait_until(lambda: child.pid in process.owned_by(str(tmp_path)), 10, "the process")
        assert child.pid not in process.owned_by(f"{tmp_path}2")


def test_memory_goes_to_the_service_by_mark_or_by_session(sleeper: Process, tmp_path: Path) -> None:
    sleeper.start(["sleep", "60"])
    assert process.memory_by_service({str(tmp_path)}, {})["sleeper"] > 0
    assert process.memory_by_service(set(), {sleeper.pid or 0: "by session"})["by session"] > 0


def test_tail_returns_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{number}\n" for number in range(30_000)))
    assert process.tail(log, 2) == "29998\n29999"
    assert process.tail(tmp_path / "none") == ""
