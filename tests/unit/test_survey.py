"""What was read of all servers is told of each, until something happens to it."""

from __future__ import annotations

import pytest
from nova import exception as nova_exception
from nova.compute import power_state

from nova_lxd.virt.model import InstanceState
from nova_lxd.virt.session import survey
from tests.fake_lxd import Fault

from .compute_host import Host

pytestmark = pytest.mark.usefixtures("options")

RUNNING = InstanceState(name="one", uuid="uuid-one", status="Running")


def filled():
    found = survey.Survey()
    found.fill([RUNNING])
    return found


def test_what_was_read_is_found():
    assert filled().find("one") is RUNNING
    assert filled().find("another") is None


def test_what_was_changed_is_not_found():
    found = filled()
    found.forget("one")
    assert found.find("one") is None


def test_what_was_changed_before_the_answer_came_is_not_found():
    found = survey.Survey()
    found.forget("one")
    found.fill([RUNNING])
    assert found.find("one") is None


def test_what_was_read_long_ago_is_not_found(monkeypatch):
    found = filled()
    now = survey.time.monotonic()
    monkeypatch.setattr(survey.time, "monotonic", lambda: now + survey.LASTS + 1)
    assert found.find("one") is None


@pytest.fixture
def host(tmp_path, ports):
    host = Host(tmp_path, ports)
    host.spawn()
    host.order.instance.power_state = power_state.RUNNING
    host.driver.get_num_instances()
    host.lxd.faults.forget_calls()
    yield host
    host.close()


def read(host, known=power_state.RUNNING, **how):
    """Ask for a server's power as Nova's power sync does; tell it with the number of requests."""
    host.order.instance.power_state = known
    host.lxd.faults.forget_calls()
    state = host.driver.get_info(host.order.instance, **how).state
    return state, len(host.lxd.calls)


def stop_outside(host):
    host.lxd.state.projects["nova"].instances[host.order.name].status = "Stopped"


def test_a_server_that_is_as_nova_knows_it_costs_no_request(host):
    assert read(host) == (power_state.RUNNING, 0)


def test_a_stopped_one_neither(host):
    host.power_off()
    host.driver.get_num_instances()
    assert read(host, power_state.SHUTDOWN) == (power_state.SHUTDOWN, 0)


def test_without_the_cache_lxd_is_asked(host):
    stop_outside(host)
    assert read(host, use_cache=False) == (power_state.SHUTDOWN, 2)


def test_what_nova_does_not_know_is_asked(host):
    stop_outside(host)
    host.driver.get_num_instances()
    assert read(host) == (power_state.SHUTDOWN, 2)
    assert read(host, known=None) == (power_state.SHUTDOWN, 2)


def test_a_server_that_was_switched_since_is_asked(host):
    host.pause()
    host.unpause()
    assert read(host) == (power_state.RUNNING, 1)


def test_so_is_one_of_which_nobody_knows_whether_it_was(host):
    host.lxd.faults.fail(0, Fault.DROPPED_AFTER)
    with pytest.raises(nova_exception.HypervisorUnavailable):
        host.pause()
    assert read(host) == (power_state.PAUSED, 1)


def test_a_rescued_server_is_asked(host):
    host.rescued()
    host.driver.get_num_instances()
    assert read(host) == (power_state.RUNNING, 2)


def test_a_server_that_is_new_since_is_asked(host):
    host.destroy()
    host.driver.get_num_instances()
    host.spawn()
    assert read(host) == (power_state.RUNNING, 1)
