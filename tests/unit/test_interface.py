"""Interfaces that come and go: whatever fails, the server has all of one or nothing of it."""

from __future__ import annotations

import contextlib
from unittest import mock

import pytest
from nova import exception as nova_exception
from nova import objects
from nova.network import model as network_model

from tests.fake_lxd import Fault

from . import servers
from .compute_host import PROJECT, Host

pytestmark = pytest.mark.usefixtures("options")

CHANGE = (Fault.HTTP_500, Fault.OPERATION_FAILURE, Fault.DROPPED)
"""What LXD may answer to a change that it does not make."""


@pytest.fixture
def host(tmp_path, ports):
    with (
        contextlib.closing(Host(tmp_path / "host", ports)) as host,
        mock.patch.object(objects.VirtualInterfaceList, "get_by_instance_uuid", return_value=[]),
    ):
        host.spawn()
        host.order.instance.device_metadata = None
        yield host


@pytest.fixture
def own(host):
    return host.lxd.state.projects[PROJECT].instances[host.order.name]


@pytest.fixture
def vif():
    return port("fa:16:3e:00:00:02")


def port(mac, **changes):
    (vif,) = servers.order().network_info
    return network_model.VIF(**{**vif, "address": mac, **changes})


def attach(host, vif):
    order = host.order
    host.driver.attach_interface(order.context, order.instance, order.image_meta, vif)


def detach(host, vif):
    host.driver.detach_interface(host.order.context, host.order.instance, vif)


def put(method: str, path: str) -> bool:
    return method == "PUT"


def names(instance):
    return {key: nic["name"] for key, nic in instance.devices.items() if nic["type"] == "nic"}


def test_it_comes_and_goes(host, own, ports, vif):
    before = dict(own.devices)
    attach(host, vif)
    assert own.devices[vif["devname"]]["name"] == "eth1"
    assert vif["id"] in ports.plugged
    detach(host, vif)
    assert own.devices == before
    assert vif["id"] not in ports.plugged


def test_the_first_free_name_is_taken(host, own, vif):
    first, *_ = names(own)
    attach(host, vif)
    detach(host, host.order.network_info[0])
    another = port("fa:16:3e:00:00:03")
    attach(host, another)
    assert names(own) == {vif["devname"]: "eth1", another["devname"]: "eth0"}
    assert first not in own.devices


def test_a_repetition_changes_nothing(host, own, vif):
    attach(host, vif)
    before = dict(own.devices)
    attach(host, vif)
    assert own.devices == before


@pytest.mark.parametrize("kind", CHANGE)
def test_an_attach_that_fails_leaves_nothing(host, own, ports, vif, kind):
    devices, plugged = dict(own.devices), set(ports.plugged)
    # What is not known to have failed is tried again.
    host.lxd.faults.fail(put, kind, times=3)
    with pytest.raises(nova_exception.InterfaceAttachFailed, match="not attached"):
        attach(host, vif)
    assert (own.devices, ports.plugged) == (devices, plugged)


@pytest.mark.parametrize("kind", CHANGE)
def test_a_detach_that_fails_leaves_everything(host, own, ports, vif, kind):
    attach(host, vif)
    devices, plugged = dict(own.devices), set(ports.plugged)
    host.lxd.faults.fail(put, kind, times=3)
    with pytest.raises(nova_exception.InterfaceDetachFailed, match="not detached"):
        detach(host, vif)
    assert (own.devices, ports.plugged) == (devices, plugged)


@pytest.mark.parametrize("change", [attach, detach])
def test_only_the_answer_is_lost(host, own, ports, vif, change):
    if change is detach:
        attach(host, vif)
    host.lxd.faults.fail(put, Fault.DROPPED_AFTER)
    change(host, vif)
    there = change is attach
    assert (vif["devname"] in own.devices, vif["id"] in ports.plugged) == (there, there)


def test_os_vif_fails(host, own, ports, vif):
    before = dict(own.devices)
    ports.failing = {ports.calls}
    with pytest.raises(nova_exception.InterfaceAttachFailed, match="could not be plugged"):
        attach(host, vif)
    assert own.devices == before
    assert vif["id"] not in ports.plugged


def test_a_port_that_cannot_be_wired_is_refused(host, own):
    before = dict(own.devices)
    with pytest.raises(nova_exception.InterfaceAttachFailed, match="macvtap"):
        attach(host, port("fa:16:3e:00:00:02", type="macvtap"))
    assert own.devices == before


def test_a_nic_that_is_gone_already(host, own, ports, vif):
    attach(host, vif)
    del own.devices[vif["devname"]]
    detach(host, vif)
    assert vif["id"] not in ports.plugged


@pytest.mark.parametrize("change", [attach, detach])
def test_a_server_that_is_gone(host, ports, vif, change):
    host.destroy()
    with pytest.raises(nova_exception.InstanceNotFound):
        change(host, vif)
    assert vif["id"] not in ports.plugged


def test_a_rescued_server_changes_where_its_nics_are(host, own, vif):
    host.rescued()
    twin = host.lxd.state.projects[PROJECT].instances[f"{own.name}-rescue"]
    attach(host, vif)
    assert list(names(twin).values()) == ["eth0", "eth1"]
    detach(host, vif)
    assert list(names(twin).values()) == ["eth0"]
    assert names(own) == {}


def test_a_tag_goes_with_its_nic(host, vif):
    instance = host.order.instance
    tagged = [objects.VirtualInterface(uuid=vif["id"], tag="wan")]
    with (
        mock.patch.object(
            objects.VirtualInterfaceList, "get_by_instance_uuid", return_value=tagged
        ),
        mock.patch.object(objects.Instance, "save"),
    ):
        attach(host, vif)
        (device,) = instance.device_metadata.devices
        assert (device.mac, device.tags) == (vif["address"], ["wan"])
        detach(host, vif)
        assert list(instance.device_metadata.devices) == []
