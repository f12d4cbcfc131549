"""Config drives: in the guest, for its root alone, and nowhere else."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from nova_lxd.virt.instance import CONFIG_DRIVE_PATH
from tests.functional.base import ServerTestCase

PASSWORD = "canary-password-0815"
USER_DATA = b"#!/bin/sh\necho canary user data\n"
LATEST = f"{CONFIG_DRIVE_PATH}/openstack/latest"


class ConfigDriveTest(ServerTestCase):
    def test_a_config_drive(self):
        server = self.boot(
            config_drive=True,
            adminPass=PASSWORD,
            user_data=base64.b64encode(USER_DATA).decode(),
            metadata={"colour": "green"},
        )
        assert server["config_drive"] == "True"
        metadata = self.metadata(server)
        assert metadata["uuid"] == server["id"]
        assert metadata["admin_pass"] == PASSWORD
        assert metadata["meta"] == {"colour": "green"}
        assert self.guest(server, "cat", f"{LATEST}/user_data") == USER_DATA.decode().strip()
        network = json.loads(self.guest(server, "cat", f"{LATEST}/network_data.json"))
        (port,) = self.neutron.ports_of(server["id"])
        assert network["links"][0]["ethernet_mac_address"] == port["mac_address"]
        self.check_nobody_else_reads_it(server)
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        assert self.metadata(server) == metadata
        self.act(server, {"rescue": {"adminPass": "other-password"}}, "RESCUE")
        self.act(server, {"unrescue": None}, "ACTIVE")
        assert self.metadata(server) == metadata
        self.act(server, {"rebuild": {"imageRef": self.busybox_image()}}, "ACTIVE")
        assert self.metadata(server)["uuid"] == server["id"]
        self.assert_clean()
        self.delete(server)
        self.assert_nothing_on_host()
        assert self._machine.get(self._volumes()) == []

    def check_nobody_else_reads_it(self, server: dict) -> None:
        listing = self.guest(server, "ls", "-ln", LATEST).splitlines()[1:]
        assert {line.split()[0] for line in listing} == {"-r--------"}
        assert {tuple(line.split()[2:4]) for line in listing} == {("0", "0")}
        write = f"touch {LATEST}/x || echo refused"
        assert "refused" in self.guest(server, "sh", "-c", write)
        custom = self._machine.lxd.folder / "storage-pools" / "default" / "custom"
        assert custom.stat().st_mode & 0o077 == 0
        assert PASSWORD not in self.stdlog.logger.output
        assert PASSWORD not in json.dumps(self.lxd_instance(server))
        for folder, _, names in os.walk(self.flags_path()):
            for name in names:
                assert PASSWORD.encode() not in (Path(folder) / name).read_bytes()

    def flags_path(self) -> str:
        import nova.conf

        return nova.conf.CONF.instances_path

    def _volumes(self) -> str:
        return f"/1.0/storage-pools/default/volumes/custom?project={self._project}"

    def metadata(self, server: dict) -> dict:
        return json.loads(self.guest(server, "cat", f"{LATEST}/meta_data.json"))

    def test_injected_files(self):
        self.api.microversion = "2.56"
        content = base64.b64encode(b"hello").decode()
        personality = [{"path": "/etc/banner", "contents": content}]
        server = self.boot(config_drive=True, personality=personality)
        (file,) = self.metadata(server)["files"]
        assert file["path"] == "/etc/banner"
        path = f"{CONFIG_DRIVE_PATH}/openstack{file['content_path']}"
        assert self.guest(server, "cat", path) == "hello"

    def test_a_failed_build_leaves_no_drive(self):
        self.expect_log(r".*")
        image = self.image(self._images.truncated)
        self.boot(status="ERROR", image=image, config_drive=True)
        assert self._machine.get(self._volumes()) == []
