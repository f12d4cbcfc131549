"""``aio test`` runs what was asked for and counts honestly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from aio import choices, testing
from aio.errors import AioError
from aio.process import wait_until
from aio.settings import Settings

JUNIT = """<?xml version="1.0"?>
<testsuites><testsuite tests="5">
<testcase classname="a" name="passes"/>
<testcase classname="a" name="fails"><failure message="x"/></testcase>
<testcase classname="a" name="fails twice"><failure message="x"/><error message="y"/></testcase>
<testcase classname="a" name="skipped"><skipped message="z"/></testcase>
<testcase classname="a" name="passes too"><system-out>text</system-out></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A state folder whose environment is the one that runs this test."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    return Settings(state=tmp_path)


def ring(tmp_path: Path, body: str) -> testing.Ring:
    folder = tmp_path / "ring"
    folder.mkdir(exist_ok=True)
    (folder / "test_ring.py").write_text(body)
    return testing.Ring("sample", str(folder), needs_root=False, seconds=300)


def test_rings_run_in_order_whatever_the_order_asked() -> None:
    rings, arguments, checks = testing.parse(["cloud", "unit", "--", "-k", "x"])

    assert [ring.name for ring in rings] == ["unit", "cloud"]
    assert (arguments, checks) == (["-k", "x"], False)


def test_without_a_ring_all_run_and_the_checks_too() -> None:
    rings, arguments, checks = testing.parse([])

    assert [ring.name for ring in rings] == [
        "unit",
        "functional",
        "cloud",
        "cloud-nova",
    ]
    assert (arguments, checks) == ([], True)


def test_unknown_ring_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        testing.parse(["units"])
    assert "no such ring: units" in capsys.readouterr().err


def test_root_is_wanted_only_where_it_is_needed() -> None:
    rings = {ring.name: ring for ring in testing.RINGS}

    testing.require_root([rings["unit"]], uid=1000)
    testing.require_root(testing.RINGS, uid=0)
    with pytest.raises(AioError, match=r"functional and cloud and cloud-nova .* need root"):
        testing.require_root(testing.RINGS, uid=1000)


@dataclass
class FakeCloud:
    """A cloud of which the folder is real, and whether it runs is said."""

    settings: Settings
    runs: bool = False

    def any_running(self) -> bool:
        return self.runs


def cloud(settings: Settings, *argv: str, runs: bool = True) -> FakeCloud:
    """Return a cloud that was brought up with options."""
    choices.choose(settings.choices_file, choices.parse(argv), fixed=False)
    settings.data.mkdir()
    return FakeCloud(settings, runs)


def test_a_cloud_that_is_up_is_not_changed_for_a_ring(settings: Settings) -> None:
    testing.require_choices(testing.RINGS, FakeCloud(settings))
    running = cloud(settings)
    testing.require_choices(testing.RINGS[:-1], running)
    with pytest.raises(AioError, match="--firewall iptables_hybrid --user root is up") as caught:
        testing.require_choices(testing.RINGS, running)
    assert caught.value.hint.endswith("aio test unit functional cloud")


def test_a_cloud_that_is_as_a_ring_wants_it_serves(settings: Settings) -> None:
    testing.require_choices(testing.RINGS, cloud(settings, *testing.RINGS[-1].up.split()))


