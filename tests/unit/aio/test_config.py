"""Configuration files: complete, private, and as an operator would write them."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aio import config, ini
from aio.settings import Settings

SAMPLE = """\
# About this file.

[DEFAULT]

# The driver.
#compute_driver = <None>

#my_ip = <HOST_IP_ADDRESS>

[lxd]

# Where LXD answers; for example endpoint = /here
#endpoint =

#pool = default
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / "cloud")


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True, allow_no_value=False)
    parser.read_string(text)
    return parser


def test_every_ini_file_is_complete_and_without_duplicates(settings: Settings) -> None:
    for path, text in config.all_files(settings).items():
        assert not re.search(r"^[^#]*\$", text, re.MULTILINE), path
        if path.suffix in (".conf", ".ini") and "rabbitmq" not in str(path):
            assert parsed(text).sections() or "[DEFAULT]" in text, path


def test_nova_compute_gets_no_database(settings: Settings) -> None:
    files = config.all_files(settings)
    for name in ("nova.conf", "nova-compute.conf"):
        text = files[settings.etc / "compute" / name]
        assert not {"database", "api_database"} & set(parsed(text).sections())
        assert "mysql" not in text
    assert "api_database" in parsed(files[settings.etc / "nova" / "nova.conf"])


def test_everything_listens_on_loopback(settings: Settings) -> None:
    for path, text in config.all_files(settings).items():
        assert "0.0.0.0" not in text, path
        if path.parent.name == "uwsgi":
            assert parsed(text)["uwsgi"]["http-socket"].startswith("127.0.0.1:"), path


def test_compute_conf_is_the_sample_with_the_operators_choices(settings: Settings) -> None:
    found = parsed(config.compute_conf(settings))
    assert found["DEFAULT"]["compute_driver"] == "lxd.LXDDriver"
    assert found["lxd"]["endpoint"] == str(settings.lxd / "unix.socket")
    assert found["lxd"]["pool"] == settings.lxd_pool
    for section in config.PRIVSEP:
        assert found[section]["helper_command"].startswith(settings.program("privsep-helper"))
    assert "sudo" not in found["vif_plug_ovs_privileged"]["helper_command"]


def test_an_option_is_uncommented_in_place() -> None:
    filled = ini.fill_sample(SAMPLE, {"DEFAULT": {"compute_driver": "lxd.LXDDriver"}})
    assert filled == SAMPLE.replace("#compute_driver = <None>", "compute_driver = lxd.LXDDriver")


def test_an_option_is_set_in_its_own_section_only() -> None:
    found = parsed(ini.fill_sample(SAMPLE, {"lxd": {"my_ip": "1.2.3.4", "endpoint": "/s"}}))
    assert dict(found["lxd"]) == {"my_ip": "1.2.3.4", "endpoint": "/s"}
    assert "my_ip" not in found.defaults()


def test_a_section_that_the_sample_lacks_comes_last() -> None:
    filled = ini.fill_sample(SAMPLE, {"new": {"a": "1"}})
    assert filled.startswith(SAMPLE)
    assert filled.endswith("[new]\na = 1\n")


words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
values = st.from_regex(r"[A-Za-z0-9/.:-]{1,12}", fullmatch=True)
options = st.dictionaries(words, values, min_size=1, max_size=4)


@given(chosen=st.dictionaries(st.sampled_from(["lxd", "x", "other"]), options, max_size=3))
def test_what_was_chosen_is_what_is_read(chosen: dict[str, dict[str, str]]) -> None:
    found = parsed(ini.fill_sample(SAMPLE, chosen))
    assert {name: dict(found[name]) for name in chosen} == chosen


def test_files_are_private_and_written_only_when_they_change(settings: Settings) -> None:
    settings.state.mkdir()
    assert len(config.write(settings)) == len(config.all_files(settings))
    assert config.write(settings) == []
    changed = settings.etc / "nova" / "nova.conf"
    changed.write_text("edited")
    assert config.write(settings) == [changed]
    assert changed.stat().st_mode & 0o077 == 0
    assert settings.etc.stat().st_mode & 0o077 == 0


def test_passwords_are_private_and_stay(settings: Settings) -> None:
    first = settings.passwords
    assert len(set(first.values())) == len(first)
    assert Settings(state=settings.state).passwords == first
    assert (settings.state / "secrets.json").stat().st_mode & 0o077 == 0
