"""The machine's own settings survive the preparation."""

from __future__ import annotations

import socket
import sysconfig
from pathlib import Path

import pytest

from aio import machine
from aio.errors import AioError
from aio.report import Reporter
from aio.settings import Settings


class Policy:
    """A policy-rc.d in a scratch folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "policy-rc.d"
        self.spare = folder / "policy-rc.d.spare"

    def forbidden(self) -> bool:
        with machine.daemons_forbidden(self.file, self.spare):
            return "exit 101" in self.file.read_text() and self.file.stat().st_mode & 0o111 != 0


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return Policy(tmp_path)


def test_daemons_are_forbidden_and_then_allowed(policy: Policy) -> None:
    assert policy.forbidden()
    assert not policy.file.exists()


def test_a_policy_of_the_machine_is_put_back(policy: Policy) -> None:
    policy.file.write_text("theirs")
    assert policy.forbidden()
    assert policy.file.read_text() == "theirs"
    assert not policy.spare.exists()


def test_a_failing_installation_puts_it_back_too(policy: Policy) -> None:
    policy.file.write_text("theirs")
    with pytest.raises(AioError), machine.daemons_forbidden(policy.file, policy.spare):
        raise AioError("apt failed")
    assert policy.file.read_text() == "theirs"


def test_a_killed_installation_is_mended_by_the_next(policy: Policy) -> None:
    policy.spare.write_text("theirs")
    policy.file.write_text("#!/bin/sh\nexit 101\n")
    assert policy.forbidden()
    assert policy.file.read_text() == "theirs"


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(AioError, match=rf"not of this cloud: port {port} \(nova\)") as caught:
            machine.require_ports({"nova": port})
    assert f"sport = :{port}" in caught.value.hint
    machine.require_ports({"nova": port})


@pytest.mark.parametrize(
    ("limit", "word"), [("MEMORY_NEEDED", "memory"), ("DISK_NEEDED", "free at")]
)
def test_a_machine_that_is_too_small_is_refused(
    limit: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "MEMORY_NEEDED", 0)
    monkeypatch.setattr(machine, "DISK_NEEDED", 0)
    machine.require_room(Settings(state=tmp_path / "not" / "there"))
    monkeypatch.setattr(machine, limit, 2**60)
    with pytest.raises(AioError, match=word) as caught:
        machine.require_room(Settings(state=tmp_path / "not" / "there"))
    assert caught.value.hint


def test_only_root_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(AioError, match="root"):
        machine.require_root()


def test_a_missing_package_is_found() -> None:
    assert machine.missing_packages(["dpkg", "no-such-package"]) == ["no-such-package"]


def test_a_failing_command_is_named_with_its_last_words() -> None:
    lines = machine.stream(["sh", "-c", "echo one; echo two >&2; exit 3"], {}, "look")
    seen: list[str] = []
    with pytest.raises(AioError, match="status 3") as caught:
        seen.extend(lines)
    assert caught.value.log == "one\ntwo"
    assert caught.value.hint == "look"


def test_the_environment_is_remade_when_a_pin_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state=tmp_path)
    settings.venv.mkdir()
    assert not machine.environment_is_complete(settings)
    (settings.venv / "complete").write_text(machine.environment_fingerprint())
    assert machine.environment_is_complete(settings)
    changed = tmp_path / "constraints.txt"
    changed.write_text("nova==99")
    monkeypatch.setattr(machine, "CONSTRAINTS", changed)
    assert not machine.environment_is_complete(settings)


def test_the_parser_of_the_debian_package_is_lent_to_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state=tmp_path / "state")
    monkeypatch.setattr(machine, "environment_is_complete", lambda settings: True)
    monkeypatch.setattr(machine, "SYSTEM_PACKAGES", tmp_path / "system")
    ours = settings.venv / "lib" / "python3.11" / "site-packages" / "ovs"
    ours.mkdir(parents=True)
    machine.ensure_environment(settings, Reporter())
    assert not list(ours.iterdir())  # there is none to lend
    theirs = tmp_path / "system" / "ovs" / f"_json{sysconfig.get_config_var('EXT_SUFFIX')}"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("a library")
    for _ in range(2):
        machine.ensure_environment(settings, Reporter())
    (lent,) = ours.iterdir()
    assert (lent.name, lent.read_text()) == (theirs.name, "a library")


def test_every_requirement_is_pinned() -> None:
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in machine.CONSTRAINTS.read_text().splitlines()
        if "==" in line
    }
    wanted = machine.REQUIREMENTS.read_text().splitlines()
    assert {name.lower() for name in wanted if not name.startswith("#")} <= pins


def test_two_at_a_time_are_refused_and_one_after_the_other_are_not(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "cloud")
    for _ in range(2):
        with machine.alone(settings):
            with pytest.raises(AioError, match="another 'aio up'"), machine.alone(settings):
                pass
