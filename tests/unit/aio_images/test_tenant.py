"""What a tenant makes is taken away again, whatever happens."""

from __future__ import annotations

import pytest

from aio import tenant as tenant_module
from aio.api import ApiError
from aio.errors import AioError
from aio.tenant import Tenant, suppress_gone
from aio.terminal import Terminal
from aio.traces import difference
from tests.unit.aio_images.fakes import FakeApi


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def tenant(api, monkeypatch):
    monkeypatch.setattr(tenant_module.time, "sleep", lambda seconds: None)
    return Tenant(None, api)


def test_takes_down_in_reverse_order(tenant):
    order = []
    for name in ("first", "second", "third"):
        tenant.later(name, lambda name=name: order.append(name))
    assert tenant.take_down() == []
    assert order == ["third", "second", "first"]


def test_network_and_subnet_go(tenant, api):
    network = tenant.network("n", "10.0.0.0/24")
    assert [f"/subnets/{subnet}" in api.things for subnet in network["subnets"]] == [True]
    assert tenant.take_down() == []
    assert api.things == {}


def test_goes_on_after_a_failure_and_names_it(tenant, api):
    tenant.group("one")
    tenant.network("n", "10.0.0.0/24")
    api.broken.add(("DELETE", "/subnets"))
    (problem,) = tenant.take_down()
    assert problem.startswith("subnet n: ")
    assert [key.split("/")[1] for key in api.things] == ["subnets"]


def test_what_is_gone_already_is_no_problem(tenant, api):
    tenant.group("one")
    api.things.clear()
    assert tenant.take_down() == []


def test_what_is_in_use_is_asked_again(tenant, api):
    group = tenant.group("one")
    api.busy[f"/security-groups/{group['id']}"] = 3
    assert tenant.take_down() == []
    assert api.things == {}


def test_what_stays_in_use_is_given_up(tenant, api, monkeypatch):
    monkeypatch.setattr(tenant_module, "SECONDS", 0)
    group = tenant.group("one")
    api.busy[f"/security-groups/{group['id']}"] = 10**6
    (problem,) = tenant.take_down()
    assert "409" in problem


def test_suppress_gone_hides_nothing_else():
    with suppress_gone():
        raise ApiError(404, "gone")
    with pytest.raises(ApiError), suppress_gone():
        raise ApiError(500, "broken")


def test_difference_names_what_is_new():
    before = {"ip link": frozenset({"lo"}), "lxc list": frozenset()}
    after = {"ip link": frozenset({"lo", "tap1"}), "lxc list": frozenset({"instance-1"})}
    assert difference(before, after) == ["ip link: tap1", "lxc list: instance-1"]
    assert difference(after, before) == []


class NoCloud(Terminal):
    """A terminal without a cloud behind it."""

    def __init__(self, folder):
        self._folder = folder
        self._env = {"PATH": "/usr/bin:/bin"}


def test_terminal_shows_command_and_answer(tmp_path, capsys):
    assert NoCloud(tmp_path).value("echo hello") == "hello"
    assert capsys.readouterr().out == "\n$ echo hello\nhello\n"


@pytest.mark.parametrize(("command", "fails"), [("false", False), ("true", True)])
def test_terminal_stops_the_story_when_it_comes_out_otherwise(tmp_path, command, fails):
    with pytest.raises(AioError, match=command):
        NoCloud(tmp_path).type(command, fails=fails)


def test_terminal_waits_for_no_command_for_ever(tmp_path):
    with pytest.raises(AioError, match="longer than 0 s"):
        NoCloud(tmp_path).type("sleep 60", seconds=0.2)
