"""Images of servers, through Nova's API: snapshots, backups, shelving; and servers of these."""

from __future__ import annotations

import threading

import fixtures
import nova.conf
import pytest

from nova_lxd import exception
from tests.functional.base import DEADLINE, ServerTestCase, wait_for

CONF = nova.conf.CONF


class SnapshotTestCase(ServerTestCase):
    def create_image(self, server: dict, name: str = "snapshot") -> str:
        """Ask Nova's API for a snapshot and return the image's id."""
        answer = self.api.post_server_action(server["id"], {"createImage": {"name": name}})
        return answer["image_id"]

    def snapshot(self, server: dict) -> dict:
        """Make an image of a server and return it as Glance has it."""
        image = self.create_image(server)
        self.wait_idle(server)
        return self.glance.show(None, image)

    def write(self, server: dict, text: str) -> None:
        """Write a note into the server that its images will have."""
        self.guest(server, "sh", "-c", f"echo {text} >/root/note; chown 1000:1000 /root/note; sync")

    def assert_note(self, server: dict, text: str) -> None:
        assert self.guest(server, "cat", "/root/note") == text
        assert self.guest(server, "stat", "-c", "%u:%g", "/root/note") == "1000:1000"

    def stored(self) -> dict[str, dict]:
        """Return LXD's images by their aliases; one that has none is there by ""."""
        images = self._machine.get(f"/1.0/images?recursion=1&project={self._project}")
        return {" ".join(alias["name"] for alias in each["aliases"]): each for each in images}

    def lxd_snapshots(self, server: dict) -> list:
        path = f"/1.0/instances/{self.name_of(server)}/snapshots?project={self._project}"
        return self._machine.get(path)


class SnapshotTest(SnapshotTestCase):
    def test_a_server_is_made_of_a_running_one(self):
        server = self.boot()
        first = self.boot_time(server)
        self.write(server, "before")
        # A capability is an extended attribute, and a long name needs an extended header.
        long = "n" * 150
        self.guest(server, "sh", "-c", f"mkdir /root/{long}; echo deep >/root/{long}/{long}")
        image = self.snapshot(server)
        assert self.boot_time(server) == first, "the server must not notice"
        assert (image["disk_format"], image["container_format"]) == ("raw", "bare")
        properties = image["properties"]
        assert properties["hypervisor_type"] == "lxd"
        assert properties["hw_vm_mode"] == "exe"
        assert properties["instance_uuid"] == server["id"]
        assert set(self.stored()) == {self.busybox_image(), image["id"]}
        self.assert_clean()

        other = self.boot(image=image["id"])
        self.assert_note(other, "before")
        assert self.guest(other, "cat", f"/root/{long}/{long}") == "deep"
        (port,) = self.neutron.ports_of(other["id"])
        assert self.guest(other, "cat", "/sys/class/net/eth0/address") == port["mac_address"]
        self.assert_clean()

    def test_every_compression_can_be_booted(self):
        server = self.boot(networks="none")
        self.write(server, "same")
        for compression in ("zstd", "gzip", "none"):
            self.flags(snapshot_compression=compression, group="lxd")
            image = self.snapshot(server)
            other = self.boot(image=image["id"], networks="none")
            self.assert_note(other, "same")
            self.delete(other)

    def test_of_a_stopped_and_a_paused_server(self):
        server = self.boot(networks="none")
        self.write(server, "off")
        for action, back, status in (
            ("os-stop", "os-start", "SHUTOFF"),
            ("pause", "unpause", "PAUSED"),
        ):
            self.act(server, {action: None}, status)
            image = self.snapshot(server)
            assert self.api.get_server(server["id"])["status"] == status
            self.act(server, {back: None}, "ACTIVE")
            self.assert_note(self.boot(image=image["id"], networks="none"), "off")
            self.assert_clean()

    def test_backups_rotate(self):
        server = self.boot(networks="none")
        made = []
        for number in range(3):
            backup = {"name": f"b{number}", "backup_type": "daily", "rotation": 2}
            answer = self.api.post_server_action(server["id"], {"createBackup": backup})
            self.wait_idle(server)
            made.append(answer["image_id"])
        left = {image["id"] for image in self.glance.detail(None)}
        assert [image in left for image in made] == [False, True, True]

    def test_rebuild_to_a_snapshot(self):
        server = self.boot()
        self.write(server, "kept")
        image = self.snapshot(server)
        self.guest(server, "rm", "/root/note")
        self.act(server, {"rebuild": {"imageRef": image["id"]}}, "ACTIVE")
        self.assert_note(server, "kept")
        self.assert_clean()


