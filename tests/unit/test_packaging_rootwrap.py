"""Our rootwrap filters and our line for sudo let exactly the privsep daemons start as root.

oslo.rootwrap 7 adds a filter of its own that passes any privsep-helper; it is left out here.
"""

from __future__ import annotations

import configparser
import pathlib
import re

import pytest
from oslo_rootwrap import wrapper

ETC = pathlib.Path(__file__).resolve().parents[2] / "etc"
SECTIONS = {
    "nova_lxd.privsep.net_admin": "nova_lxd_privileged",
    "vif_plug_ovs.privsep.vif_plug": "vif_plug_ovs_privileged",
    "nova_lxd.privsep.console": "nova_lxd_console_privileged",
}
CONTEXTS = tuple(SECTIONS)
NOVAS = ("nova.privsep.sys_admin_pctxt", "os_brick.privileged.default")


def helper(section: str) -> list[str]:
    """Return the sample's command for ``section`` as rootwrap receives it."""
    sample = configparser.RawConfigParser()
    sample.read(ETC / "nova-compute.conf.sample")
    command = sample[section]["helper_command"].split()
    assert command[:3] == ["sudo", "nova-rootwrap", "/etc/nova/rootwrap.conf"]
    return command[3:]


def allowed(command: list[str]) -> bool:
    filters = wrapper.load_filters([str(ETC / "nova" / "rootwrap.d")])
    ours = [rule for rule in filters if rule.name != "privsep-helper"]
    assert ours
    return any(rule.match(command) for rule in ours)


def sudo_allows(command: list[str]) -> bool:
    """Do as sudo does: its extended expressions mean in Python what they mean there."""
    (line,) = (ETC / "sudoers.d" / "nova-lxd").read_text().splitlines()[-1:]
    rule, _, arguments = line.partition(" ^")
    assert rule == "nova ALL = (root) NOPASSWD: /usr/bin/nova-rootwrap"
    words = ["/etc/nova/rootwrap.conf", *command]
    return bool(re.fullmatch(arguments.removesuffix("$"), " ".join(words)))


def command(context: str, socket: str = "/tmp/tmpab12_xyz/privsep.sock") -> list[str]:
    section = SECTIONS.get(context, "nova_lxd_privileged")
    tail = ["--privsep_context", context, "--privsep_sock_path", socket]
    return [*helper(section), *tail]


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_samples_commands_pass(context: str) -> None:
    assert allowed(command(context))
    assert sudo_allows(command(context))


@pytest.mark.parametrize("context", NOVAS)
def test_sudo_lets_novas_own_helpers_start_with_both_files(context: str) -> None:
    more = ["--config-file", "/etc/nova/nova-compute.conf"]
    asked = command(context)

    assert sudo_allows(asked)
    assert sudo_allows([*asked[:3], *more, *asked[3:]])


def test_the_sample_of_rootwraps_configuration_finds_the_filters() -> None:
    sample = configparser.RawConfigParser()
    sample.read(ETC / "nova" / "rootwrap.conf.sample")
    found = wrapper.RootwrapConfig(sample)

    assert "/etc/nova/rootwrap.d" in found.filters_path
    assert "/usr/bin" in found.exec_dirs
    assert found.use_syslog


@pytest.mark.parametrize(
    "refused",
    [
        command("os.system"),
        command("nova_lxdxprivsep.net_admin"),
        command("nova_lxd.privsep.net_admin", "/root/privsep.sock"),
        command("nova_lxd.privsep.net_admin", "/tmp/../etc/tmpab12_xyz/privsep.sock"),
        [*command("nova_lxd.privsep.net_admin"), "--debug"],
        ["privsep-helper"],
        ["sh", "-c", "id"],
    ],
    ids=" ".join,
)
def test_anything_else_is_refused(refused: list[str]) -> None:
    assert not allowed(refused)
    assert not sudo_allows(refused)


@pytest.mark.parametrize("other", ["/tmp/nova.conf", "/etc/nova/../../tmp/a.conf"])
def test_a_configuration_of_the_callers_own_is_refused(other: str) -> None:
    asked = [re.sub(r"/etc/nova/.*", other, word) for word in command(CONTEXTS[0])]

    assert other in asked
    assert not allowed(asked)
    assert not sudo_allows(asked)
