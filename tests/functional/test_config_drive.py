"""Config drives: in the guest, for its root alone, and nowhere else."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import stat
import tarfile
from pathlib import Path

import fixtures
from nova.api.metadata import base

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

    def test_injected_files_without_a_drive(self):
        self.api.microversion = "2.56"
        files = {"/etc/app/key": b"\0secret\xff", "/root/note": b"hello", "/etc/passwd": b"mine\n"}
        server = self.boot(personality=_personality(files))
        for path, content in files.items():
            assert self.guest(server, "base64", path) == base64.b64encode(content).decode()
            assert self.guest(server, "stat", "-c", "%a:%u:%g", path) == "600:0:0"
        assert self.guest(server, "stat", "-c", "%a:%u:%g", "/etc/app") == "755:0:0"
        self.assert_clean()
        self.act(
            server,
            {"rebuild": {"imageRef": self.busybox_image(), "personality": _personality(files)}},
            "ACTIVE",
        )
        assert self.guest(server, "cat", "/root/note") == "hello"
        self.assert_clean()

    def test_injected_files_meet_a_hostile_image(self):
        self.api.microversion = "2.56"
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[nova\.scheduler\.utils\]")
        outside = Path(self.useFixture(fixtures.TempDir()).path)
        outside.chmod(0o777)
        links = {
            "up": f"/../../../../../../..{outside}",
            "down": str(outside),
            "root/file": f"{outside}/target",
            "loop": "loop",
        }
        image = self.image(_with_links(self._images.busybox, links, pipe="root/pipe"))
        for path in ("/up/x", "/down/x", "/loop/x"):
            server = self.request_server(image=image, personality=_personality({path: b"evil"}))
            fault = self.wait_status(server, "ERROR")["fault"]
            assert path in fault["message"]
            self.delete(server)
        files = {"/root/file": b"x", "/root/pipe": b"x", "/loop": b"x"}
        server = self.boot(image=image, personality=_personality(files))
        for path in files:
            assert self.guest(server, "stat", "-c", "%F:%s", path) == "regular file:1"
        assert list(outside.iterdir()) == []
        assert stat.S_IMODE(outside.stat().st_mode) == 0o777
        self.assert_clean()

    def test_an_injected_file_that_leads_out(self):
        self.api.microversion = "2.56"
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[nova\.scheduler\.utils\]")
        server = self.request_server(personality=_personality({"/etc/../../x": b"evil"}))
        fault = self.wait_status(server, "ERROR")["fault"]
        assert "a path to a file" in fault["message"]
        self.assert_nothing_on_host()

    def test_tagged_ports(self):
        ports = [self.neutron.create_port()["port"] for _ in range(2)]
        networks = [{"port": port["id"], "tag": f"net-{port['id'][-4:]}"} for port in ports]
        networks.append({"uuid": self.neutron.network_1["id"]})
        server = self.boot(config_drive=True, networks=networks)
        expected = {port["mac_address"]: [f"net-{port['id'][-4:]}"] for port in ports}
        devices = self.metadata(server)["devices"]
        assert {device["mac"]: device["tags"] for device in devices} == expected
        assert {(device["type"], device["bus"]) for device in devices} == {("nic", "none")}
        served = base.get_metadata_by_instance_id(server["id"], "127.0.0.1")
        assert json.loads(served.lookup("/openstack/latest/meta_data.json"))["devices"] == devices
        self.act(server, {"rebuild": {"imageRef": self.busybox_image()}}, "ACTIVE")
        assert self.metadata(server)["devices"] == devices
        self.assert_clean()

    def test_a_failed_build_leaves_no_drive(self):
        self.expect_log(r".*")
        image = self.image(self._images.truncated)
        self.boot(status="ERROR", image=image, config_drive=True)
        assert self._machine.get(self._volumes()) == []


def _personality(files: dict[str, bytes]) -> list[dict[str, str]]:
    return [
        {"path": path, "contents": base64.b64encode(content).decode()}
        for path, content in files.items()
    ]


def _with_links(image: bytes, links: dict[str, str], *, pipe: str) -> bytes:
    """Add symlinks and a pipe to an image."""
    raw = io.BytesIO(gzip.decompress(image))
    with tarfile.open(fileobj=raw, mode="a") as tar:
        for name, target in links.items():
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        member = tarfile.TarInfo(f"./{pipe}")
        member.type = tarfile.FIFOTYPE
        tar.addfile(member)
    return gzip.compress(raw.getvalue(), 1)
