"""The unit ring: nothing but Python is needed, no daemon, no root."""

from __future__ import annotations

import os

# Nova chooses its concurrency backend when this module is imported, so it must be the first.
os.environ.setdefault("OS_NOVA_DISABLE_EVENTLET_PATCHING", "1")
import nova.tests.unit  # noqa: F401 I001

import pytest

from tests.fake_lxd import FakeLXD


@pytest.fixture
def fake(tmp_path):
    """A fake LXD that runs."""
    with FakeLXD(tmp_path / "lxd") as fake:
        yield fake
