"""What the benchmarks of ports share: an Open vSwitch of their own, and ports for both contestants.

The switch has the userspace datapath, as the cloud's: what passes it is slow, for all alike.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import os_vif
from nova.network import model as network_model
from nova.network import os_vif_util
from vif_plug_ovs import privsep as osvif_privsep
from vif_plug_ovs.ovsdb import impl_idl

from aio import kernel
from aio.ovs import OvsDaemon
from benchmarks.contest import CONF
from nova_lxd import privsep

WIRINGS = ("hybrid", "native")
BRIDGE = "br-nlb"
MTU = 1450
_TAGS = "nova.objects.virtual_interface.VirtualInterfaceList.get_by_instance_uuid"


@dataclass(frozen=True)
class Wires:
    """An Open vSwitch, and the names of what is plugged into it."""

    ovs: OvsDaemon
    prefix: str
    """What the ids of all ports begin with: their devices tell whose they are."""

    def port(self, wiring: str, number: int) -> network_model.VIF:
        """Order a port as Nova does when Neutron has bound it."""
        id_ = f"{self.prefix}{number:04x}-0000-4000-8000-000000000000"
        network = network_model.Network(
            id="9d1c2cf0-0f4b-4b5e-9a39-7d8f0c3f1a00", bridge=BRIDGE, subnets=[], mtu=MTU
        )
        return network_model.VIF(
            id=id_,
            ovs_interfaceid=id_,
            address=f"fa:16:3e:00:{number // 256:02x}:{number % 256:02x}",
            network=network,
            type=network_model.VIF_TYPE_OVS,
            devname=f"tap{id_[:11]}",
            details={
                network_model.VIF_DETAILS_OVS_HYBRID_PLUG: wiring == "hybrid",
                network_model.VIF_DETAILS_OVS_DATAPATH_TYPE: self.ovs.datapath,
            },
            active=True,
            delegate_create=True,
        )


@contextlib.contextmanager
def wires() -> Iterator[Wires]:
    """Start an Open vSwitch and lead os-vif to it; remove it and all that was plugged."""
    prefix = secrets.token_hex(2)
    with _helpers(), tempfile.TemporaryDirectory(prefix="nlb", dir="/var/tmp") as folder:
        ovs = OvsDaemon(Path(folder) / "ovs", manager_port=_free_port(), datapath="dummy")
        try:
            ovs.start()
            ovs.add_bridge(BRIDGE)
            _lead_os_vif_to(ovs.db)
            # What Nova's conductor says when it is asked for the tags of ports.
            with mock.patch(_TAGS, return_value=[]):
                yield Wires(ovs, prefix)
        finally:
            if connection := impl_idl.NeutronOvsdbIdl._ovsdb_connection:
                connection.stop(30)
            ovs.purge()
            _remove_links(prefix)


def raw_plug(instance: Any, vif: network_model.VIF) -> None:
    """Plug as somebody does who has os-vif; a native port's pair is nobody's, so it is made here.

    Nothing keeps the host's IPv6 off the wires, and nothing the guest's unfinished checksums.
    """
    if not vif.is_hybrid_plug_enabled():
        pair = ["type", "veth", "peer", "name", device("tin", vif), "mtu", str(MTU)]
        ip("link", "add", vif["devname"], "mtu", str(MTU), *pair)
        ip("link", "set", vif["devname"], "up")
    os_vif.plug(*_for_os_vif(instance, vif))


def raw_unplug(instance: Any, vif: network_model.VIF) -> None:
    """Unplug as somebody does who has os-vif."""
    os_vif.unplug(*_for_os_vif(instance, vif))


def nic(vif: network_model.VIF, name: str = "eth0") -> dict[str, str]:
    """Describe to LXD a NIC on a port that is plugged."""
    if vif.is_hybrid_plug_enabled():
        wire = {"nictype": "bridged", "parent": device("qbr", vif), "host_name": vif["devname"]}
    else:
        wire = {"nictype": "physical", "parent": device("tin", vif)}
    return {"type": "nic", **wire, "name": name, "hwaddr": vif["address"], "mtu": str(MTU)}


def device(kind: str, vif: network_model.VIF) -> str:
    """Name one of the devices of a port, as Nova and Neutron do."""
    return f"{kind}{vif['id'][:11]}"


def ip(*words: str) -> None:
    """Run iproute2."""
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def _helpers() -> Iterator[None]:
    """Lend both contestants the privileged helpers, started as by a nova-compute of root's.

    Ctrl-C is for us: what we undo then may still need them.
    """
    contexts = (privsep.net_admin, osvif_privsep.vif_plug)
    root, program = Path(__file__).resolve().parents[1], Path(sys.executable).parent
    helper = f"env PYTHONPATH={root} PYTHONWARNINGS=ignore {program}/privsep-helper"
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for context in contexts:
            CONF.set_override("helper_command", helper, context.cfg_section)
            context.start()
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        for context in reversed(contexts):
            context.stop()


def _lead_os_vif_to(database: str) -> None:
    # Its plugins read their options once, at their start.
    os_vif.initialize()
    CONF.set_override("ovsdb_connection", database, "os_vif_ovs")
    os_vif.initialize(reset=True)


def _for_os_vif(instance: Any, vif: network_model.VIF) -> tuple[Any, Any]:
    return os_vif_util.nova_to_osvif_vif(vif), os_vif_util.nova_to_osvif_instance(instance)


def _remove_links(prefix: str) -> None:
    for name in kernel.links():
        if re.fullmatch(rf"(tap|tin|qbr|qvb|qvo){prefix}.*", name):
            kernel.delete_link(name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
