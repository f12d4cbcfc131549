"""What the metadata is to say of tagged ports."""

from __future__ import annotations

from unittest import mock

import pytest
from nova import objects

from nova_lxd.virt import devicetags
from tests.unit import servers


@pytest.fixture
def order():
    return servers.order(port_ids=[servers.new_id(), servers.new_id()])


def record(order, tags, network_info=None):
    vifs = [
        objects.VirtualInterface(uuid=port, tag=tag)
        for port, tag in zip(order.port_ids, tags, strict=True)
    ]
    info = order.network_info if network_info is None else network_info
    with (
        mock.patch.object(
            objects.VirtualInterfaceList, "get_by_instance_uuid", return_value=vifs
        ) as asked,
        mock.patch.object(objects.Instance, "save") as save,
    ):
        devicetags.record(order.context, order.instance, info)
    return asked.call_count, save.call_count


def test_each_tag_has_its_mac(order):
    info = order.network_info
    info[1]["address"] = "fa:16:3e:00:00:02"
    assert record(order, [None, "public"], info) == (1, 1)
    (device,) = order.instance.device_metadata.devices
    assert (device.mac, device.tags) == ("fa:16:3e:00:00:02", ["public"])
    assert "bus" not in device


def test_without_tags_nothing_is_written(order):
    assert record(order, [None, None]) == (1, 0)
    assert "device_metadata" not in order.instance


def test_without_ports_nobody_is_asked(order):
    assert record(order, ["a", "b"], []) == (0, 0)
