"""Nova's generic suite for drivers, on a real LXD; os-vif alone is replaced."""

from __future__ import annotations

import subprocess
import uuid

import pytest
from nova import test

from tests.functional.machine import PORT_PREFIX
from tests.unit.driver_suite import DriverSuite
from tests.unit.ports import Ports


class Bridges(Ports):
    """Makes each port's bridge, so that the container has something to be plugged into."""

    def plug(self, vif, instance_info):
        if vif.id not in self.plugged:
            _ip("link", "add", f"qbr{vif.id[:11]}", "type", "bridge")
        super().plug(vif, instance_info)

    def unplug(self, vif, instance_info):
        if vif.id in self.plugged:
            _ip("link", "delete", f"qbr{vif.id[:11]}")
        super().unplug(vif, instance_info)


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


class DriverOnLXDTest(DriverSuite, test.TestCase):
    REQUIRES_LOCKING = True

    @pytest.fixture(autouse=True)
    def _session_fixtures(self, machine):
        self._machine = machine

    def make_ports(self):
        return Bridges()

    def start_lxd(self):
        # The machine's cleaning finds bridges by what the ids of our ports begin with.
        self.port_id = f"{PORT_PREFIX}{uuid.uuid4()}"[:36]
        project = f"t-{uuid.uuid4().hex[:8]}"
        self.addCleanup(self._machine.clean, project)
        return str(self._machine.lxd.socket), project
