"""What goes wrong leaves an ERROR that says why, and nothing on the host."""

from __future__ import annotations

import os
import signal

import pytest
from nova import utils
from nova.context import get_admin_context
from nova.tests.functional.api import client as api_client

from aio import kernel
from tests.functional.base import ServerTestCase, wait_for


class FailureTestCase(ServerTestCase):
    def setUp(self):
        super().setUp()
        self.expect_log(
            r"\[nova\.compute\.manager\]", r"\[nova\.scheduler\.utils\] Error from last"
        )

    def assert_refused(self, server: dict, *words: str) -> None:
        """Check what a tenant reads, that one host was tried once, and that it is clean."""
        fault = self.wait_status(server, "ERROR")["fault"]
        for word in words:
            assert word in fault["message"], fault
        assert self.builds(server) == 1
        self.assert_nothing_on_host()

    def builds(self, server: dict) -> int:
        """Count how often a nova-compute tried to build the server."""
        (action,) = self.api.get_instance_actions(server["id"])
        details = self.api.get_instance_action_details(server["id"], action["request_id"])
        kind = "compute__do_build_and_run_instance"
        return len([event for event in details["events"] if event["event"] == kind])


class RefusedTest(FailureTestCase):
    def _start_nova(self):
        # What the scheduler would sort out must reach the driver here.
        self.flags(enabled_filters=["ComputeFilter"], group="filter_scheduler")
        super()._start_nova()

    def test_a_virtual_machines_disk(self):
        for image in (
            self.image(self._images.qcow2),
            self.image(self._images.qcow2, disk_format="qcow2"),
        ):
            self.assert_refused(self.request_server(image=image), image, "qcow2")

    def test_an_image_that_is_cut_off(self):
        image = self.image(self._images.truncated)
        self.assert_refused(self.request_server(image=image), image)
        assert self.lxd_names("images") == []

    def test_an_image_that_is_nothing(self):
        image = self.image(self._images.garbage)
        self.assert_refused(self.request_server(image=image), image)

    def test_an_image_for_another_architecture(self):
        image = self.image(self._images.busybox, properties={"hw_architecture": "aarch64"})
        self.assert_refused(self.request_server(image=image), image, "aarch64")

    def test_an_image_that_does_not_fit_the_flavor(self):
        image = self.image(self._images.large)
        self.assert_refused(self.request_server(image=image), "too small")
        assert self.lxd_names("images") == []

    def test_an_extra_spec_that_is_unclear(self):
        with utils.temporary_mutation(self.api, microversion="2.85"):
            flavor = self.flavor(extra_specs={"lxd:nested_allowed": "perhaps"})
        self.assert_refused(self.request_server(flavor=flavor), "lxd:nested_allowed", "perhaps")

    def test_an_extra_spec_that_does_not_exist(self):
        with utils.temporary_mutation(self.api, microversion="2.85"):
            flavor = self.flavor(extra_specs={"lxd:bogus": "1"})
        self.assert_refused(self.request_server(flavor=flavor), "lxd:bogus")

    def test_the_api_refuses_such_extra_specs_itself(self):
        for key, value in (("lxd:nested_allowed", "perhaps"), ("lxd:bogus", "1")):
            with pytest.raises(api_client.OpenStackApiException) as refusal:
                self.flavor(extra_specs={key: value})
            assert refusal.value.response.status_code == 400

    def test_a_port_of_an_unsupported_kind(self):
        self.neutron.vif_type = "macvtap"
        self.assert_refused(self.request_server(), "macvtap")

    def test_a_second_try_works(self):
        image = self.image(self._images.truncated)
        server = self.request_server(image=image)
        self.assert_refused(server, image)
        self.delete(server)
        self.glance._imagedata[image] = self._images.busybox
        self.boot(image=image)


