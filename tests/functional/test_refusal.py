"""nova-compute does not start on a host that cannot run servers; one line says what to do."""

from __future__ import annotations

import subprocess
import sys

import fixtures
import pytest
from nova import exception as nova_exception

from tests.fake_lxd import FakeLXD
from tests.functional.base import HOST, ServerTestCase

_AS_ANOTHER_USER = """
import os, sys
import nova.conf, nova_lxd.conf
from nova_lxd import exception
from nova_lxd.virt import host
nova_lxd.conf.register_opts(nova.conf.CONF)
nova.conf.CONF([], default_config_files=[])
nova.conf.CONF.set_override("endpoint", sys.argv[1], "lxd")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    host.Host(host.open_session()).check()
except exception.ConfigurationError as error:
    print(error)
"""


class RefusalTest(ServerTestCase):
    starts_compute = False

    def refusal(self) -> str:
        """Start nova-compute and return what it ends with."""
        with pytest.raises(nova_exception.InvalidConfiguration) as refusal:
            self._start_compute(HOST)
        message = str(refusal.value)
        assert "\n" not in message
        return message

    def assert_nothing_was_made(self) -> None:
        """Check that LXD holds at most our empty project."""
        if self._project in {url.rsplit("/", 1)[-1] for url in self._machine.get("/1.0/projects")}:
            self.assert_nothing_on_host()

    def test_an_unknown_pool(self):
        self.flags(pool="fast", group="lxd")
        message = self.refusal()
        assert "[lxd]pool" in message
        assert "'fast'" in message
        assert "default" in message
        assert "lxc storage create" in message
        self.assert_nothing_was_made()

    def test_a_wrong_socket(self):
        self.flags(endpoint="/nonexistent/unix.socket", group="lxd")
        message = self.refusal()
        assert "[lxd]endpoint" in message
        assert "/nonexistent/unix.socket" in message

    def test_a_socket_that_nobody_listens_at(self):
        self._machine.lxd.stop()
        self.addCleanup(self._machine.lxd.start, 120)
        message = self.refusal()
        assert "[lxd]endpoint" in message
        assert "start LXD" in message

    def test_a_socket_that_is_closed_to_us(self):
        done = subprocess.run(
            [sys.executable, "-c", _AS_ANOTHER_USER, str(self._machine.lxd.socket)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        (message,) = done.stdout.splitlines()
        assert "[lxd]endpoint" in message
        assert "65534" in message
        assert "group" in message

    def test_a_lxd_that_is_too_old(self):
        with FakeLXD(self.useFixture(fixtures.TempDir()).path) as fake:
            fake.state.server["environment"]["server_version"] = "3.0.3"
            for extension in ("id_map_base", "resources_v2"):
                fake.state.server["api_extensions"].remove(extension)
            self.flags(endpoint=str(fake.socket), group="lxd")
            message = self.refusal()
            assert [call for call in fake.calls if call.method != "GET"] == []
        for word in ("[lxd]endpoint", "3.0.3", "id_map_base", "resources_v2", "install LXD"):
            assert word in message

    def test_names_that_lxd_refuses(self):
        self.flags(instance_name_template="vm_%08x")
        message = self.refusal()
        assert "instance_name_template" in message

    def test_it_starts_once_the_pool_is_right(self):
        self.flags(pool="fast", group="lxd")
        self.refusal()
        self.flags(pool="default", group="lxd")
        self.start_compute()
        self.boot()
