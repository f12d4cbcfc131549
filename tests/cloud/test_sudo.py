"""sudo and rootwrap start the helpers of a nova-compute that is not root, and nothing else."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from oslo_rootwrap import wrapper

from aio import rootwrap

SOCKET = "/tmp/tmpab12_xyz/privsep.sock"
OURS = "nova_lxd.privsep.net_admin"


@pytest.fixture
def allows(settings):
    """Whether sudo lets the user of nova-compute run a command."""

    def answer(command: list[str]) -> bool:
        ask = ["sudo", "-n", "-l", "-U", settings.choices.user, "--", *command]
        return subprocess.run(ask, capture_output=True, check=False).returncode == 0

    return answer


@pytest.fixture
def helper(settings):
    """The command that starts the daemon of a context, as nova-compute writes it."""

    def command(context: str, socket: str = SOCKET) -> list[str]:
        words = shlex.split(rootwrap.helper(settings))
        return [*words[1:], "--privsep_context", context, "--privsep_sock_path", socket]

    return command


@pytest.fixture
def started(settings, web) -> list[list[str]]:
    """What nova-compute, which has booted a server, had to say to sudo."""
    log = (settings.log / "nova-compute.log").read_text()
    found = re.findall(r"Running privsep helper: \[(.*)\]", log)
    return [[word.strip(" '") for word in words.split(",")] for words in found]


def test_what_was_started_had_to_be_allowed(settings, allows, started):
    filters = wrapper.load_filters([str(settings.etc / "compute" / "rootwrap.d")])
    ours = [rule for rule in filters if rule.name != "privsep-helper"]  # that one passes them all
    assert len(started) >= 3
    for command in started:
        assert command[0] == "sudo"
        assert allows(command[1:])
        assert any(rule.match(command[3:]) for rule in ours), command


@pytest.mark.parametrize("context", ["os_brick.privileged.default", "nova.privsep.sys_admin_pctxt"])
def test_novas_own_helpers_are_allowed(allows, helper, context):
    assert allows(helper(context))


def test_another_helper_is_refused(allows, helper):
    assert allows(helper(OURS))
    assert not allows(helper("os.system"))
    assert not allows(helper(f"{OURS}.fake"))
    assert not allows(helper(OURS, "/root/privsep.sock"))
    assert not allows([*helper(OURS), "--debug"])


def test_another_configuration_is_refused(settings, allows, helper):
    conf = f"{settings.etc}/compute/nova.conf"
    for other in ("/tmp/nova.conf", f"{settings.etc}/compute/../../nova.conf"):
        assert not allows([other if word == conf else word for word in helper(OURS)])


def test_another_command_is_refused(allows, helper):
    for command in (["sh", "-c", "id"], [*helper(OURS)[:2], "sh", "-c", "id"], helper(OURS)[:2]):
        assert not allows(command)
