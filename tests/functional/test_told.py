"""What Nova tells of a server: why an action failed, its metadata, and who locked it."""

from __future__ import annotations

import json
from unittest import mock

import pytest
from nova.api.metadata import base
from nova.cmd import manage
from nova.tests.functional.api import client as api_client

from nova_lxd import exception
from nova_lxd.virt.instance import CONFIG_DRIVE_PATH
from tests.functional.base import ServerTestCase, wait_for

REASON = "LXD says that the moon is in the way"
STOP = ({"os-stop": None}, "SHUTOFF")

ACTIONS = {
    # action: what of the session fails, and where the action begins
    "os-stop": ("change_state", ()),
    "os-start": ("change_state", (STOP,)),
    "reboot": ("update_instance", ()),
    "pause": ("change_state", ()),
    "unpause": ("change_state", (({"pause": None}, "PAUSED"),)),
    "suspend": ("change_state", ()),
    "resume": ("change_state", (({"suspend": None}, "SUSPENDED"),)),
    "rescue": ("create_instance", ()),
    "unrescue": ("change_role", (({"rescue": None}, "RESCUE"),)),
    "resize": ("create_snapshot", ()),
    "rebuild": ("find_image", ()),
}
"""Nova keeps silent about a reboot that fails while the server runs on; this one has stopped it."""


class ToldTest(ServerTestCase):
    def setUp(self):
        super().setUp()
        self.flags(allow_resize_to_same_host=True)

    def test_why_an_action_failed(self):
        self.expect_log(
            r"\[nova\.compute\.(manager|resource_tracker)\]", r"\[oslo_messaging\.rpc\.server\]"
        )
        self.tell_tenants()
        server = self.boot()
        values = {
            "reboot": {"type": "HARD"},
            "resize": {"flavorRef": self.flavor(memory_mb=96)},
            "rebuild": {"imageRef": self.busybox_image()},
        }
        for action, (method, before) in ACTIONS.items():
            with self.subTest(action):
                for step, status in before:
                    self.act(server, step, status)
                with mock.patch.object(
                    self.compute.driver._session, method, side_effect=exception.LXDError(REASON)
                ):
                    self.api.post_server_action(server["id"], {action: values.get(action)})
                    wait_for(lambda: self.is_idle(server), f"{action} to fail")
                assert REASON in self.details(server)
                self.mend(server)

    def tell_tenants(self) -> None:
        """Let tenants read why an action failed, as the administrator's guide advises."""
        rule = "os_compute_api:os-instance-actions:events:details"
        self.policy.set_rules({rule: "role:reader or role:member"}, overwrite=False)

    def details(self, server: dict) -> str:
        """Return what a tenant reads of the last action."""
        tenant = self.api_fixture.api
        tenant.microversion = "2.84"
        last = tenant.get_instance_actions(server["id"])[0]
        found = tenant.get_instance_action_details(server["id"], last["request_id"])
        return "".join(event.get("details") or "" for event in found["events"])

    def is_idle(self, server: dict) -> bool:
        """Whether the last action has ended."""
        if self.is_busy(server["id"]):
            return False
        last = self.api.get_instance_actions(server["id"])[0]
        found = self.api.get_instance_action_details(server["id"], last["request_id"])
        return all(event["finish_time"] for event in found["events"])

    def mend(self, server: dict) -> None:
        """Bring a server back to where the next action begins."""
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "active"}})
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        manage.PlacementCommands().heal_allocations(instance_uuid=server["id"])

    def test_metadata_is_told_at_once(self):
        server = self.boot(config_drive=True, metadata={"colour": "green"})
        self.api.post_server_metadata(server["id"], {"colour": "red", "size": "small"})
        new = {"colour": "red", "size": "small"}
        assert self.served(server)["meta"] == new
        assert self.on_drive(server)["meta"] == {"colour": "green"}, "it is made at the launch"
        self.act(server, {"rebuild": {"imageRef": self.busybox_image()}}, "ACTIVE")
        assert self.on_drive(server)["meta"] == new
        self.assert_clean()

    def served(self, server: dict) -> dict:
        """Return what the metadata service says."""
        metadata = base.get_metadata_by_instance_id(server["id"], "127.0.0.1")
        return json.loads(metadata.lookup("/openstack/latest/meta_data.json"))

    def on_drive(self, server: dict) -> dict:
        """Return what the config drive says."""
        path = f"{CONFIG_DRIVE_PATH}/openstack/latest/meta_data.json"
        return json.loads(self.guest(server, "cat", path))

    def test_a_lock(self):
        server = self.boot()
        first = self.boot_time(server)
        tenant = self.api_fixture.api
        tenant.microversion = "2.73"
        self.api.post_server_action(server["id"], {"lock": {"locked_reason": "audit"}})
        for action in ({"os-stop": None}, {"reboot": {"type": "HARD"}}):
            with pytest.raises(api_client.OpenStackApiException, match="409"):
                tenant.post_server_action(server["id"], action)
        assert self.boot_time(server) == first
        assert tenant.get_server(server["id"])["locked_reason"] == "audit"
        self.api.post_server_action(server["id"], {"unlock": None})
        tenant.post_server_action(server["id"], {"os-stop": None})
        self.wait_status(server, "SHUTOFF")
        assert self.lxd_instance(server)["status"] == "Stopped"