class NetworkEventTest(FailureTestCase):
    def test_none_comes_and_that_is_fatal(self):
        self.flags(vif_plugging_timeout=3)
        self.agent.deaf = True
        self.assert_refused(self.request_server(), "vif_plugging_timeout", "3 s")

    def test_none_comes_and_that_is_not_fatal(self):
        self.flags(vif_plugging_timeout=3, vif_plugging_is_fatal=False)
        self.agent.deaf = True
        server = self.boot()
        assert self.lxd_instance(server)["status"] == "Running"

    def test_neutron_reports_a_failure(self):
        self.agent.verdict = "failed"
        self.assert_refused(self.request_server())


class HostFailureTest(FailureTestCase):
    def test_lxd_refuses_to_start(self):
        def lose_the_bridge(port_id):
            wait_for(lambda: self.lxd_names("instances"), "the container to be made")
            kernel.delete_link(f"qbr{port_id[:11]}")

        self.agent.before_report = lose_the_bridge
        server = self.request_server()
        self.wait_status(server, "ERROR")
        self.assert_nothing_on_host()

    def test_lxd_dies_during_a_spawn(self):
        def kill_lxd(_port_id):
            wait_for(lambda: self.lxd_names("instances"), "the container to be made")
            os.kill(self._machine.lxd.process.pid, signal.SIGKILL)
            wait_for(lambda: not self._machine.lxd.process.pid, "LXD to be dead")

        self.agent.before_report = kill_lxd
        server = self.request_server()
        self.wait_status(server, "ERROR")
        # The tenant learns that no host was left, the operator why this one was none.
        assert f"LXD at {self._machine.lxd.socket}" in self.stdlog.logger.output
        self.agent.before_report = None
        self._machine.lxd.start(120)
        # Nova has taken the failed build off this host, so the API deletes its record alone;
        # nova-compute's periodic task finds the container of a deleted server and destroys it.
        self.delete(server)
        self.compute.manager._cleanup_running_deleted_instances(get_admin_context())
        self.assert_nothing_on_host()
        self.boot()

    def test_lxd_is_away_for_a_while(self):
        self.expect_log(r"\[oslo_messaging\.rpc\.server\] Exception during")
        server = self.boot()
        self._machine.lxd.stop()
        self.addCleanup(self._machine.lxd.start, 120)
        self.api.post_server_action(server["id"], {"os-stop": None})
        self.wait_action(server, "stop", "Error")
        self._machine.lxd.start(120)
        assert self.lxd_instance(server)["status"] == "Running"
        self.act(server, {"os-stop": None}, "SHUTOFF")

    def wait_action(self, server: dict, action: str, result: str) -> None:
        """Wait until the last action of that name has ended with ``result``."""

        def ended():
            actions = self.api.get_instance_actions(server["id"])
            request = next(a["request_id"] for a in actions if a["action"] == action)
            details = self.api.get_instance_action_details(server["id"], request)
            return any(event["result"] == result for event in details["events"])

        wait_for(ended, f"{action} to end with {result}")

    def test_a_container_that_lxd_lost_can_be_deleted(self):
        server = self.boot()
        project = ("--project", self._project)
        self._machine.lxd.lxc("delete", "--force", *project, self.name_of(server))
        self.delete(server)
        self.assert_nothing_on_host()

    def test_a_container_that_is_in_the_way_is_left_alone(self):
        first = self.boot(networks="none")
        number = int(self.name_of(first).rsplit("-", 1)[1], 16) + 1
        name = f"instance-{number:08x}"
        body = f'{{"name": "{name}", "source": {{"type": "none"}}, "profiles": []}}'
        root = '"devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}'
        body = body[:-1] + f", {root}}}"
        path = f"/1.0/instances?project={self._project}"
        self._machine.lxd.lxc("query", "-X", "POST", "--wait", "-d", body, path)
        server = self.request_server(networks="none")
        self.wait_status(server, "ERROR")
        assert name in self.lxd_names("instances")
        self._machine.lxd.lxc("delete", "--project", self._project, name)
