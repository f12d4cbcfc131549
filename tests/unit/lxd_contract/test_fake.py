"""The contract on the fake."""

from __future__ import annotations

import pytest

from tests.fake_lxd import FakeLXD

from .contract import LXDContract


class TestFake(LXDContract):
    @pytest.fixture
    def fake(self, tmp_path):
        with FakeLXD(tmp_path) as fake:
            yield fake

    @pytest.fixture
    def lxd_socket(self, fake):
        return str(fake.socket)

    @pytest.fixture
    def deaf_guests(self, fake):
        fake.state.deaf_guests = True

    @pytest.fixture
    def no_bridges(self, fake):
        fake.state.bridges = set()

    @pytest.fixture
    def slow_cleanup(self, fake):
        fake.state.busy_after_failed_start = 0.3