class ShelveTest(SnapshotTestCase):
    def test_there_and_back(self):
        self.flags(shelved_offload_time=-1)
        server = self.boot()
        self.write(server, "shelved")
        self.act(server, {"shelve": None}, "SHELVED")
        assert self.lxd_instance(server)["status"] == "Stopped"
        self.assert_clean()
        self.act(server, {"unshelve": None}, "ACTIVE")
        self.assert_note(server, "shelved")
        self.assert_clean()

    def test_offloaded_it_leaves_the_host(self):
        self.flags(shelved_offload_time=0)
        server = self.boot(config_drive=True)
        (port,) = self.neutron.ports_of(server["id"])
        self.write(server, "away")
        self.act(server, {"shelve": None}, "SHELVED_OFFLOADED")
        self.assert_nothing_on_host()
        self.act(server, {"unshelve": None}, "ACTIVE")
        self.assert_note(server, "away")
        address = self.guest(server, "cat", "/sys/class/net/eth0/address")
        assert address == port["mac_address"]
        self.assert_clean()

    def test_a_shelved_server_is_deleted(self):
        for time in (-1, 0):
            self.flags(shelved_offload_time=time)
            server = self.boot()
            status = "SHELVED_OFFLOADED" if time == 0 else "SHELVED"
            self.act(server, {"shelve": None}, status)
            self.delete(server)
            self.assert_nothing_on_host()

    def test_an_unshelve_that_fails_can_be_repeated(self):
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[nova\.scheduler\.utils\]")
        self.expect_log(r"\[oslo_messaging\.rpc\.server\]")
        self.flags(shelved_offload_time=0)
        server = self.boot()
        self.write(server, "patient")
        self.act(server, {"shelve": None}, "SHELVED_OFFLOADED")

        def ensure(*args, **kwargs):
            raise exception.LXDDriverError("no room")

        with fixtures.MonkeyPatch("nova_lxd.virt.imagecache.ImageCache.ensure", ensure):
            self.api.post_server_action(server["id"], {"unshelve": None})
            wait_for(lambda: "no room" in self.stdlog.logger.output, "the unshelve to fail")
            self.wait_status(server, "SHELVED_OFFLOADED")
        self.assert_nothing_on_host()
        self.act(server, {"unshelve": None}, "ACTIVE")
        self.assert_note(server, "patient")


class FailureTest(SnapshotTestCase):
    def setUp(self):
        super().setUp()
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[oslo_messaging\.rpc\.server\]")

    def hold_upload(self) -> tuple[threading.Event, threading.Event]:
        """Let uploads to Glance wait in the middle; the events say begun, and go on."""
        begun, going = threading.Event(), threading.Event()
        update = self.glance.update

        def held(context, image_id, metadata, data=None, purge_props=False):
            if data is not None:
                assert data.read(1)
                begun.set()
                assert going.wait(DEADLINE)
            return update(context, image_id, metadata, data, purge_props)

        self.glance.update = held
        return begun, going

    def assert_nothing_left(self, server: dict, image: str) -> None:
        with pytest.raises(Exception, match=image):
            self.glance.show(None, image)
        assert self.lxd_snapshots(server) == []
        assert set(self.stored()) == {self.busybox_image()}
        self.assert_clean()

    def test_glance_fails(self):
        server = self.boot()

        def update(*args, **kwargs):
            raise OSError("Glance is full")

        self.glance.update = update
        image = self.create_image(server)
        self.wait_idle(server)
        self.assert_nothing_left(server, image)

    def test_lxd_fails(self):
        server = self.boot()
        self.guest(server, "sh", "-c", "dd if=/dev/urandom of=/root/big bs=1M 2>&1; sync; true")
        image = self.create_image(server)
        self.wait_idle(server)
        self.assert_nothing_left(server, image)
        self.guest(server, "rm", "/root/big")
        self.guest(server, "sync")
        self.snapshot(server)

    def test_a_shelving_that_fails_leaves_the_server(self):
        server = self.boot()

        def update(*args, **kwargs):
            raise OSError("Glance is full")

        self.glance.update = update
        before = {image["id"] for image in self.glance.detail(None)}
        self.api.post_server_action(server["id"], {"shelve": None})
        wait_for(lambda: "Glance is full" in self.stdlog.logger.output, "the shelving to fail")
        self.wait_idle(server)
        assert {image["id"] for image in self.glance.detail(None)} == before
        assert self.lxd_snapshots(server) == []
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        self.assert_clean()

    def test_the_server_is_deleted_meanwhile(self):
        server = self.boot()
        begun, going = self.hold_upload()
        image = self.create_image(server)
        assert begun.wait(DEADLINE)
        self.delete(server)
        self.assert_nothing_on_host()
        going.set()
        # Glance has all of it by then, and Nova leaves it there.
        wait_for(lambda: image in self.stored(), "the image to be named")
        assert self.glance.show(None, image)["status"] == "active"

    def test_nova_compute_ends_meanwhile(self):
        server = self.boot()
        first = self.boot_time(server)

        def publish(*args, **kwargs):
            raise SystemExit("nova-compute was killed")

        def drop(*args):
            dead.set()

        dead = threading.Event()
        with (
            fixtures.MonkeyPatch("nova_lxd.virt.snapshot.Snapshots._compress", publish),
            fixtures.MonkeyPatch("nova_lxd.virt.container.Containers.drop_snapshot", drop),
        ):
            self.create_image(server)
            assert dead.wait(DEADLINE)
        assert self.lxd_snapshots(server)
        self.restart_compute()
        assert self.lxd_snapshots(server) == []
        assert self.boot_time(server) == first
        self.snapshot(server)
