"""Stages: in order, resumable, and helpful when one fails."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from aio import stages, teardown
from aio.cloud import Cloud
from aio.errors import AioError
from aio.report import Reporter
from aio.settings import Settings
from aio.stages import Stage, run_stages


class Screen:
    """Three stages, of which the second fails as long as ``broken``."""

    def __init__(self, tmp_path: Path) -> None:
        self.cloud = Cloud(Settings(state=tmp_path))
        self.out = io.StringIO()
        self.done: list[str] = []
        self.broken = True
        self.stages = [Stage(name, self.action(name)) for name in ("one", "two", "three")]

    def action(self, name: str) -> stages.Action:
        def run(cloud: Cloud, reporter: Reporter) -> None:
            if name == "two" and self.broken:
                raise AioError("mysqld failed", log="disk full", hint="free some space")
            self.done.append(name)

        return run

    def run(self) -> str:
        run_stages(self.stages, self.cloud, Reporter(self.out))
        return self.out.getvalue()


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen(tmp_path)


def test_a_failure_stops_and_tells_stage_log_and_way_out(screen: Screen) -> None:
    with pytest.raises(AioError) as caught:
        screen.run()
    assert screen.done == ["one"]
    text = str(caught.value)
    assert "two: mysqld failed" in text
    assert "disk full" in text
    assert "free some space" in text
    assert "failed after" in screen.out.getvalue()


def test_the_next_run_goes_through_to_the_end(screen: Screen) -> None:
    with pytest.raises(AioError):
        screen.run()
    screen.broken = False
    printed = screen.run()
    assert screen.done == ["one", "one", "two", "three"]
    assert "[ 3/3] three" in printed
    assert printed.rstrip().endswith(" s")


def test_up_and_down_have_distinct_titles() -> None:
    for plan in (stages.UP, teardown.PURGE):
        titles = [stage.title for stage in plan]
        assert len(set(titles)) == len(titles)
    assert teardown.PURGE[: len(teardown.DOWN)] == teardown.DOWN
