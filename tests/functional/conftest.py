"""The functional ring: Nova's services in one process, our driver, a real LXD and a real OVS."""

from __future__ import annotations

import os

# Nova chooses its concurrency backend when this module is imported, so it must be the first.
os.environ.setdefault("OS_NOVA_DISABLE_EVENTLET_PATCHING", "1")
import nova.tests.unit  # noqa: I001

import nova.utils
import os_vif
import pytest
from oslo_config import cfg
from vif_plug_ovs.ovsdb import impl_idl

import tests.functional.database  # noqa: F401  registers a filter of errors
from tests.functional.images import Images
from tests.functional.machine import Machine


def pytest_report_header():
    """Say on which backend Nova runs; the eventlet test reads it."""
    threads = nova.utils.concurrency_mode_threading()
    return f"nova: {'native threads' if threads else 'eventlet'}"


def pytest_collection_modifyitems(items):
    """Nova's fixtures set their own warning filters, and its libraries warn a lot."""
    for item in items:
        if "tests/functional" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def machine():
    """One LXD and one Open vSwitch for the whole session; nothing of them survives it."""
    with Machine().running() as machine:
        _point_os_vif_to(machine.ovs.db)
        yield machine
        _disconnect_os_vif()


def _point_os_vif_to(database: str) -> None:
    """Let os-vif use our Open vSwitch: its plugins read their options once, at their start."""
    os_vif.initialize()
    cfg.CONF.set_override("ovsdb_connection", database, "os_vif_ovs")
    os_vif.initialize(reset=True)
    cfg.CONF.clear_override("ovsdb_connection", "os_vif_ovs")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """The image files that tests upload, built once."""
    return Images(tmp_path_factory.mktemp("images"))


def _disconnect_os_vif() -> None:
    """End the thread that would miss its Open vSwitch, loudly, until the session ends."""
    if connection := impl_idl.NeutronOvsdbIdl._ovsdb_connection:
        connection.stop(30)
