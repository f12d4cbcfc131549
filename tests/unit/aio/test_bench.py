"""``aio bench`` runs what was asked for, and tells what failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from aio import bench
from aio.bench import BENCHES, Bench
from aio.settings import Settings

Ran = list[tuple[str, list[str]]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """The scripts that were started, with their arguments; "bad" ends with status 1."""
    seen: Ran = []

    def python(settings: Settings, script: Path, arguments: Sequence[str]) -> int:
        seen.append((script.stem, list(arguments)))
        return int(script.stem == "bad")

    monkeypatch.setattr(bench, "_python", python)
    monkeypatch.setattr(bench, "_prepare", lambda settings: None)
    monkeypatch.setattr("aio.machine.require_root", lambda: None)
    monkeypatch.setattr(bench, "BENCHES", [Bench("good", 1), Bench("bad", 2), Bench("other", 3)])
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    for name in ("good", "bad", "other"):
        (tmp_path / f"{name}.py").write_text(f'"""Measures {name}.\n\nMore."""\n')
    return seen


def test_all_run_when_none_is_named(
    settings: Settings, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(settings, []) == 1
    assert ran == [(name, []) for name in ("good", "bad", "other", "report")]
    printed = capsys.readouterr().out
    assert "== good: Measures good." in printed
    assert "benchmark bad failed" in printed


def test_one_runs_with_its_own_arguments(settings: Settings, ran: Ran) -> None:
    assert bench.main(settings, ["other", "--", "-n", "3"]) == 0
    assert ran == [("other", ["-n", "3"]), ("report", [])]


def test_a_report_runs_nothing_else(settings: Settings, ran: Ran) -> None:
    assert bench.main(settings, ["--report"]) == 0
    assert ran == [("report", [])]


def test_the_list_says_what_each_measures(
    settings: Settings, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(settings, ["--list"]) == 0
    assert ran == []
    assert "bad             2 min  Measures bad." in capsys.readouterr().out


def test_another_name_is_refused_with_those_there_are(
    settings: Settings, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.main(settings, ["spawnn"])
    assert "no such benchmark: spawnn (there are good, bad, other)" in capsys.readouterr().err
    assert ran == []


def test_every_script_with_a_main_is_in_the_list() -> None:
    """And what is listed is there, and says what it does."""
    scripts = {file.stem for file in bench.FOLDER.glob("*.py") if "__main__" in file.read_text()}
    assert {bench.name for bench in BENCHES} == scripts - {"report"}
    assert all(entry.what for entry in BENCHES)
