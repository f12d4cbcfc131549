"""What a user does with a server: reboot, pause, stop, start, delete."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from aio.process import wait_until
from aio.tenant import SECONDS
from aio.traces import difference, traces


@pytest.mark.parametrize("kind", ["SOFT", "HARD"])
def test_reboot_keeps_the_connection(web, tenant, kind):
    before = web.boot_time()
    tenant.act(web.server, "reboot", {"type": kind})
    tenant.wait(web.server)
    web.wait_for_ssh()
    assert web.boot_time() != before
    assert web.run("wc -l < /root/user-data-ran") == "1"


def test_reboot_from_inside_keeps_the_connection(web, tenant):
    before = web.boot_time()
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        web.run("reboot")  # its own connection dies with it

    def rebooted() -> bool:
        return web.lets_in() and web.boot_time() != before

    wait_until(rebooted, SECONDS, "the server to come back", interval=0.5)
    assert tenant.wait(web.server)["status"] == "ACTIVE"


def test_pause_freezes_the_processes(web, tenant):
    before = web.boot_time()
    tenant.act(web.server, "pause")
    tenant.wait(web.server, "PAUSED")
    assert not web.lets_in()  # the kernel still answers pings for the container
    tenant.act(web.server, "unpause")
    tenant.wait(web.server)
    web.wait_for_ssh()
    assert web.boot_time() == before


def test_stop_and_start(web, tenant):
    before = web.boot_time()
    tenant.act(web.server, "os-stop")
    tenant.wait(web.server, "SHUTOFF")
    assert not web.answers_ping()
    tenant.act(web.server, "os-start")
    tenant.wait(web.server)
    web.wait_for_ssh()
    assert web.boot_time() != before


def test_a_stopped_server_still_shows_its_console(web, tenant):
    tenant.act(web.server, "os-stop")
    tenant.wait(web.server, "SHUTOFF")
    assert "ssh is ready" in tenant.console(web.server)
    tenant.act(web.server, "os-start")
    tenant.wait(web.server)
    web.wait_for_ssh()


@pytest.mark.parametrize("state", ["ACTIVE", "PAUSED", "SHUTOFF"])
def test_delete_leaves_nothing(world, tenant, state):
    before = traces(world.settings)
    server = world.boot(tenant, "ring-brief", group=world.open_group)["id"]
    assert difference(before, traces(world.settings))
    if state != "ACTIVE":
        tenant.act(server, {"PAUSED": "pause", "SHUTOFF": "os-stop"}[state])
        tenant.wait(server, state)
    tenant.remove(server)
    left: list[str] = []

    def clean() -> bool:
        left[:] = difference(before, traces(world.settings))
        return not left

    wait_until(clean, SECONDS, "the host to be clean", interval=0.5, log=lambda: "\n".join(left))
