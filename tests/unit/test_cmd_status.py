"""nova-lxd-status: what it prints and ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nova_lxd.cmd import status
from nova_lxd.cmd.orphans import Orphan, Report

ROOT = Path(__file__).resolve().parents[2]
ONE = Orphan("link qvb22222222-22", "no Neutron port needs it", "ip link delete qvb22222222-22")
TWO = Orphan("instance x", "Nova knows no server 1", "lxc --project nova delete --force x", "1")
FOUND = Report((TWO, ONE), ("folder 2: it may go by itself yet",))


def run(*arguments: str, config: str = "", tmp_path=None):
    file = tmp_path / "nova.conf"
    file.write_text(config)
    script = "import sys; from nova_lxd.cmd.status import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, "--config-file", str(file), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("table", "Nothing of the driver's on this host is without a server.\n"),
        ("json", '{"orphans": [], "undecided": []}\n'),
        ("commands", ""),
    ],
)
def test_a_clean_host(capsys, form, text):
    assert status.report_orphans(Report(), form) == 0
    assert capsys.readouterr() == (text, "")


def test_commands_and_nothing_else(capsys):
    assert status.report_orphans(FOUND, "commands") == 1
    out, err = capsys.readouterr()
    assert out == f"{TWO.command}\n{ONE.command}\n"
    assert err == "nova-lxd-status: left out: folder 2: it may go by itself yet\n"


def test_a_table(capsys):
    assert status.report_orphans(FOUND, "table") == 1
    table = capsys.readouterr().out
    for orphan in FOUND.orphans:
        assert f"| What: {orphan.what} " in table
        assert f"| Why: {orphan.why} " in table
        assert f"| Command: {orphan.command} " in table


def test_json(capsys):
    assert status.report_orphans(FOUND, "json") == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["orphans"][0] == {
        "what": "instance x",
        "why": "Nova knows no server 1",
        "command": TWO.command,
        "server": "1",
    }
    assert found["undecided"] == list(FOUND.undecided)
    assert err == ""


def test_what_cannot_be_decided_is_no_orphan(capsys):
    assert status.report_orphans(Report((), ("x",)), "table") == 0
    assert "left out: x" in capsys.readouterr().err


def test_a_host_without_lxd_is_no_clean_host(tmp_path):
    done = run("orphans", config="[lxd]\nendpoint = /nonexistent\n", tmp_path=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("nova-lxd-status: ")
    assert "/nonexistent" in line


def test_a_value_that_is_refused(tmp_path):
    done = run("orphans", config="[lxd]\nproject = a/b\n", tmp_path=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "project" in line


def test_the_script_is_installed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["nova-lxd-status"] == "nova_lxd.cmd.status:main"


def test_wrong_usage(tmp_path):
    done = run("orphans", "--format", "json", "--commands", tmp_path=tmp_path)
    assert done.returncode == 2
    assert "not allowed with" in done.stderr


def test_check_says_what_is_wrong(tmp_path):
    config = "[lxd]\nendpoint = /nonexistent\n[os_vif_ovs]\novsdb_connection = unix:/nonexistent\n"
    done = run("check", config=config, tmp_path=tmp_path)
    assert done.returncode == 2
    assert "Check: LXD " in done.stdout
    assert "Result: Failure" in done.stdout
    assert done.stderr == ""
    done = run("check", "--json", config=config, tmp_path=tmp_path)
    checks = {each["check"]: each for each in json.loads(done.stdout)["checks"]}
    assert "no LXD answers at /nonexistent" in checks["LXD"]["details"]
    assert "unix:/nonexistent" in checks["Open vSwitch"]["details"]
