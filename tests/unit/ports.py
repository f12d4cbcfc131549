"""What os-vif and the privileged helper would do to the host, as a set of port ids."""

from __future__ import annotations

import contextlib
from unittest import mock

from os_vif import exception as osvif_exception


class Ports:
    """The ports that are plugged.

    :ivar down: the devices that are switched off
    :ivar calls: how often a port was plugged or unplugged
    :ivar failing: numbers of the calls, counted from 0, that fail
    """

    def __init__(self) -> None:
        self.plugged: set[str] = set()
        self.down: set[str] = set()
        self.calls = 0
        self.failing: set[int] = set()

    def plug(self, vif, instance_info) -> None:
        """Do what ``os_vif.plug`` does; harmless for a port that is plugged."""
        self._take_turn()
        self.plugged.add(vif.id)

    def unplug(self, vif, instance_info) -> None:
        """Do what ``os_vif.unplug`` does; harmless for a port that is not there."""
        self._take_turn()
        # All devices are named after the first eleven characters of the id.
        self.plugged -= {port for port in list(self.plugged) if port[:11] == vif.id[:11]}

    def switch(self, device, state) -> None:
        """Do what os-vif does to a link."""
        self.down = self.down - {device} if state == "up" else self.down | {device}

    def _take_turn(self) -> None:
        number, self.calls = self.calls, self.calls + 1
        if number in self.failing:
            raise osvif_exception.PlugException(vif="vif", err="injected fault")

    @contextlib.contextmanager
    def installed(self):
        """Put this in the place of os-vif and of the privileged helper."""
        names = {
            "vif_plug_ovs.linux_net.set_interface_state": self.switch,
            "os_vif.plug": self.plug,
            "os_vif.unplug": self.unplug,
            "nova_lxd.privsep.create_veth": lambda *arguments: None,
            "nova_lxd.privsep.shape": lambda device, discipline: None,
            "nova_lxd.privsep.start": lambda context: None,
            "nova_lxd.privsep.disable_ipv6": lambda devices: None,
            "nova_lxd.privsep.disable_tx_checksum": lambda device: None,
        }
        with contextlib.ExitStack() as stack:
            for name, stub in names.items():
                stack.enter_context(mock.patch(name, stub))
            yield self
