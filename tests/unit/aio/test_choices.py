"""What a cloud was brought up with is known to the commands that follow, and holds."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from aio import choices, cli, config, stages, teardown
from aio.choices import Choices
from aio.cloud import Cloud
from aio.errors import AioError
from aio.report import Reporter
from aio.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / "cloud")


def choose(settings: Settings, *argv: str) -> Choices:
    wanted = choices.parse(argv)
    choices.choose(settings.choices_file, wanted, fixed=settings.data.exists())
    return Settings(state=settings.state).choices


def test_nothing_chosen_is_the_default(settings: Settings) -> None:
    assert settings.choices == choose(settings) == Choices("iptables_hybrid", "root")


def test_a_choice_stays_until_another_is_made(settings: Settings) -> None:
    choose(settings, "--firewall", "openvswitch")
    assert choose(settings) == Choices("openvswitch", "root")
    assert choose(settings, "--user", "nova") == Choices("openvswitch", "nova")


def test_a_cloud_that_is_there_keeps_its_choice(settings: Settings) -> None:
    choose(settings, "--firewall", "openvswitch")
    settings.data.mkdir(parents=True)
    assert choose(settings) == choose(settings, "--firewall", "openvswitch")
    with pytest.raises(AioError, match="cannot change") as refused:
        choose(settings, "--firewall", "iptables_hybrid")
    assert refused.value.hint == (
        "python3 aio down; python3 aio up --firewall iptables_hybrid --user root"
    )
    assert settings.choices.firewall == "openvswitch"


def test_down_forgets_it(settings: Settings) -> None:
    choose(settings, "--firewall", "openvswitch")
    stages.run_stages(teardown.DOWN[-1:], Cloud(settings), Reporter())
    assert settings.choices == Choices()


def test_status_tells_it(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    choose(settings, "--firewall", "openvswitch")
    cli.status(settings)
    assert capsys.readouterr().out.endswith("\nup --firewall openvswitch --user root\n")


@pytest.mark.parametrize("firewall", choices.FIREWALLS)
def test_server_and_agent_of_neutron_get_the_firewall(settings: Settings, firewall: str) -> None:
    choose(settings, "--firewall", firewall)
    files = config.all_files(settings)
    for name in ("ml2_conf.ini", "openvswitch_agent.ini"):
        found = configparser.ConfigParser(interpolation=None)
        found.read_string(files[settings.etc / "neutron" / name])
        assert found["securitygroup"]["firewall_driver"] == firewall


def test_an_unknown_firewall_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        choices.parse(["--firewall", "nftables"])
    assert "nftables" in capsys.readouterr().err
