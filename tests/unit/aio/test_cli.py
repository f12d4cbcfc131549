"""The command line and what it prints."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from aio import cli
from aio.cloud import Cloud
from aio.report import Reporter, table
from aio.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / "it's here")


def test_a_shell_gets_exactly_the_exported_values(settings: Settings) -> None:
    exports = Cloud(settings).exports()
    lines = cli.export_lines(exports, settings)
    done = subprocess.run(
        ["bash", "-c", 'eval "$1"; env -0', "-", lines],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    assert exports.items() <= seen.items()
    assert seen["PATH"] == f"{settings.venv}/bin:/usr/bin:/bin"


def test_the_environment_reaches_nova_lxd_and_open_vswitch(settings: Settings) -> None:
    exports = Cloud(settings).exports()
    assert exports["OS_AUTH_URL"] == "http://127.0.0.1:5000/v3"
    assert exports["LXD_DIR"] == str(settings.lxd)
    assert exports["OVS_RUNDIR"] == str(settings.ovs / "run")


def test_loopback_is_exempt_from_a_proxy_and_others_stay_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "intranet,localhost")
    assert Cloud(settings).exports()["no_proxy"] == "intranet,localhost,127.0.0.1"


def test_env_without_a_cloud_says_how_to_get_one(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--state", str(settings.state), "env"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there is no cloud" in captured.err
    assert "up" in captured.err


def test_status_of_nothing_is_not_healthy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--state", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "nova-compute" in printed
    assert "NO" in printed
    assert "yes" not in printed


@pytest.mark.parametrize(("argv", "status"), [([], 0), (["--help"], 0), (["frobnicate"], 2)])
def test_help_lists_the_commands(
    argv: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == status
    printed = capsys.readouterr().out
    for command in ("up", "down", "status", "env", "demo", "test", "bench", "tempest", "image"):
        assert f"\n  {command} " in printed


def test_a_folder_too_long_for_unix_sockets_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--state", str(tmp_path / ("x" * 100))]) == 1
    assert "too long for LXD's unix sockets" in capsys.readouterr().err


def test_arguments_of_a_command_arrive_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def record(settings: Settings, argv: list[str]) -> int:
        seen.extend([str(settings.state), argv])
        return 7

    monkeypatch.setitem(cli._COMMANDS, "down", record)
    assert cli.main(["--state", "/x", "down", "--purge", "--state-of-mind", "y"]) == 7
    assert seen == ["/x", ["--purge", "--state-of-mind", "y"]]


def test_the_folder_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOVA_LXD_AIO_STATE", str(tmp_path))
    assert cli._parser().parse_known_args([])[0].state == tmp_path


def test_from_a_checkout_the_program_shadows_no_module() -> None:
    root = Path(cli.__file__).parent.parent
    done = subprocess.run(
        ["python3", "aio", "--help"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "commands:" in done.stdout


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_stays_on_one_line_of_a_terminal() -> None:
    out = Terminal()
    reporter = Reporter(out)
    with reporter.stage(1, 2, "Databases"):
        reporter.count(3, 12, "neutron")
    assert "#####--------------- 3/12 neutron" in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_a_file_gets_no_progress_within_seconds() -> None:
    out = io.StringIO()
    with Reporter(out).stage(1, 2, "Databases"):
        pass
    assert out.getvalue().startswith("[ 1/2] Databases....")
    assert os.linesep + os.linesep not in out.getvalue()


def test_a_table_is_aligned() -> None:
    assert table(("a", "bbb"), [("xx", "y")]) == "a   bbb\n--  ---\nxx  y"