def test_what_a_killed_cloud_left_is_taken_down(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[FakeCloud] = []
    monkeypatch.setattr(testing, "run_stages", lambda stages, cloud, reporter: done.append(cloud))
    testing.remove_remains(FakeCloud(settings))
    killed = cloud(settings, "--user", "nova", runs=False)
    testing.require_choices(testing.RINGS, killed)

    testing.remove_remains(killed)
    assert done == [killed]
    killed.runs = True
    testing.remove_remains(killed)
    assert done == [killed]


def test_pytest_is_told_with_what_the_cloud_is_to_come_up(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOVA_LXD_AIO_UP", raising=False)
    body = "import os\ndef test_it(): assert os.environ.get('NOVA_LXD_AIO_UP') == {!r}\n"
    for up, seen in (("--user nova", "--user nova"), ("", None)):
        sample = replace(ring(tmp_path, body.format(seen)), up=up)
        assert testing.run_ring(settings, sample, []) == testing.Count(passed=1)


def test_root_gets_the_packages_of_the_functional_tests(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    install = "aio.machine.install_packages"
    monkeypatch.setattr(install, lambda reporter, more: asked.extend(more))
    monkeypatch.setattr("aio.machine.environment_is_complete", lambda settings: True)
    monkeypatch.setattr("aio.machine.install_extras", lambda settings, extras, reporter: None)

    testing.prepare(settings, as_root=False)
    assert asked == []
    testing.prepare(settings, as_root=True)
    assert asked == ["ovn-central", "ovn-host"]


def test_count_takes_each_test_once(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text(JUNIT)

    assert testing.count(junit) == testing.Count(passed=2, failed=2, skipped=1)
    assert testing.count(tmp_path / "absent.xml") == testing.Count()


def test_last_line_is_the_sum() -> None:
    counts = testing.Count(3, 0, 1) + testing.Count(2, 1)

    assert testing.summary(counts, ["ruff check"]).splitlines()[1:] == [
        "check failed: ruff check",
        "1 skipped",
        "5 passed, 1 failed",
    ]


def test_checks_are_toxs() -> None:
    assert ["ruff", "check"] in testing.commands("lint")
    assert testing.commands("mypy") == [["mypy"]]


def test_ring_counts_what_pytest_ran(settings: Settings, tmp_path: Path) -> None:
    body = "def test_a(): pass\ndef test_b(): assert False\n"

    counted = testing.run_ring(settings, ring(tmp_path, body), [])

    assert counted == testing.Count(passed=1, failed=1)


def test_pytest_that_breaks_is_a_failure(settings: Settings, tmp_path: Path) -> None:
    assert testing.run_ring(settings, ring(tmp_path, "import os; os._exit(3)\n"), []).failed == 1


def test_nothing_collected_is_a_failure_unless_chosen(settings: Settings, tmp_path: Path) -> None:
    empty = ring(tmp_path, "")

    assert testing.run_ring(settings, empty, []).failed == 1
    assert testing.run_ring(settings, empty, ["-k", "nothing"]) == testing.Count()


HANGS = """
import pathlib, pytest, time
folder = pathlib.Path(__file__).parent
@pytest.fixture
def daemon():
    yield
    (folder / "cleaned").touch()
def test_hangs(daemon):
    (folder / "started").touch()
    time.sleep(600)
"""


def test_ring_ends_at_its_deadline_and_cleans_up(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = ring(tmp_path, HANGS)
    started = Path(hanging.folder, "started")
    wait = subprocess.Popen.wait

    def wait_until_started(child: subprocess.Popen[bytes], seconds: float | None = None) -> int:
        if seconds != hanging.seconds:
            return wait(child, seconds)
        wait_until(started.exists, 120, "the test to start")
        raise subprocess.TimeoutExpired(child.args, seconds)

    monkeypatch.setattr(subprocess.Popen, "wait", wait_until_started)

    assert testing.run_ring(settings, hanging, []).failed == 1
    assert Path(hanging.folder, "cleaned").exists()


LANES = {
    "test_a.py": "import os\ndef test_lane(): assert not os.environ.get('NOVA_LXD_TEST_LANE')",
    "test_b.py": "import os\ndef test_lane(): assert os.environ['NOVA_LXD_TEST_LANE'] == '2'",
    "test_c.py": "import os; os._exit(3)  # at once",
    "test_d.py": "def test_bad(): assert 0",
}


def test_lanes_share_a_ring(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    for name, body in LANES.items():
        (folder / name).write_text(f"{body}\n")
    shared = testing.Ring("made-up", str(folder), needs_root=False, seconds=120, lanes=2)

    assert [len(lane) for lane in testing.split(shared)] == [2, 2]
    assert testing.run_ring(settings, shared, []) == testing.Count(passed=1, failed=2)
    assert "made-up-2: pytest ended with status 3" in capfd.readouterr().out

    (folder / "test_c.py").unlink()
    assert testing.run_ring(settings, shared, []) == testing.Count(passed=2, failed=1)
    said = capfd.readouterr().out
    assert said.index("test_a.py") < said.index("test_b.py")


def test_chosen_tests_have_one_lane(settings: Settings, tmp_path: Path) -> None:
    shared = testing.Ring("made-up", str(tmp_path), needs_root=False, seconds=120, lanes=2)
    (tmp_path / "test_a.py").write_text("def test_good(): pass\n")

    assert testing.run_ring(settings, shared, ["-k", "good"]) == testing.Count(passed=1)


def test_workers_share_a_ring(settings: Settings, tmp_path: Path) -> None:
    body = "import os\ndef test_it(): assert os.environ.get('PYTEST_XDIST_WORKER_COUNT') == '3'\n"
    (tmp_path / "test_a.py").write_text(body)
    shared = testing.Ring("made-up", str(tmp_path), needs_root=False, seconds=120, workers=3)

    assert testing.run_ring(settings, shared, []) == testing.Count(passed=1)
    assert testing.run_ring(settings, shared, ["-k", "it", str(tmp_path)]) == testing.Count(
        failed=1
    )
