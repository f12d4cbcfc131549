"""What becomes of hostile images, through Nova's API, on a real LXD: tests/hostile.py."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import nova.conf
import pytest
from nova.tests.functional.api import client as api_client

from nova_lxd.exception import DiskTooSmall
from tests import hostile
from tests.functional.base import wait_for
from tests.functional.machine import POOL
from tests.functional.test_failures import FailureTestCase
from tests.unit.archives import system

CONF = nova.conf.CONF


class HostileTest(FailureTestCase):
    def _start_nova(self):
        # What the scheduler would sort out must reach the driver here.
        self.flags(enabled_filters=["ComputeFilter"], group="filter_scheduler")
        super()._start_nova()

    @pytest.mark.timeout(3600)
    def test_refused_ones_leave_their_reason_and_nothing_else(self):
        # One after the other: Nova's fixtures for its databases lock up under many requests.
        wrong = []
        for row in hostile.ROWS:
            if not (row.accepted or row.by_api):
                try:
                    self.refuse(row)
                except AssertionError as error:
                    wrong.append(f"{row.name}: {error}")
        assert not wrong, "\n".join(wrong)

    def refuse(self, row: hostile.Row) -> None:
        """Ask for a server of a row's image; look at the answer, and at what is there then."""
        image = self.image(row.build(system()), **row.glance)
        before, used = self.held(), self.used()
        server = self.request(row, image)
        words = ["too small"] if row.error is DiskTooSmall else [image, row.words]
        self.assert_refused(server, *words)
        assert self.held() == before
        wait_for(lambda: self.used() <= used + hostile.MIB, "the pool to be as empty as before")
        self.delete(server)

    def test_accepted_ones_bring_their_root_and_nothing_else(self):
        for row in hostile.ROWS:
            if row.accepted:
                server = self.request(row, self.image(row.build(self.bootable()), **row.glance))
                self.assert_harmless(self.wait_status(server, "ACTIVE"))

    def test_those_that_the_api_refuses(self):
        for row in hostile.ROWS:
            if row.by_api:
                image = self.image(row.build(system()), **row.glance)
                with pytest.raises(api_client.OpenStackApiException, match=row.words) as refusal:
                    self.request(row, image)
                assert refusal.value.response.status_code == 400

    def request(self, row: hostile.Row, image: str) -> dict:
        """Ask for a server of the row's image."""
        flavor = self.flavor(disk=row.disk_gb)
        return self.request_server(image=image, flavor=flavor, networks="none")

    def bootable(self) -> hostile.System:
        """Return the entries of a root file system that boots."""
        with tarfile.open(fileobj=io.BytesIO(self._images.busybox)) as archive:
            return [
                (info, archive.extractfile(info).read() if info.isreg() else b"")
                for info in archive.getmembers()
            ]

    def held(self) -> dict:
        """Return everything that an image could leave behind, and which daemon holds it."""
        volumes = f"/1.0/storage-pools/{POOL}/volumes?project="
        return {
            "daemon": self._machine.lxd.process.pid,
            "images": self.lxd_names("images"),
            "volumes": [self._machine.get(volumes + name) for name in (self._project, "default")],
            "files of LXD": sorted(self._machine.lxd.folder.glob("images/*")),
            "files of nova-compute": sorted(Path(CONF.instances_path).glob("*")),
        }

    def used(self) -> int:
        """Return how many bytes of LXD's pool are taken.

        btrfs frees the space of what was deleted with its commits, of which it makes one in 30 s.
        """
        folder = self._machine.lxd.folder / "storage-pools" / POOL
        subprocess.run(["btrfs", "filesystem", "sync", str(folder)], check=True)
        return self._machine.get(f"/1.0/storage-pools/{POOL}/resources")["space"]["used"]

    def assert_harmless(self, server: dict) -> None:
        """Check that of an image its root file system alone has come to LXD."""
        path = f"/1.0/instances/{self.name_of(server)}/metadata"
        metadata = self._machine.get(f"{path}?project={self._project}")
        assert not metadata.get("templates"), metadata
        assert "evil" not in str(metadata)
        assert self._machine.get(f"{path}/templates?project={self._project}") == []
        assert "evil" not in str(self.lxd_instance(server))
        assert not Path("/etc/nova-lxd-hostile").exists()
        containers = self._machine.lxd.folder / "storage-pools" / POOL / "containers"
        folder = containers / f"{self._project}_{self.name_of(server)}"
        assert {p.name for p in folder.iterdir()} <= {"metadata.yaml", "backup.yaml", "rootfs"}
        assert not any(p.is_symlink() for p in folder.iterdir())
        assert self.name_of(server) in (folder / "backup.yaml").read_text()
        assert self.guest(server, "ls", "-d", "/sbin/init") == "/sbin/init"
