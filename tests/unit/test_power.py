"""How long a guest is asked before its plug is pulled."""

from __future__ import annotations

import pytest

from .compute_host import Host

pytestmark = pytest.mark.usefixtures("options")


@pytest.fixture
def host(tmp_path, ports):
    host = Host(tmp_path, ports)
    host.spawn()
    yield host
    host.close()


@pytest.mark.parametrize(("wanted", "seconds"), [(None, 1), (7, 7)])
def test_a_soft_reboot_gives_the_guest_its_time(host, monkeypatch, wanted, seconds):
    asked = []
    monkeypatch.setattr(host.driver._power, "off", lambda *args: asked.append(args[1]))
    if wanted:
        host.order.instance.system_metadata["image_os_shutdown_timeout"] = str(wanted)
    host.reboot("SOFT")
    host.reboot("HARD")
    assert asked == [seconds, 0]
