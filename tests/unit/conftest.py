"""The unit ring: nothing but Python is needed, no daemon, no root."""

from __future__ import annotations

import os

# Nova chooses its concurrency backend when this module is imported, so it must be the first.
os.environ.setdefault("OS_NOVA_DISABLE_EVENTLET_PATCHING", "1")
import nova.tests.unit  # noqa: I001

from unittest import mock

import nova.conf
import pytest
import tenacity
from nova import thread_pool_factory

from nova_lxd import conf
from nova_lxd.virt.profiles import Profiles
from tests.fake_lxd import FakeLXD

from .compute_host import GlanceAPI
from .ports import Ports

CONF = nova.conf.CONF
conf.register_opts(CONF)


@pytest.fixture
def fake(tmp_path):
    """A fake LXD that runs."""
    with FakeLXD(tmp_path / "lxd") as fake:
        yield fake


@pytest.fixture
def ports():
    """A double of os-vif; the images that Glance gives are tiny, and no port has a tag."""
    untagged = mock.patch("nova.objects.VirtualInterfaceList.get_by_instance_uuid", list_none)
    glance = mock.patch("nova.image.glance.API", GlanceAPI)
    # A thread without work looks this often (seconds) whether it is to end.
    brief = mock.patch("futurist._thread.ThreadWorker.MAX_IDLE_FOR", 0.02)
    at_once = mock.patch.object(Profiles.sweep.retry, "wait", tenacity.wait_none())
    with Ports().installed() as ports, untagged, glance, brief, at_once:
        yield ports
        # Nova's own tests insist that nobody's threads are left.
        thread_pool_factory.reset_all_executors()


def list_none(*args):
    """Stand in for Nova's database, which has no tags."""
    return []


@pytest.fixture
def options(tmp_path):
    """Set Nova's options as an operator would; what is set is forgotten after the test."""

    overridden = {("endpoint", "lxd")}

    def set_options(group=None, **values):
        for name, value in values.items():
            CONF.set_override(name, value, group=group)
            overridden.add((name, group))

    set_options("lxd", project="nova", pool="default")
    set_options(instances_path=str(tmp_path / "instances"), shutdown_timeout=1)
    yield set_options
    for name, group in overridden:
        CONF.clear_override(name, group=group)
