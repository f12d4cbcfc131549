"""The cloud ring: servers in the running one-node cloud, reached as their users would."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from aio import choices, lent
from aio.settings import DEFAULT_STATE, Settings
from tests.cloud.proof import Proof
from tests.cloud.world import World

CLOUD = Settings(state=Path(os.environ.get("NOVA_LXD_AIO_STATE", DEFAULT_STATE)))
OPTIONS = shlex.split(os.environ.get("NOVA_LXD_AIO_UP", ""))

# Only a nova-compute that is not root needs sudo.
collect_ignore = (
    [] if choices.merge(CLOUD.choices, choices.parse(OPTIONS)).user != "root" else ["test_sudo.py"]
)


@pytest.fixture(scope="session")
def settings():
    """The cloud under test; it comes up, and goes down afterwards, unless it ran already.

    The environment's NOVA_LXD_AIO_UP holds options of ``aio up``.
    """
    os.environ["PATH"] = CLOUD.path  # the cloud's iptables, and its programs
    with lent.cloud(CLOUD, OPTIONS):
        yield CLOUD


@pytest.fixture(scope="session")
def proof(settings):
    """What the host must look like; taken before the first server."""
    return Proof(settings)


@pytest.fixture(scope="session")
def world(settings, proof, tmp_path_factory):
    """Network, router, key and flavor, which most servers here share."""
    world = World(settings, tmp_path_factory.mktemp("world"))
    try:
        world.build()
        yield world
    finally:
        problems = world.take_down()
        assert not problems, problems
        proof.assert_host_as_before()


@pytest.fixture
def web(world):
    """A server that lets ssh and ping in; a test that breaks it costs the next one a boot."""
    return world.web()


@pytest.fixture(autouse=True)
def tenant(world, proof):
    """Something of one's own: what a test makes through it is gone after the test.

    The host must hold exactly what Nova's servers need, before that and after it.
    """
    tenant = world.tenant_of_one_test()
    try:
        yield tenant
        proof.assert_invariants()
    finally:
        problems = tenant.take_down()
    assert not problems, problems
    proof.assert_invariants()
