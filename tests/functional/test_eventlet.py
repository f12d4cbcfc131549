"""The driver also works in a nova-compute that runs on eventlet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.functional.machine import Machine

_TEST = "test_lifecycle.py::LifecycleTest::test_power"


def test_a_servers_life_on_eventlet(machine: Machine):
    folder = machine.folder.with_name(machine.folder.name + "-eventlet")
    environment = {
        "OS_NOVA_DISABLE_EVENTLET_PATCHING": "0",
        # Daemons of its own: this session holds the lock of ours.
        "NOVA_LXD_TEST_FOLDER": str(folder),
        "NOVA_LXD_TEST_LANE": "",
    }
    options = ["-p", "no:cacheprovider", "--disable-warnings"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(Path(__file__).with_name(_TEST))],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert "nova: eventlet" in done.stdout
    assert "1 passed" in done.stdout
    assert not folder.exists()
