"""The contract with LXD, on the real one: what the unit tests' fake pretends."""

from __future__ import annotations

import pytest

from tests.unit.lxd_contract.contract import LXDContract


class TestReal(LXDContract):
    @pytest.fixture
    def lxd_socket(self, machine):
        return str(machine.lxd.socket)

    @pytest.fixture
    def deaf_guests(self):
        """The image's own init is deaf."""

    @pytest.fixture
    def no_bridges(self):
        """No bridge of that name is there."""

    @pytest.fixture
    def slow_cleanup(self):
        """LXD needs its time."""
