"""etc/: the sample is what the options generate, it loads, and it tells the truth about Nova's."""

from __future__ import annotations

import importlib.util
import pathlib
import re
from collections.abc import Iterator

import oslo_messaging.opts
import pytest
from oslo_config import cfg

import nova_lxd.conf

ETC = pathlib.Path(__file__).resolve().parents[2] / "etc"
SAMPLE = ETC / "nova-compute.conf.sample"
PRIVSEP_SECTIONS = (
    "nova_lxd_privileged",
    "vif_plug_ovs_privileged",
    "nova_lxd_console_privileged",
)


def test_sample_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("genconfig", ETC / "genconfig.py")
    assert spec is not None
    assert spec.loader is not None
    genconfig = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(genconfig)

    assert SAMPLE.read_text() == genconfig.sample(), "run: tox -e genconfig"


def test_every_option_of_ours_is_in_the_sample() -> None:
    lxd = SAMPLE.read_text().partition("\n[lxd]\n")[2]

    assert {f"#{option.name}" for option in nova_lxd.conf.OPTIONS} == set(
        re.findall(r"^#\w+(?= = |=| =$)", lxd, re.MULTILINE)
    )


def test_sample_loads() -> None:
    conf = cfg.ConfigOpts()
    nova_lxd.conf.register_opts(conf)
    conf.register_opt(cfg.StrOpt("compute_driver"))
    for section in PRIVSEP_SECTIONS:
        conf.register_opt(cfg.StrOpt("helper_command"), group=section)

    conf(["--config-file", str(SAMPLE)], default_config_files=[], default_config_dirs=[])

    assert conf.compute_driver == "lxd.LXDDriver"
    assert conf.lxd.project == "nova"
    assert all("privsep-helper" in conf[name].helper_command for name in PRIVSEP_SECTIONS)


def header_options() -> Iterator[tuple[str, str, str]]:
    """Yield section, name and value of the commented options that are Nova's."""
    section = "DEFAULT"
    for line in (ETC / "nova-compute.conf.header").read_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif option := re.fullmatch(r"#(\w+) = (.*)", line):
            yield section, option[1], option[2]


@pytest.mark.parametrize(("section", "name", "value"), header_options())
def test_commented_options_show_novas_defaults(section: str, name: str, value: str) -> None:
    from nova.conf import CONF

    for group, messaging in oslo_messaging.opts.list_opts():
        CONF.register_opts(messaging, group=group)  # as an RPC server does when it is made
    options = CONF if section == "DEFAULT" else CONF[section]
    assert name in options, f"Nova has no option [{section}] {name}"
    info = options._group._opts[name] if section != "DEFAULT" else CONF._opts[name]
    option = info["opt"]
    shown = option.sample_default or option.default
    assert value in {str(shown), str(shown).lower()}


def test_privsep_sections_are_those_of_the_contexts() -> None:
    import vif_plug_ovs.privsep

    import nova_lxd.privsep

    ours = nova_lxd.privsep
    contexts = (ours.net_admin, vif_plug_ovs.privsep.vif_plug, ours.console)
    assert tuple(context.cfg_section for context in contexts) == PRIVSEP_SECTIONS
