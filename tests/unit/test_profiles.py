"""Servers share profiles: one is there as long as a server has it, or is about to."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import tenacity

from nova_lxd import exception
from nova_lxd.virt.model import InstanceSpec
from nova_lxd.virt.profiles import Profiles

from . import servers
from .compute_host import PROJECT, Host

SPEC = InstanceSpec("instance-1", "", "flavor-0123456789abcdef", {}, {}, {}, {})
pytestmark = pytest.mark.usefixtures("options")


@pytest.fixture
def host(tmp_path, ports):
    with contextlib.closing(Host(tmp_path / "host", ports)) as host:
        yield host


def profiles(host):
    """Return what there is beside LXD's own."""
    return host.lxd.state.projects[PROJECT].profiles.keys() - {"default"}


def build(host):
    host.order = servers.order()
    host.spawn()
    return host.order


def test_two_servers_of_a_flavor_share_one(host):
    first, _ = build(host), build(host)
    assert len(profiles(host)) == 1
    host.destroy()
    assert len(profiles(host)) == 1
    host.order = first
    host.destroy()
    assert not profiles(host)


def test_one_that_was_changed_by_hand_is_right_for_the_next_server(host):
    build(host)
    (name,) = profiles(host)
    profile = host.lxd.state.projects[PROJECT].profiles[name]
    wanted = dict(profile.config)
    profile.config["limits.memory"] = "1MiB"
    build(host)
    assert host.lxd.state.projects[PROJECT].profiles[name].config == wanted


def test_one_that_a_server_is_about_to_have_stays(host):
    shared = host.driver._containers.profiles
    with shared.used(SPEC):
        shared.sweep()
        assert profiles(host) == {SPEC.profile}
    shared.sweep()
    assert not profiles(host)


def test_others_profiles_are_left_alone(host):
    host.driver._session.create_profile("web", {}, {})
    build(host)
    host.destroy()
    assert profiles(host) == {"web"}


@pytest.fixture
def failing(host, monkeypatch):
    monkeypatch.setattr(Profiles.sweep.retry, "wait", tenacity.wait_none())
    session = host.driver._session
    real = session.unused_profiles

    def fail(times):
        left = [True] * times

        def unused_profiles():
            if left:
                left.pop()
                raise exception.LXDUnreachable("LXD is away")
            return real()

        monkeypatch.setattr(session, "unused_profiles", unused_profiles)

    return fail


def test_a_removal_tries_again(host, failing):
    build(host)
    failing(2)
    host.destroy()
    assert not profiles(host)


def test_what_a_removal_left_goes_with_the_next_one(host, failing):
    build(host)
    failing(3)
    with pytest.raises(Exception, match="LXD is away"):
        host.destroy()
    assert len(profiles(host)) == 1
    host.destroy()
    assert not profiles(host)


def test_a_repair_does_not_fail_for_it(host, failing):
    build(host)
    failing(3)
    host.reboot("HARD")
    assert len(profiles(host)) == 1


def test_many_come_and_go_at_once(host):
    """A profile is never deleted under a server that is on its way."""
    shared = host.driver._containers.profiles

    def life(_):
        with shared.used(SPEC):
            present = SPEC.profile in profiles(host)
        shared.sweep()
        return present

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(life, range(40)))
    assert not profiles(host)
