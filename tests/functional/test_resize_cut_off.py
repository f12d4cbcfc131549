"""nova-compute dies in the middle of a resize: the server is whole with one of its two flavors."""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass

import fixtures
from nova.cmd import manage

from tests.functional.base import DEADLINE, HOST, ServerTestCase, wait_for

OLD, NEW = ("64MiB", "1", "1GiB"), ("96MiB", "2", "2GiB")


class Death(BaseException):
    """What is in the way of a dying service's last words: nothing that it does arrives."""


@dataclass(frozen=True)
class Cut:
    """Where the service dies, and what becomes of the server."""

    at: str
    """A function of the driver's, by its path from the driver, or of Nova's, by its own."""
    task: str
    """Nova's task at that moment."""
    after: bool = False
    """Whether the function is carried out before the service dies."""
    new: bool = False
    """Whether the server has its new flavor in the end."""


CUTS = {
    "prep": Cut("nova.compute.manager.ComputeManager._prep_resize", "resize_prep"),
    "migrating_before_the_stop": Cut("_power.off", "resize_migrating"),
    "migrating_after_the_stop": Cut("_power.off", "resize_migrating", after=True),
    "migrating_after_the_snapshot": Cut("_session.create_snapshot", "resize_migrating", after=True),
    "migrated": Cut("nova.network.neutron.API.migrate_instance_finish", "resize_migrated"),
    "finish_before_the_change": Cut("_containers.configure", "resize_finish", new=True),
    "finish_in_the_change": Cut("_session.create_profile", "resize_finish", after=True, new=True),
    "finish_before_the_start": Cut("_power.on", "resize_finish", new=True),
    "finish_after_the_start": Cut("_power.on", "resize_finish", after=True, new=True),
}


class CutOffTest(ServerTestCase):
    """One test for each row of ``CUTS``."""

    def setUp(self):
        super().setUp()
        self.flags(allow_resize_to_same_host=True)
        self.expect_log(r"\[nova\.compute\.manager\]", r"\[oslo_messaging\.rpc\.server\]")
        self.small = self.flavor(memory_mb=64, vcpus=1, disk=1)
        self.large = self.flavor(memory_mb=96, vcpus=2, disk=2)

    def check(self, cut: Cut) -> None:
        server = self.boot(flavor=self.small)
        self.guest(server, "sh", "-c", "echo kept >/root/note")
        self.die_at(server, cut)
        self.restart_compute()
        self.recover(server, cut)
        assert self.limits(server) == (NEW if cut.new else OLD)
        assert self.snapshots(server) == []
        assert self.guest(server, "cat", "/root/note") == "kept"
        flavor = self.api.get_server(server["id"])["flavor"]
        assert flavor["ram"] == (96 if cut.new else 64)
        self.settle_placement(server)
        self.assert_clean()
        self.act(server, {"os-stop": None}, "SHUTOFF")
        self.act(server, {"os-start": None}, "ACTIVE")

    def die_at(self, server: dict, cut: Cut) -> None:
        """Resize a server, and let the service die on the way."""
        dead = threading.Event()
        path, name = cut.at.rsplit(".", 1)
        owner = self.compute.driver
        if path.startswith("nova."):
            module, class_ = path.rsplit(".", 1)
            owner = getattr(importlib.import_module(module), class_)
        else:
            owner = getattr(owner, path)
        function = getattr(owner, name)

        def say_nothing(*args, **kwargs):
            raise Death

        def die(*args, **kwargs):
            if cut.after:
                function(*args, **kwargs)
            self.compute.driver._session.request = say_nothing
            dead.set()
            raise Death

        with fixtures.MockPatchObject(owner, name, die):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.large}})
            assert dead.wait(DEADLINE)
        assert self.api.get_server(server["id"])["OS-EXT-STS:task_state"] == cut.task

    def recover(self, server: dict, cut: Cut) -> None:
        """Do what is left to do for the tenant, or for the administrator, and see it run."""
        if cut.task == "resize_migrated":
            # Nova leaves it as it is: the message that lets it go on may be waiting still.
            self.api.post_server_action(server["id"], {"os-resetState": {"state": "active"}})
            self.restart_compute()
        if cut.new:
            assert self.api.get_server(server["id"])["status"] == "ERROR"
        if cut.new or cut.task == "resize_migrated":
            self.api.post_server_action(server["id"], {"reboot": {"type": "HARD"}})
        wait_for(lambda: self.is_up(server), "the server to run")

    def is_up(self, server: dict) -> bool:
        now = self.api.get_server(server["id"])
        up = now["status"] == "ACTIVE" and not now["OS-EXT-STS:task_state"]
        return up and self.lxd_instance(server)["status"] == "Running"

    def settle_placement(self, server: dict) -> None:
        """Do what an operator does about the allocations of a resize that never ended."""
        provider = self._get_provider_uuid_by_host(HOST)
        for consumer in self._get_allocations_by_provider_uuid(provider):
            if consumer != server["id"]:
                self.placement.delete(f"/allocations/{consumer}")
        manage.PlacementCommands().heal_allocations(instance_uuid=server["id"], force=True)

    def limits(self, server: dict) -> tuple[str, str, str]:
        instance = self.lxd_instance(server)
        config, root = instance["expanded_config"], instance["expanded_devices"]["root"]
        return config["limits.memory"], config["limits.cpu"], root["size"]

    def snapshots(self, server: dict) -> list:
        path = f"/1.0/instances/{self.name_of(server)}/snapshots?project={self._project}"
        return self._machine.get(path)


def _fill(case: type[CutOffTest], table: dict[str, Cut]) -> None:
    for name, cut in table.items():

        def test(self, cut=cut):
            self.check(cut)

        test.__name__ = f"test_{name}"
        setattr(case, test.__name__, test)


_fill(CutOffTest, CUTS)
