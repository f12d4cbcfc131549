"""Rebuild: another root for the same server, or none at all."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile

import fixtures
from nova.cmd import manage

from nova_lxd.virt.instance import CONFIG_DRIVE_PATH
from tests.functional.base import ServerTestCase, wait_for
from tests.functional.glance import breaks_off

METADATA = f"{CONFIG_DRIVE_PATH}/openstack/latest"


class RebuildTestCase(ServerTestCase):
    def rebuild(self, server: dict, image: str = "", status: str = "ACTIVE", **values) -> dict:
        """Rebuild a server and wait for ``status``; by default from the image that boots."""
        body = {"imageRef": image or self.busybox_image(), **values}
        return self.act(server, {"rebuild": body}, status)

    def heal(self, server: dict) -> None:
        """Give a server its allocation back, which Nova 34 drops when a rebuild fails."""
        manage.PlacementCommands().heal_allocations(instance_uuid=server["id"])

    def other_image(self) -> str:
        """Upload an image that boots and can be told from the usual one."""
        raw = io.BytesIO(gzip.decompress(self._images.busybox))
        with tarfile.open(fileobj=raw, mode="a") as tar:
            member = tarfile.TarInfo("./etc/other")
            member.size = len(b"other\n")
            tar.addfile(member, io.BytesIO(b"other\n"))
        return self.image(gzip.compress(raw.getvalue(), 1), name="other")

    def mark(self, server: dict) -> None:
        """Write to the server's root what a rebuild takes away."""
        self.guest(server, "sh", "-c", "echo mine >/root/note")

    def has_mark(self, server: dict) -> bool:
        return self.guest(server, "sh", "-c", "cat /root/note || true") == "mine"

    def limits(self, server: dict) -> tuple[str, str, str]:
        instance = self.lxd_instance(server)
        config, root = instance["expanded_config"], instance["expanded_devices"]["root"]
        return config["limits.memory"], config["limits.cpu"], root["size"]

    def metadata(self, server: dict) -> dict:
        return json.loads(self.guest(server, "cat", f"{METADATA}/meta_data.json"))


class RebuildTest(RebuildTestCase):
    def test_another_root_for_the_same_server(self):
        flavor = self.flavor(memory_mb=96, vcpus=2, disk=2)
        server = self.boot(flavor=flavor, name="web-1")
        (port,) = self.neutron.ports_of(server["id"])
        for image in (self.busybox_image(), self.other_image()):
            self.mark(server)
            rebuilt = self.rebuild(server, image)
            assert (rebuilt["id"], rebuilt["name"]) == (server["id"], "web-1")
            assert rebuilt["image"]["id"] == image
            assert self.name_of(rebuilt) == self.name_of(server)
            assert not self.has_mark(server)
            (same,) = self.neutron.ports_of(server["id"])
            assert (same["id"], same["mac_address"]) == (port["id"], port["mac_address"])
            wait_for(lambda: self.neutron._ports[port["id"]]["status"] == "ACTIVE", "the port")
            address = self.guest(server, "cat", "/sys/class/net/eth0/address")
            assert address == port["mac_address"]
            assert self.limits(server) == ("96MiB", "2", "2GiB")
            assert self.lxd_instance(server)["config"]["user.nova.image_id"] == image
            self.assert_clean()
        assert self.guest(server, "cat", "/etc/other") == "other"

    def test_what_the_tenant_says_anew(self):
        server = self.boot(config_drive=True, metadata={"colour": "green"}, adminPass="old-one")
        data = base64.b64encode(b"#!/bin/sh\necho new\n").decode()
        self.rebuild(
            server, metadata={"colour": "red"}, adminPass="new-one", user_data=data, name="renamed"
        )
        metadata = self.metadata(server)
        assert (metadata["uuid"], metadata["name"]) == (server["id"], "renamed")
        assert metadata["meta"] == {"colour": "red"}
        assert metadata["admin_pass"] == "new-one"
        assert self.guest(server, "cat", f"{METADATA}/user_data") == "#!/bin/sh\necho new"
        assert "new-one" not in self.stdlog.logger.output
        self.assert_clean()

    def test_a_stopped_server_stays_stopped(self):
        server = self.boot()
        self.mark(server)
        self.act(server, {"os-stop": None}, "SHUTOFF")
        self.rebuild(server, self.other_image(), "SHUTOFF")
        assert self.lxd_instance(server)["status"] == "Stopped"
        self.assert_clean()
        self.act(server, {"os-start": None}, "ACTIVE")
        assert self.guest(server, "cat", "/etc/other") == "other"
        assert not self.has_mark(server)
        self.assert_clean()

    def test_a_server_in_error_is_rebuilt(self):
        server = self.boot()
        self.mark(server)
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "error"}})
        self.rebuild(server)
        assert not self.has_mark(server)
        self.assert_clean()


class FailureTest(RebuildTestCase):
    def setUp(self):
        super().setUp()
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[oslo_messaging\.rpc\.server\]")

    def test_a_refused_image_costs_nothing(self):
        server = self.boot()
        self.mark(server)
        first = self.boot_time(server)
        bad = self.image(self._images.qcow2)
        fault = self.rebuild(server, bad, "ERROR")["fault"]
        assert bad in fault["message"]
        assert "qcow2" in fault["message"]
        assert self.boot_time(server) == first, "it runs on"
        assert self.lxd_names("instances") == [self.name_of(server)]
        assert len(self.lxd_names("images")) == 1
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        self.heal(server)
        assert self.has_mark(server)
        self.assert_clean()
        self.rebuild(server, bad, "ERROR")
        self.heal(server)
        self.rebuild(server, self.other_image())
        assert self.guest(server, "cat", "/etc/other") == "other"
        assert not self.has_mark(server)
        self.assert_clean()

    def test_an_image_that_does_not_fit_costs_nothing(self):
        server = self.boot()
        self.mark(server)
        fault = self.rebuild(server, self.image(self._images.large), "ERROR")["fault"]
        self.heal(server)
        assert "too small" in fault["message"]
        assert self.has_mark(server)
        self.rebuild(server)
        self.assert_clean()

    def test_a_failure_between_the_old_root_and_the_new(self):
        server = self.boot()
        self.agent.verdict = "failed"
        self.rebuild(server, status="ERROR")
        self.heal(server)
        self.assert_nothing_on_host()
        self.agent.verdict = "completed"
        (port,) = self.neutron.ports_of(server["id"])
        self.rebuild(server)
        address = self.guest(server, "cat", "/sys/class/net/eth0/address")
        assert address == port["mac_address"]
        self.assert_clean()

    def test_glance_fails(self):
        server = self.boot()
        self.mark(server)

        with fixtures.MonkeyPatch("nova.image.glance.API.download", breaks_off):
            fault = self.rebuild(server, self.other_image(), "ERROR")["fault"]
        self.heal(server)
        assert "broke off after 100 bytes: no more" in fault["message"]
        assert self.has_mark(server)
        self.rebuild(server)
        self.assert_clean()
