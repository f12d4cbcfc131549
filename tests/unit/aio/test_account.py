"""The user of nova-compute: made where there is none, and only what was made is taken away."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from aio import account, choices, config, rootwrap, services
from aio.errors import AioError
from aio.services import nova
from aio.settings import Settings


class Machine:
    """A machine with users, where a command only becomes a line of ``ran``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users: set[str] = set()
        self.unable: set[str] = set()
        self.ran: list[list[str]] = []

    def run(self, *argv: str, hint: str = "") -> str:
        if self.unable & set(argv):
            raise AioError(f"{argv[0]} failed", hint=hint)
        self.ran.append(list(argv))
        if argv[0] == "useradd":
            self.users.add(argv[-1])
        if argv[0] == "userdel":
            self.users.remove(argv[-1])
        if "venv" in argv:
            for name in ("bin/python", "lib/python3.11/site-packages"):
                (Path(argv[-1]) / name).mkdir(parents=True)
        return ""

    def commands(self) -> list[str]:
        return [argv[0] for argv in self.ran if argv[0] in ("useradd", "userdel")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    (tmp_path / "sudoers.d").mkdir()
    monkeypatch.setattr(rootwrap, "SUDOERS", tmp_path / "sudoers.d" / "nova-lxd-aio")
    monkeypatch.setattr(account, "run", machine.run)
    monkeypatch.setattr(account, "exists", machine.users.__contains__)
    return machine


def settings_of(folder: Path, *argv: str) -> Settings:
    settings = Settings(state=folder / "cloud")
    (settings.venv / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    choices.choose(settings.choices_file, choices.parse(argv), fixed=False)
    return settings


@pytest.fixture
def settings(machine: Machine) -> Settings:
    return settings_of(machine.folder, "--user", "nova")


def test_root_needs_nothing(machine: Machine) -> None:
    settings = settings_of(machine.folder)
    account.add(settings)
    account.remove(settings)
    assert not machine.ran
    assert not (settings.state / "account.json").exists()
    assert rootwrap.files(settings) == {}
    assert "sudo" not in rootwrap.helper(settings)


def test_a_user_that_was_made_goes_again(machine: Machine, settings: Settings) -> None:
    for _ in range(2):  # as after a failure
        account.add(settings)
    assert machine.commands() == ["useradd"]
    assert rootwrap.SUDOERS.stat().st_mode & 0o777 == 0o440
    for _ in range(2):
        account.remove(settings)
    assert machine.commands() == ["useradd", "userdel"]
    assert list(rootwrap.SUDOERS.parent.iterdir()) == []


def test_a_user_of_the_machine_stays(machine: Machine, settings: Settings) -> None:
    machine.users.add("nova")
    account.add(settings)
    account.remove(settings)
    assert machine.commands() == []
    assert machine.users == {"nova"}


def test_what_could_not_be_made_leaves_nothing(machine: Machine, settings: Settings) -> None:
    machine.unable = {"useradd"}
    with pytest.raises(AioError) as caught:
        account.add(settings)
    assert "group nova" in caught.value.hint
    account.remove(settings)
    assert machine.commands() == []


def test_sudo_never_reads_what_visudo_refuses(machine: Machine, settings: Settings) -> None:
    machine.unable = {"visudo"}
    with pytest.raises(AioError, match="visudo"):
        account.add(settings)
    assert not rootwrap.SUDOERS.exists()
    account.remove(settings)
    assert list(rootwrap.SUDOERS.parent.iterdir()) == []


def test_a_python_in_a_folder_of_roots_is_not_taken(machine: Machine, settings: Settings) -> None:
    roots = str(Path(settings.program("python")).resolve())
    machine.unable = {roots}
    account.add(settings)
    (made,) = (argv for argv in machine.ran if "venv" in argv)
    assert made[0] == "/usr/bin/python3.11"


def test_a_user_who_can_execute_no_python_is_told_so(machine: Machine, settings: Settings) -> None:
    roots = str(Path(settings.program("python")).resolve())
    machine.unable = {roots, "/usr/bin/python3.11"}
    with pytest.raises(AioError, match="can execute neither") as caught:
        account.add(settings)
    assert roots in str(caught.value)


def test_the_user_gets_a_driver_to_read_and_the_rest_by_reference(settings: Settings) -> None:
    account.add(settings)
    (own,) = settings.code.glob("lib/*/site-packages")
    assert (own / "nova_lxd" / "virt" / "driver.py").exists()
    assert str(settings.venv) in (own / "aio.pth").read_text()
    (command, *_) = nova.COMPUTE.command(settings)
    assert command == str(settings.code / "bin" / "python")


def test_only_nova_compute_is_another_user(settings: Settings) -> None:
    users = {service.name: service.user(settings) for service in services.ALL}
    assert users.pop("nova-compute") == "nova"
    assert set(users.values()) == {"root"}


def test_a_folder_that_means_something_to_sudo_is_refused(machine: Machine) -> None:
    settings = settings_of(machine.folder / "a, b", "--user", "nova")
    with pytest.raises(AioError, match="sudo cannot be told"):
        account.add(settings)
    assert not machine.ran


def test_every_helper_goes_through_sudo_and_rootwrap(settings: Settings) -> None:
    helper = rootwrap.helper(settings)
    sudo, program, conf, privsep, *_ = helper.split()
    assert (sudo, privsep) == ("sudo", "privsep-helper")
    text = config.compute_conf(settings)
    assert text.count(f"helper_command = {helper}\n") == len(config.PRIVSEP)
    assert f"NOPASSWD: {program} ^{conf.replace('rootwrap.', 'rootwrap[.]')}" in (
        rootwrap.sudoers(settings).replace("\\.", "[.]")
    )
    assert "/etc/nova/" not in rootwrap.sudoers(settings)


def test_configuration_is_for_the_user_to_read_and_for_root_to_write(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: dict[str, tuple[int, ...]] = {}
    monkeypatch.setattr("os.chown", lambda path, *ids: owners.update({path.name: ids}))
    monkeypatch.setattr("pwd.getpwnam", lambda name: SimpleNamespace(pw_uid=77, pw_gid=78))
    config.write(settings)
    assert owners == dict.fromkeys(("compute", "nova.conf", "nova-compute.conf"), (0, 78))
    modes = {path: path.stat().st_mode & 0o777 for path in settings.etc.rglob("*.*")}
    opened = {path.name for path, mode in modes.items() if mode & 0o077}
    assert opened == {"nova.conf", "nova-compute.conf", "rootwrap.d"}
    assert modes[settings.etc / "compute" / "nova-compute.conf"] == 0o640
    assert modes[settings.etc / "nova" / "nova.conf"] == 0o600
    assert (settings.etc / "compute").stat().st_mode & 0o777 == 0o750
    assert settings.etc.stat().st_mode & 0o777 == 0o711
