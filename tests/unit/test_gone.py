"""What the driver remembers of servers that are gone: nothing, however many there were."""

from __future__ import annotations

import gc
import logging
import weakref
from collections import Counter

import pytest

from . import servers
from .compute_host import Host

pytestmark = pytest.mark.usefixtures("options")


@pytest.fixture
def host(tmp_path, ports):
    host = Host(tmp_path, ports)
    yield host
    host.driver.cleanup_host("host")
    host.close()


def come_and_go(host: Host) -> weakref.ref:
    """Build a server of an image that is known, use it a little, and remove it."""
    host.order = servers.order(image_id=host.order.image_id)
    host.spawn()
    host.power_off()
    host.power_on()
    host.destroy()
    return weakref.ref(host.order.instance)


@pytest.fixture(autouse=True)
def no_log():
    """Log nothing: pytest keeps what is logged, with all that it is about."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def ours() -> Counter[type]:
    """Count the objects of the driver's own classes."""
    gc.collect()
    return Counter(
        type(item)
        for item in gc.get_objects()
        if str(getattr(type(item), "__module__", "")).startswith("nova_lxd.")
    )


def test_servers_that_are_gone_are_forgotten(host):
    gone = [come_and_go(host) for _ in range(3)]
    before = ours()
    gone += [come_and_go(host) for _ in range(5)]
    host.order = servers.order()
    assert ours() - before == Counter()
    assert [instance() for instance in gone] == [None] * len(gone)
