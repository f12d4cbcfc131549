"""The images in LXD's store, through Nova: kept while servers use them, made here, aged out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nova.context import get_admin_context

from tests.functional.base import wait_for
from tests.functional.test_snapshot import SnapshotTestCase
from tests.unit.lxd_contract import guests
from tests.unit.lxd_contract.client import Client


class ImageCacheTest(SnapshotTestCase):
    def setUp(self):
        super().setUp()
        self.flags(remove_unused_original_minimum_age_seconds=0, group="image_cache")

    def age(self) -> None:
        """Do what Nova does every forty minutes."""
        self.compute.manager._run_image_cache_manager_pass(get_admin_context())

    def test_an_unused_image_goes_and_a_used_one_stays(self):
        used, unused = (self.image(self._images.busybox) for _ in range(2))
        server = self.boot(image=used, networks="none")
        self.delete(self.boot(image=unused, networks="none"))
        assert set(self.stored()) == {used, unused}
        self.age()
        assert set(self.stored()) == {used}
        noted = datetime.fromisoformat(self.stored()[used]["properties"]["nova.used_at"])
        assert abs(datetime.now(UTC) - noted) < timedelta(minutes=10)
        assert self.stored()[used]["properties"]["nova.image_id"] == used
        self.delete(server)
        self.age()
        assert self.stored() == {}

    def test_a_server_that_is_off_its_host_or_soft_deleted_uses_its_image(self):
        self.flags(allow_resize_to_same_host=True)
        server = self.boot(networks="none")
        resize = {"resize": {"flavorRef": self.flavor(memory_mb=96)}}
        self.act(server, resize, "VERIFY_RESIZE")
        self.age()
        assert set(self.stored()) == {self.busybox_image()}
        self.act(server, {"revertResize": None}, "ACTIVE")
        self.flags(reclaim_instance_interval=3600)
        self.api.delete_server(server["id"])
        self.wait_status(server, "SOFT_DELETED")
        self.flags(reclaim_instance_interval=0)
        self.age()
        assert set(self.stored()) == {self.busybox_image()}
        self.act(server, {"restore": None}, "ACTIVE")

    def test_a_young_image_stays(self):
        self.flags(remove_unused_original_minimum_age_seconds=3600, group="image_cache")
        self.delete(self.boot(networks="none"))
        self.age()
        assert set(self.stored()) == {self.busybox_image()}

    def test_an_image_that_is_not_novas_stays(self):
        lxd = Client(str(self._machine.lxd.socket), self._project)
        assert lxd.upload(guests.metadata(), guests.rootfs(deaf=True)).succeeded
        (fingerprint,) = self.lxd_names("images")
        body = {"name": "debian", "target": fingerprint}
        assert lxd.call("POST", "/1.0/images/aliases", body).succeeded
        self.age()
        assert set(self.stored()) == {"debian"}

    def test_a_server_of_a_snapshot_on_the_same_host_waits_for_no_download(self):
        server = self.boot()
        self.write(server, "here")
        image = self.snapshot(server)["id"]
        kept = self.stored()[image]
        assert kept["public"] is False
        assert kept["properties"]["nova.image_id"] == image
        self.glance.downloads.clear()
        other = self.boot(image=image)
        assert self.glance.downloads == []
        self.assert_like_an_original(server, other, kept["fingerprint"])
        self.delete(other)

        # Elsewhere, or later, it comes from Glance, and makes no difference.
        self.age()
        assert set(self.stored()) == {self.busybox_image()}
        other = self.boot(image=image)
        assert self.glance.downloads == [image]
        fetched = self.stored()[image]["fingerprint"]
        assert fetched != kept["fingerprint"]
        self.assert_like_an_original(server, other, fetched)
        self.assert_clean()

    def assert_like_an_original(self, server: dict, other: dict, fingerprint: str) -> None:
        """Check a server that was made of another one's image."""
        assert self.lxd_instance(other)["config"]["volatile.base_image"] == fingerprint
        self.assert_note(other, "here")
        (port,) = self.neutron.ports_of(other["id"])
        assert self.guest(other, "cat", "/sys/class/net/eth0/address") == port["mac_address"]
        assert self.guest(other, "hostname") == self.guest(server, "hostname")
        shown = self.lxd_instance(other)
        assert set(shown["devices"]) == {f"tap{port['id'][:11]}"}
        assert shown["profiles"] == self.lxd_instance(server)["profiles"]
        path = f"/1.0/instances/{self.name_of(other)}/metadata?project={self._project}"
        assert not self._machine.get(path).get("templates")
        self.assert_clean()

    def test_an_unshelve_on_the_same_host_waits_for_no_download(self):
        self.flags(shelved_offload_time=0)
        server = self.boot()
        self.write(server, "here")
        self.act(server, {"shelve": None}, "SHELVED_OFFLOADED")
        self.glance.downloads.clear()
        self.act(server, {"unshelve": None}, "ACTIVE")
        assert self.glance.downloads == []
        self.assert_note(server, "here")
        # Nova has deleted the shelved image in Glance, and asks for it no more.
        self.age()
        assert set(self.stored()) == {self.busybox_image()}

    def test_nova_runs_it_by_itself(self):
        unused = self.image(self._images.busybox)
        self.delete(self.boot(image=unused, networks="none"))
        tasks = dict(self.compute.manager._periodic_tasks)
        run = tasks["_run_image_cache_manager_pass"]
        run(self.compute.manager, get_admin_context())
        wait_for(lambda: not self.stored(), "the image to go")
