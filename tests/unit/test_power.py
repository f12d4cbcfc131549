"""On and off: how long a guest is asked, what a repair writes, what resuming does."""

from __future__ import annotations

import pytest
from nova import exception as nova_exception
from nova.compute import power_state, task_states

from nova_lxd import exception
from nova_lxd.virt import network, power
from tests.fake_lxd import Fault

from .compute_host import Host

pytestmark = pytest.mark.usefixtures("options")


@pytest.fixture
def host(tmp_path, ports):
    host = Host(tmp_path, ports)
    host.spawn()
    yield host
    host.close()


@pytest.mark.parametrize(("wanted", "seconds"), [(None, 1), (7, 7)])
def test_a_soft_reboot_gives_the_guest_its_time(host, monkeypatch, wanted, seconds):
    asked = []
    monkeypatch.setattr(host.driver._power, "off", lambda *args: asked.append(args[1]))
    if wanted:
        host.order.instance.system_metadata["image_os_shutdown_timeout"] = str(wanted)
    host.reboot("SOFT")
    host.reboot("HARD")
    assert asked == [seconds, 0]


@pytest.fixture
def puts(host, monkeypatch):
    """The profiles and instances that are written to LXD; switching is left out."""
    operate, seen = host._session.operate, []

    def watch(method, *path, **more):
        if method == "PUT" and path[-1] != "state":
            seen.append(path[0])
        return operate(method, *path, **more)

    monkeypatch.setattr(host._session, "operate", watch)
    return seen


def test_a_hard_reboot_writes_only_what_is_wrong(host, puts):
    host.reboot("HARD")
    assert puts == []
    project = host.lxd.state.projects["nova"]
    instance = project.instances[host.order.name]
    (name,) = instance.profiles
    profile = project.profiles[name]
    wanted = profile.config["limits.memory"]
    profile.config["limits.memory"] = "1MiB"
    host.reboot("HARD")
    assert puts == ["profiles"]
    assert project.profiles[name].config["limits.memory"] == wanted
    devices = dict(instance.devices)
    instance.devices.clear()
    host.reboot("HARD")
    assert puts == ["profiles", "instances"]
    assert instance.devices == devices


def test_a_stopped_server_is_resumed_by_a_start(host):
    host.pause()
    host.power_off()
    host.driver.resume(host.order.context, host.order.instance, host.order.network_info)
    assert host.power_state() == power_state.RUNNING


def test_a_repair_never_maps_a_guest_to_the_ids_of_the_host(host):
    instance = host.lxd.state.projects["nova"].instances[host.order.name]
    base = instance.config["security.idmap.base"]
    assert int(base) > 0
    # As LXD leaves it when the profile is taken off an instance.
    instance.config["volatile.idmap.base"] = "0"
    host.reboot("HARD")
    assert instance.config["security.idmap.base"] == base
    instance.config["volatile.idmap.base"] = "0"
    del instance.config["security.idmap.base"]
    with pytest.raises(nova_exception.NovaException, match=r"security\.idmap\.base"):
        host.reboot("HARD")
    assert instance.config.get("security.idmap.base") != "0"


def test_a_guest_that_cannot_be_asked_is_stopped_at_once(host, monkeypatch):
    change, asked = host._session.change_state, []

    def refuse(name, action, *, force=False, timeout=None):
        if timeout:
            asked.append(timeout)
            raise exception.LXDError("the container is frozen")
        change(name, action, force=force)

    monkeypatch.setattr(host._session, "change_state", refuse)
    host.driver.power_off(host.order.instance, timeout=60, retry_interval=10)
    assert asked == [10]
    assert host.power_state() == power_state.SHUTDOWN


def test_a_server_that_cannot_be_frozen_keeps_its_network(host, ports, monkeypatch):
    (vif,) = host.order.network_info
    wire = f"qvb{vif['id'][:11]}"
    monkeypatch.setattr(network, "_has_link", lambda device: device == wire)
    monkeypatch.setattr(network, "_is_up", lambda device: device not in ports.down)
    host.pause()
    assert ports.down == {wire}
    host.unpause()
    assert ports.down == set()
    host.lxd.faults.fail(lambda method, path: method == "PUT", Fault.HTTP_500)
    with pytest.raises(nova_exception.NovaException):
        host.pause()
    assert ports.down == set()


@pytest.mark.parametrize("task", power._FOR_REMOVAL)
def test_what_is_to_go_may_be_gone(host, task):
    host.destroy()
    host.order.instance.task_state = task
    host.power_off()
    host.order.instance.task_state = task_states.POWERING_OFF
    with pytest.raises(nova_exception.InstanceNotFound, match=r"no such container .*instance-"):
        host.power_off()
