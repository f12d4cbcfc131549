"""Device tags: which of its NICs a tenant gave which tag, told to the guest by Nova's metadata."""

from __future__ import annotations

from typing import Any

from nova import objects


def record(context: Any, instance: Any, network_info: Any) -> None:
    """Write into Nova's instance what its metadata is to say of tagged ports.

    A container's NIC is on no bus: Nova then says ``none``, and guests find it by its MAC address.
    """
    if not network_info:
        return
    vifs = objects.VirtualInterfaceList.get_by_instance_uuid(context, instance.uuid)
    tags = {vif.uuid: vif.tag for vif in vifs if vif.tag}
    devices = [
        objects.NetworkInterfaceMetadata(mac=vif["address"], tags=[tags[vif["id"]]])
        for vif in network_info
        if vif["id"] in tags
    ]
    if devices:
        instance.device_metadata = objects.InstanceDeviceMetadata(devices=devices)
        # The guest may ask before Nova saves a server that was built.
        instance.save()


def forget(instance: Any, mac: str) -> None:
    """Leave out of Nova's instance a NIC that the server has no more."""
    metadata = instance.device_metadata
    devices = list(metadata.devices) if metadata else []
    left = [device for device in devices if device.mac != mac]
    if left != devices:
        instance.device_metadata = objects.InstanceDeviceMetadata(devices=left)
        instance.save()
