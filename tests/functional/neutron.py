"""Neutron for the functional tests.

Nova's fixture with ports that are really to be plugged, and an agent that watches Open vSwitch and
reports them as Neutron's own would.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import random
import threading
from collections.abc import Callable

from nova.tests import fixtures as nova_fixtures
from oslo_utils import uuidutils
from ovs import jsonrpc, stream

from tests.functional.machine import PORT_PREFIX

LOG = logging.getLogger(__name__)
HYBRID = {"port_filter": True, "ovs_hybrid_plug": True, "connectivity": "l2"}
_POLL = 0.05


class NeutronFixture(nova_fixtures.NeutronFixture):
    """Ports are DOWN until the agent has seen them, and every one has an id and MAC of its own."""

    def __init__(self, test) -> None:
        super().__init__(test)
        self._ports = {}
        self.vif_type = "ovs"
        self.vif_details = dict(HYBRID)

    def create_port(self, body=None):
        """Create a port; what the caller does not say is taken from Nova's ``port_2``."""
        port = copy.deepcopy(self.default_port)
        port.update(copy.deepcopy((body or {"port": {}})["port"]))
        port.update(
            {
                "id": PORT_PREFIX + uuidutils.generate_uuid()[len(PORT_PREFIX) :],
                "mac_address": "fa:16:3e:" + ":".join(f"{b:02x}" for b in random.randbytes(3)),
                "status": "DOWN",
                "fixed_ips": [{"ip_address": self._address(), "subnet_id": self.subnet_1["id"]}],
                "binding:vif_type": self.vif_type,
                "binding:vif_details": dict(self.vif_details),
            }
        )
        self._ports[port["id"]] = port
        return {"port": copy.deepcopy(port)}

    def ports_of(self, server_id: str) -> list[dict]:
        """Return the ports of a server."""
        return [port for port in self._ports.values() if port.get("device_id") == server_id]

    def set_status(self, port_id: str, status: str) -> str:
        """Report a port; return the server that it belongs to, empty if it is gone."""
        port = self._ports.get(port_id)
        if port is None:
            return ""
        port["status"] = status
        return port.get("device_id", "")

    def _address(self) -> str:
        return f"192.168.1.{len(self._ports) + 10}"


class Agent(threading.Thread):
    """Reports every port that is wired, as an L2 agent does."""

    def __init__(
        self, wired: Callable[[], set[str]], neutron: NeutronFixture, send: Callable
    ) -> None:
        """Do nothing yet; ``start`` begins to watch.

        :param wired: returns the ids of the ports that are wired now
        :param send: takes a list of external events, for Nova's API
        """
        super().__init__(name="l2-agent", daemon=True)
        self.deaf = False
        """An agent that sees ports and says nothing."""
        self.verdict = "completed"
        """What it says of the ports it sees; ``failed`` is the other word."""
        self.before_report: Callable | None = None
        """Called with the port's id before it is reported."""
        self._wired = wired
        self._neutron = neutron
        self._send = send
        self._known: set[str] = set()
        self._end = threading.Event()

    def run(self) -> None:
        """Watch until ``stop``."""
        while not self._end.wait(_POLL):
            try:
                self._look()
            except Exception:
                # The daemons under us are killed on purpose by some tests.
                LOG.info("The agent could not look", exc_info=True)

    def stop(self) -> None:
        """End the thread."""
        self._end.set()
        self.join(60)

    def _look(self) -> None:
        present = self._wired()
        for gone in self._known - present:
            self._neutron.set_status(gone, "DOWN")
        if self.deaf:
            return
        for new in present - self._known:
            self._report(new)
        self._known = present

    def _report(self, port_id: str) -> None:
        if self.before_report:
            self.before_report(port_id)
        if server := self._neutron.set_status(port_id, "ACTIVE"):
            event = {"name": "network-vif-plugged", "server_uuid": server, "tag": port_id}
            self._send([event | {"status": self.verdict}])


def plugged(database: str) -> set[str]:
    """Return the ids of the ports that os-vif has put on a bridge.

    The database is asked directly: ``ovs-vsctl``, so often, took a fifth of the machine.
    """
    error, opened = stream.Stream.open_block(stream.Stream.open(database))
    if error:
        raise OSError(error, f"Open vSwitch's database {database}")
    with contextlib.closing(jsonrpc.Connection(opened)) as connection:
        select = {"op": "select", "table": "Interface", "where": [], "columns": ["external_ids"]}
        request = jsonrpc.Message.create_request("transact", ["Open_vSwitch", select])
        error, reply = connection.transact_block(request)
    if error:
        raise OSError(error, f"Open vSwitch's database {database}")
    found = (dict(row["external_ids"][1]).get("iface-id", "") for row in reply.result[0]["rows"])
    return {port for port in found if uuidutils.is_uuid_like(port)}
