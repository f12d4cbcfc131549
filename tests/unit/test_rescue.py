"""Rescue: two containers that are one server."""

from __future__ import annotations

import contextlib

import pytest
from nova import exception as nova_exception
from nova import objects
from nova.compute import power_state, vm_states

from nova_lxd.virt import network
from tests.fake_lxd import Fault

from . import servers
from .compute_host import PROJECT, Host

pytestmark = pytest.mark.usefixtures("options")


@pytest.fixture
def host(tmp_path, ports):
    with contextlib.closing(Host(tmp_path / "host", ports)) as host:
        host.spawn()
        yield host


@pytest.fixture
def own(host):
    return host.lxd.state.projects[PROJECT].instances[host.order.name]


def twin(host):
    return host.lxd.state.projects[PROJECT].instances.get(f"{host.order.name}-rescue")


def image(**values):
    content = {"disk_format": "raw", "container_format": "bare", "size": len(servers.ROOTFS)}
    return objects.ImageMeta.from_dict(
        {"id": servers.new_id(), "name": "rescue", "properties": {}, **content, **values}
    )


def test_the_twin_has_the_servers_limits_owner_ids_and_nics(host, own):
    nics = dict(own.devices)
    host.rescued()
    other = twin(host)
    assert (own.status, other.status) == ("Stopped", "Running")
    assert own.profiles == other.profiles
    assert other.config["user.nova.uuid"] == host.order.uuid
    assert other.config["user.nova.role"] == "rescue"
    assert other.config["security.idmap.base"] == own.config["security.idmap.base"]
    root = {"type": "disk", "path": "/", "pool": "default", "size": "1040MiB"}
    assert own.devices == {"root": root}
    folder = f"{host.lxd.socket.parent}/storage-pools/default/containers/{PROJECT}_{own.name}"
    rescued = {"type": "disk", "source": f"{folder}/rootfs", "path": "/mnt/rescued"}
    assert other.devices == nics | {"rescued": rescued}


def test_unrescue_gives_back_what_was_taken(host, own):
    before = {**own.devices}
    host.rescued()
    host.unrescue()
    assert (own.status, own.devices, twin(host)) == ("Running", before, None)


def test_the_given_image_is_used(host):
    host.power_off()
    given = image()
    host.rescue(given)
    alias = host.lxd.state.projects[PROJECT].aliases[given.id]
    assert twin(host).config["volatile.base_image"] == alias.target


def test_nova_sees_one_server(host):
    host.rescued()
    assert host.driver.list_instances() == [host.order.name]
    assert host.driver.list_instance_uuids() == [host.order.uuid]
    assert host.driver.get_num_instances() == 1


def test_a_twin_without_its_server_is_still_the_servers(host, own):
    host.rescued()
    del host.lxd.state.projects[PROJECT].instances[own.name]
    assert host.driver.list_instances() == [own.name]
    assert host.driver.list_instance_uuids() == [host.order.uuid]
    host.destroy()
    assert host.remains() == []


def test_power_means_the_twin(host, own):
    host.rescued()
    host.power_off()
    assert (own.status, twin(host).status) == ("Stopped", "Stopped")
    assert host.power_state() == power_state.SHUTDOWN
    host.driver.resume_state_on_host_boot(
        host.order.context, host.order.instance, host.order.network_info, None
    )
    assert (own.status, twin(host).status) == ("Stopped", "Running")
    for kind in ("SOFT", "HARD"):
        host.reboot(kind)
        assert (own.status, set(own.devices), twin(host).status) == ("Stopped", {"root"}, "Running")


def test_the_log_is_the_rescue_boots_then_the_servers_again(host, own):
    def log():
        return host.driver.get_console_output(host.order.context, host.order.instance)

    own.console = b"my own\n"
    assert "my own" in log()
    host.rescued()
    twin(host).console = b"to the rescue\n"
    assert log() == "to the rescue\n"
    host.unrescue()
    own.console = b"my own again\n"
    assert log() == "my own again\n"


@pytest.mark.parametrize("action", ["power_on", "reboot"])
def test_a_server_that_is_not_called_rescued_starts_from_its_own_root(host, own, action):
    host.rescued()
    host.power_off()
    host.order.instance.vm_state = vm_states.ERROR
    getattr(host, action)()
    assert (own.status, twin(host)) == ("Running", None)
    assert set(own.devices) == {f"tap{host.order.port_ids[0][:11]}"}


def test_somebody_elses_container_of_that_name_is_left_alone(host, own):
    other = host.lxd.state.add_instance(PROJECT, f"{own.name}-rescue")
    host.power_off()
    with pytest.raises(nova_exception.InstanceExists):
        host.rescue()
    assert twin(host) is other
    assert host.power_state() == power_state.SHUTDOWN
    host.power_on()
    host.destroy()
    assert twin(host) is other


@pytest.mark.parametrize("name", ["hw_rescue_device", "hw_rescue_bus"])
def test_a_stable_device_rescue_is_refused(host, own, name):
    devices = dict(own.devices)
    with pytest.raises(nova_exception.InstanceNotRescuable, match="hw_rescue_bus"):
        host.rescue(image(properties={name: "disk" if "device" in name else "virtio"}))
    assert (own.status, own.devices, twin(host)) == ("Running", devices, None)


@pytest.mark.parametrize("driver", ["zfs", "lvm", "ceph"])
def test_a_pool_that_hides_stopped_containers_is_refused(host, own, driver):
    host.lxd.state.pools["default"].driver = driver
    host.lxd.faults.forget_calls()
    with pytest.raises(nova_exception.InstanceNotRescuable, match=f"'{driver}'.*btrfs and dir"):
        host.rescue()
    assert {call.method for call in host.lxd.calls} == {"GET"}


def test_an_image_that_is_refused_leaves_the_server_as_it_was(host, own):
    devices = dict(own.devices)
    host.power_off()
    with pytest.raises(nova_exception.ImageUnacceptable):
        host.rescue(image(disk_format="qcow2"))
    with pytest.raises(nova_exception.FlavorDiskSmallerThanImage):
        host.rescue(image(min_disk=2))
    assert (own.status, own.devices, twin(host)) == ("Stopped", devices, None)


def test_a_start_that_fails_leaves_the_server_as_it_was(host, own):
    devices = dict(own.devices)
    host.power_off()
    started = host.lxd.faults
    started.fail(
        lambda method, path: method == "PUT" and path.endswith("-rescue/state"),
        Fault.OPERATION_FAILURE,
        text="it will not start",
    )
    with pytest.raises(nova_exception.NovaException, match="it will not start"):
        host.rescue()
    assert (own.status, own.devices, twin(host)) == ("Stopped", devices, None)
    host.power_on()
    assert own.status == "Running"


@pytest.mark.parametrize("action", ["rescue", "unrescue", "power_on"])
def test_a_server_that_is_deleted_meanwhile_leaves_nothing(host, monkeypatch, action):
    host.power_off()
    if action == "unrescue":
        host.rescue()
    plug = network.plug

    def plug_too_late(*args):
        host.destroy()
        plug(*args)

    monkeypatch.setattr(network, "plug", plug_too_late)
    with pytest.raises(nova_exception.InstanceNotFound):
        getattr(host, action)()
    assert host.remains() == []
