"""Servers share profiles: one is there as long as a server has it, or is about to."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from nova_lxd import exception
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.model import InstanceSpec

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
    """Return what has LXD refuse one kind of request as often as told."""
    session = host.driver._session

    def fail(method, times):
        left = [True] * times
        real = getattr(session, method)

        def failing(*arguments):
            if left:
                left.pop()
                raise exception.LXDUnreachable("LXD is away")
            return real(*arguments)

        monkeypatch.setattr(session, method, failing)

    return fail


def test_a_removal_asks_for_no_list(host, failing):
    build(host)
    failing("unused_profiles", 3)
    host.destroy()
    assert not profiles(host)


def test_a_removal_tries_again(host, failing):
    build(host)
    failing("delete_profile", 1)
    failing("unused_profiles", 2)
    host.destroy()
    assert not profiles(host)


def test_what_a_removal_left_goes_with_the_next_one(host, failing):
    first, _ = build(host), build(host)
    shared = host.driver._containers.profiles
    with shared.used(SPEC):
        pass
    failing("unused_profiles", 3)
    shared.tidy()
    assert SPEC.profile in profiles(host)
    host.destroy()
    assert len(profiles(host)) == 1
    host.order = first
    host.destroy()
    assert not profiles(host)


def test_a_removal_that_failed_for_its_profile_succeeds_the_next_time(host, failing):
    build(host)
    failing("delete_profile", 1)
    failing("unused_profiles", 3)
    with pytest.raises(Exception, match="LXD is away"):
        host.destroy()
    assert len(profiles(host)) == 1
    host.destroy()
    assert not profiles(host)


def test_a_repair_does_not_fail_for_it(host, failing):
    build(host)
    failing("unused_profiles", 3)
    host.reboot("HARD")
    assert len(profiles(host)) == 1


def test_a_rescue_container_takes_its_own_profile_along(host):
    """Which is another than the server's when the host's facts have changed in between."""
    build(host)
    host.rescue()
    session = host.driver._session
    session.create_profile(SPEC.profile, {}, {})
    rescue = instance_translator.rescue_name(host.order.instance.name)
    host.lxd.state.projects[PROJECT].instances[rescue].profiles = [SPEC.profile]
    host.destroy()
    assert not profiles(host)


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
