"""Interfaces that come to a server and go while it is there."""

from __future__ import annotations

import functools
from typing import Any

from oslo_log import log as logging

from nova_lxd import exception
from nova_lxd.virt import devicetags, network
from nova_lxd.virt import vif as vif_translator
from nova_lxd.virt.container import Containers
from nova_lxd.virt.copies import vifs_of
from nova_lxd.virt.model import Devices, Vif
from nova_lxd.virt.session import Session
from nova_lxd.virt.undo import Undo

LOG = logging.getLogger(__name__)


class Interfaces:
    """Gives servers NICs and takes them away, whether they run or not."""

    def __init__(self, session: Session, containers: Containers) -> None:
        self._session = session
        self._containers = containers

    def attach(self, context: Any, instance: Any, nova_vif: Any) -> None:
        """Give a server one more NIC, or leave it as it was.

        Nova's caller waits for the answer, so it is not held back until Neutron has wired the port.

        :raises Refused: the port cannot be wired to a container
        :raises NotFound: the server has no container
        """
        (vif,) = vifs_of(instance, [nova_vif])
        vif_translator.check(vif)
        name = self._containers.current(instance).name
        others = [other for other in instance.get_network_info() if other["id"] != vif.port_id]
        with Undo(instance) as undo:
            undo.add("port", functools.partial(network.unplug, instance, [nova_vif]))
            network.remove_stale_taps([vif])
            network.plug(instance, [nova_vif])
            undo.add("NIC", functools.partial(self._remove, name, vif))
            self._session.change_devices(name, functools.partial(_with_nic, vif=vif))
            devicetags.record(context, instance, [*others, nova_vif])

    def detach(self, instance: Any, nova_vif: Any) -> None:
        """Take a NIC from a server; one that it has not is success.

        A NIC that LXD does not give away keeps its wires, since the server still has it.

        :raises NotFound: the server has no container; the port is unplugged
        """
        (vif,) = vifs_of(instance, [nova_vif])
        try:
            self._remove(self._containers.current(instance).name, vif)
        except exception.NotFound:
            network.unplug(instance, [nova_vif])
            raise
        network.unplug(instance, [nova_vif])
        devicetags.forget(instance, vif.mac)

    def _remove(self, name: str, vif: Vif) -> None:
        self._session.change_devices(name, functools.partial(_without_nic, vif=vif))


def _with_nic(devices: Devices, vif: Vif) -> Devices:
    """Add a NIC under the first name that is free inside; a repetition changes nothing."""
    others = _without_nic(devices, vif)
    taken = {device.get("name", "") for device in others.values()}
    names = {vif.devname: devices.get(vif.devname, {}).get("name", vif_translator.free_name(taken))}
    return others | vif_translator.devices([vif], names)


def _without_nic(devices: Devices, vif: Vif) -> Devices:
    return {key: device for key, device in devices.items() if key != vif.devname}
