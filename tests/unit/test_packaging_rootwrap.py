"""Our rootwrap filters let exactly our privsep daemons start as root.

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


def command(context: str, socket: str = "/tmp/tmpab12_xyz/privsep.sock") -> list[str]:
    section = SECTIONS.get(context, "nova_lxd_privileged")
    tail = ["--privsep_context", context, "--privsep_sock_path", socket]
    return [*helper(section), *tail]


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_samples_commands_pass(context: str) -> None:
    assert allowed(command(context))


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


def test_a_configuration_of_the_callers_own_is_refused() -> None:
    asked = [re.sub(r"/etc/nova/.*", "/tmp/nova.conf", word) for word in command(CONTEXTS[0])]

    assert not allowed(asked)
    asked = [
        re.sub(r"/etc/nova/.*", "/etc/nova/../../tmp/a.conf", word) for word in command(CONTEXTS[0])
    ]
    assert not allowed(asked)
