"""The contract's running instances."""

from __future__ import annotations

import json
import time
from pathlib import Path

from .base import ID_BASE, POOL, ROOT, ContractBase, add_image, add_instance
from .client import Client
from .life import C1, ISOLATED

BUSY = 'Instance is busy running a "stop" operation'


class PowerContract(ContractBase):
    def _running(self, lxd: Client, *, deaf: bool = True, **config: str) -> None:
        add_instance(lxd, image=add_image(lxd, deaf=deaf), config={**ISOLATED, **config})
        assert lxd.act("c1", "start", timeout=10).succeeded

    def test_start(self, lxd: Client):
        self._running(lxd)
        got = lxd.get(C1).metadata
        assert (got["status"], got["status_code"]) == ("Running", 103)
        assert got["last_used_at"] > got["created_at"]
        config = got["config"]
        assert config["volatile.last_state.power"] == "RUNNING"
        assert config["volatile.idmap.current"] == config["volatile.idmap.next"]
        assert config["volatile.last_state.idmap"] == config["volatile.idmap.next"]
        assert json.loads(config["volatile.idmap.next"])[0]["Hostid"] == ID_BASE
        assert "volatile.apply_template" not in config

    def test_state(self, lxd: Client):
        add_instance(lxd, image=add_image(lxd))
        stopped = lxd.get(f"{C1}/state").metadata
        assert (stopped["status"], stopped["status_code"]) == ("Stopped", 102)
        assert (stopped["pid"], stopped["processes"], stopped["network"]) == (0, 0, None)
        lxd.act("c1", "start")
        running = lxd.get(f"{C1}/state").metadata
        assert set(running) == set(stopped)
        assert running["status_code"] == 103
        assert running["pid"] > 1
        assert running["processes"] > 0
        assert running["memory"]["usage"] > 0
        assert running["cpu"]["usage"] > 0

    def test_what_a_stopped_instance_refuses(self, lxd: Client):
        add_instance(lxd, image=add_image(lxd))
        stopped = "The instance is already stopped"
        assert lxd.act("c1", "stop", force=True).failure == stopped
        assert lxd.act("c1", "stop", force=False, timeout=5).failure == stopped
        assert lxd.act("c1", "restart", force=True).failure == stopped
        assert lxd.act("c1", "freeze").failure == "The container isn't running"
        assert lxd.act("c1", "unfreeze").failure == "The container isn't running"
        assert lxd.act("c1", "bogus").refusal == (400, "Unknown action: 'bogus'")

    def test_what_a_running_instance_refuses(self, lxd: Client):
        self._running(lxd)
        assert lxd.act("c1", "start").failure == "The instance is already running"
        assert lxd.act("c1", "unfreeze").failure == "The container is already running"
        assert lxd.call("DELETE", C1).refusal == (400, "Instance is running")

    def test_freeze(self, lxd: Client):
        self._running(lxd)
        assert lxd.act("c1", "freeze").succeeded
        got = lxd.get(C1).metadata
        assert (got["status"], got["status_code"]) == ("Frozen", 110)
        assert lxd.act("c1", "freeze").failure == "The container is already frozen"
        assert lxd.act("c1", "start").failure == "The instance is already running"
        assert lxd.call("DELETE", C1).refusal == (400, "Instance is running")
        assert lxd.act("c1", "unfreeze").succeeded
        assert lxd.get(C1).metadata["status"] == "Running"

    def test_a_frozen_instance_can_be_stopped(self, lxd: Client):
        self._running(lxd)
        lxd.act("c1", "freeze")
        assert lxd.act("c1", "stop", force=True).succeeded
        assert lxd.get(C1).metadata["status"] == "Stopped"

    def test_restart(self, lxd: Client):
        self._running(lxd)
        before = lxd.get(C1).metadata
        assert lxd.act("c1", "restart", force=True, timeout=10).succeeded
        after = lxd.get(C1).metadata
        assert after["status"] == "Running"
        assert after["last_used_at"] > before["last_used_at"]

    def test_stop(self, lxd: Client):
        self._running(lxd)
        assert lxd.act("c1", "stop", force=True, timeout=-1).succeeded
        got = lxd.get(C1).metadata
        assert got["status"] == "Stopped"
        assert got["config"]["volatile.last_state.power"] == "STOPPED"
        assert lxd.act("c1", "start").succeeded

    def test_a_guest_that_listens_shuts_down(self, lxd: Client):
        self._running(lxd, deaf=False)
        self._first_output(lxd)
        assert lxd.act("c1", "stop", force=False, timeout=30).succeeded
        assert lxd.get(C1).metadata["status"] == "Stopped"

    def test_a_deaf_guest_does_not(self, lxd: Client, deaf_guests: None):
        self._running(lxd)
        text = 'Failed shutting down instance, status is "Running"'
        found = lxd.act("c1", "stop", force=False, timeout=1).failure
        assert found.startswith(text)
        assert lxd.get(C1).metadata["status"] == "Running"

    def test_while_an_operation_runs(self, lxd: Client, deaf_guests: None):
        self._running(lxd)
        stop = {"action": "stop", "force": False, "timeout": 60}
        started = lxd.call("PUT", f"{C1}/state", stop)
        operation = started.body["operation"]
        assert (started.metadata["status"], started.metadata["status_code"]) == ("Running", 103)
        for wait in (0, 1):
            answer = lxd.get(f"{operation}/wait?timeout={wait}")
            assert answer.metadata["status_code"] == 103
        text = f"Failed to create instance update operation: {BUSY}"
        assert lxd.call("PATCH", C1, {"config": {"user.a": "1"}}).refusal == (500, text)
        refused = lxd.call("DELETE", operation).refusal
        assert refused == (400, "This operation can't be cancelled")
        # A forced stop overtakes it.
        assert lxd.act("c1", "stop", force=True).succeeded
        assert lxd.get(C1).metadata["status"] == "Stopped"

    def test_start_without_the_bridge(self, lxd: Client, no_bridges: None):
        nic = {"type": "nic", "nictype": "bridged", "parent": "nobr", "host_name": "tapc0ffee"}
        add_instance(lxd, image=add_image(lxd), devices={**ROOT, "e": nic})
        found = lxd.act("c1", "start").failure
        assert found == 'Failed to start device "e": Parent device "nobr" doesn\'t exist'
        assert lxd.get(C1).metadata["status"] == "Stopped"
        assert lxd.run("DELETE", C1).succeeded

    def test_start_with_a_mac_address_of_another_instance(self, lxd: Client, no_bridges: None):
        nic = {"type": "nic", "nictype": "bridged", "parent": "nobr"}
        nic |= {"host_name": "tapc0ffee", "hwaddr": "00:16:3e:c0:ff:ee"}
        image = add_image(lxd)
        # Both can be made; neither can be started while the other has the address.
        for name in ("c1", "c2"):
            add_instance(lxd, name, image=image, devices={**ROOT, "e": nic})
        assert lxd.act("c2", "start").failure == (
            'Failed start validation for device "e": '
            'MAC address "00:16:3e:c0:ff:ee" already defined on another NIC'
        )
        body = lxd.get(C1).metadata
        assert lxd.run("PUT", C1, {**body, "devices": ROOT}).succeeded
        body = lxd.get(C1).metadata
        assert lxd.run("PUT", C1, {**body, "devices": {**ROOT, "e": nic}}).failure == (
            'Failed add validation for device "e": '
            'MAC address "00:16:3e:c0:ff:ee" already defined on another NIC'
        )
        found = lxd.act("c2", "start").failure
        assert found == 'Failed to start device "e": Parent device "nobr" doesn\'t exist'

    def test_another_stopped_instances_root_can_be_mounted(self, lxd: Client):
        add_instance(lxd, image=add_image(lxd), config=ISOLATED)
        folder = f"{Path(lxd.path).parent}/storage-pools/{POOL}/containers/{lxd.project}_c1"
        disk = {"type": "disk", "source": f"{folder}/rootfs", "path": "/mnt/rescued"}
        image = add_image(lxd, other="1")
        devices = {**ROOT, "rescued": disk}
        add_instance(lxd, "c2", image=image, config=ISOLATED, devices=devices)
        assert lxd.act("c2", "start").succeeded
        assert lxd.get(C1).metadata["status"] == "Stopped"

    def test_after_a_start_that_failed_the_instance_is_busy(self, lxd: Client, slow_cleanup: None):
        outside = {"security.idmap.isolated": "true", "security.idmap.base": "50000000"}
        add_instance(lxd, image=add_image(lxd), config=outside)
        found = lxd.act("c1", "start").failure
        assert "forkstart" in found
        assert found.endswith("exit status 1")
        assert lxd.run("DELETE", C1).failure == (
            f"Failed to create instance delete operation: {BUSY}"
        )
        deadline = time.monotonic() + 60
        while not lxd.run("DELETE", C1).succeeded:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def test_console(self, lxd: Client):
        add_instance(lxd, image=add_image(lxd))
        status, text = lxd.get(f"{C1}/console").refusal
        assert status == 500
        assert text.startswith("open ")
        assert text.endswith("console.log: no such file or directory")
        assert lxd.call("DELETE", f"{C1}/console").status == 404

        lxd.act("c1", "start")
        first = self._first_output(lxd)
        assert first.endswith(b"\r\n")
        # Reading takes the text away: what is read is appended to LXD's log file.
        drained = (500, "open : no such file or directory")
        assert lxd.get(f"{C1}/console").refusal == drained
        assert lxd.call("DELETE", f"{C1}/console").succeeded
        assert lxd.get(f"{C1}/console").refusal == drained

    def test_console_of_a_stopped_instance(self, lxd: Client):
        self._running(lxd)
        first = self._first_output(lxd)
        lxd.act("c1", "stop", force=True)
        for _ in range(2):
            assert lxd.get(f"{C1}/console").body.startswith(first)
        assert lxd.call("DELETE", f"{C1}/console").succeeded
        assert lxd.get(f"{C1}/console").body == b""

    def _first_output(self, lxd: Client) -> bytes:
        deadline = time.monotonic() + 60
        while not (text := self._log(lxd)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return text

    def _log(self, lxd: Client) -> bytes:
        answer = lxd.get(f"{C1}/console")
        return answer.body if answer.status == 200 else b""
