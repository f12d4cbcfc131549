"""nova-lxd-status on a host with a server: what is nobody's, and that its removal harms nobody."""

from __future__ import annotations

import contextlib
import io
import os
import time
import uuid
from dataclasses import replace
from pathlib import Path

import fixtures
import nova.conf

from aio.run import run
from nova_lxd.cmd import conductor, orphans, readiness, status
from nova_lxd.invariants import Facts, gather
from nova_lxd.virt import download
from tests.functional.base import DEADLINE, ServerTestCase, wait_for
from tests.functional.machine import BRIDGE, POOL, PORT_PREFIX

CONF = nova.conf.CONF
GHOST = "instance-0000dead"
OTHERS = "of-another-user"


class StatusTestCase(ServerTestCase):
    """Nova's word comes from the database itself: there is no broker in this ring."""

    def setUp(self):
        super().setUp()
        self.flags(ovsdb_connection=self._machine.ovs.db, group="os_vif_ovs")
        self.useFixture(fixtures.MockPatchObject(orphans, "PAUSE", 1))
        self._ghost = str(uuid.uuid4())

    def look(self) -> Facts:
        """Read the facts; the machine's other links are those of a cloud beside us."""
        facts = orphans.facts_of_host(CONF.lxd.endpoint)
        return replace(facts, links=self._machine.our_links())

    def report(self) -> orphans.Report:
        return orphans.find(self.look, conductor.Nova(DEADLINE))

    def say(self, form: str) -> tuple[int, str]:
        """Return the exit status and what is printed."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = status.report_orphans(self.report(), form)
        return code, out.getvalue()

    def lxc(self, *words: str) -> str:
        return self._machine.lxd.lxc(*words, "--project", self._project)

    def vsctl(self, *words: str) -> str:
        return self._machine.ovs.vsctl(*words)

    def port_id(self, mark: str) -> str:
        return PORT_PREFIX + mark * 4 + str(uuid.uuid4())[8:]


class OrphansTest(StatusTestCase):
    def test_every_kind_is_listed_and_its_command_removes_it(self):
        server = self.boot()
        boot_time = self.boot_time(server)
        made = self._make_orphans(server)
        kept = self._make_others(server)

        # What has just come may be in the making.
        self.flags(operation_timeout=2, group="lxd")
        wait_for(lambda: {each.what for each in self.report().orphans} >= made, "all to be old")
        report = self.report()
        assert report.undecided == ()
        found = {orphan.what: orphan for orphan in report.orphans}
        assert set(found) == made
        assert f"Nova knows no server {self._ghost}" in found[f"instance {GHOST}"].why
        twin = found[f"instance {self.name_of(server)}-rescue"]
        assert f"server {server['id']} is active" in twin.why
        assert twin.server == server["id"]

        code, text = self.say("commands")
        assert code == 1
        commands = text.splitlines()
        assert commands == [orphan.command for orphan in report.orphans]
        for command in commands:
            run("sh", "-ec", command, env={"LXD_CONF": str(self._machine.lxd.client_config)})

        assert self.say("json") == (0, '{"orphans": [], "undecided": []}\n')
        assert self.boot_time(server) == boot_time
        assert self._others(server) == kept
        self._remove_others(server)
        self.assert_clean()

    def test_a_host_with_a_server_is_clean(self):
        self.boot()
        code, text = self.say("table")
        assert code == 0
        assert "Nothing" in text

    def test_a_server_that_is_stopped_rescued_or_resized_leaves_nothing(self):
        server = self.boot()
        self.act(server, {"os-stop": None}, "SHUTOFF")
        assert self.report() == orphans.Report()
        self.act(server, {"os-start": None}, "ACTIVE")
        self.act(server, {"rescue": {}}, "RESCUE")
        assert self.report() == orphans.Report()
        self.act(server, {"unrescue": None}, "ACTIVE")
        self.flags(allow_resize_to_same_host=True)
        flavor = self.flavor(memory_mb=96)
        self.act(server, {"resize": {"flavorRef": flavor}}, "VERIFY_RESIZE")
        assert self.report() == orphans.Report()
        self.act(server, {"confirmResize": None}, "ACTIVE")

    # -- what is left, of every kind

    def _make_orphans(self, server: dict) -> set[str]:
        """Leave one of each; return how they are listed."""
        return {
            *self._left_in_lxd(server),
            *self._left_hybrid(),
            *self._left_native(),
            *self._left_trunk(),
            *self._left_in_folder(),
        }

    def _left_in_lxd(self, server: dict) -> list[str]:
        name, owner = self.name_of(server), f"user.nova.uuid={self._ghost}"
        product = "environment.product_name=OpenStack Nova"
        image = self.lxd_names("images")[0]
        self.lxc("profile", "create", GHOST)
        self.lxc("profile", "set", GHOST, product)
        self.lxc("profile", "device", "add", GHOST, "root", "disk", "path=/", f"pool={POOL}")
        self.lxc("storage", "volume", "create", POOL, f"{GHOST}-config", owner)
        self.lxc("init", image, GHOST, "--profile", GHOST, "-c", owner)
        self.lxc("publish", GHOST, "nova.image_id=of-nobody")
        (nameless,) = set(self.lxd_names("images")) - {image}
        path = "/mnt/config"
        self.lxc("config", "device", "add", GHOST, "config-drive", "disk", f"pool={POOL}",
                 f"source={GHOST}-config", f"path={path}")  # fmt: skip
        self.lxc("start", GHOST)
        twin = f"{name}-rescue"
        (profile,) = self.lxd_instance(server)["profiles"]
        self.lxc("init", image, twin, "--profile", profile, "-c", f"user.nova.uuid={server['id']}")
        self.lxc("snapshot", name, "nova-image")
        return [
            f"instance {GHOST}",
            f"instance {twin}",
            f"profile {GHOST}",
            f"volume {POOL} {GHOST}-config",
            f"image {nameless[:12]}",
            f"snapshot {name}/nova-image",
        ]

    def _left_hybrid(self) -> list[str]:
        port = self.port_id("b")
        short = port[:11]
        run("ip", "link", "add", f"qbr{short}", "type", "bridge")
        run("ip", "link", "add", f"qvb{short}", "type", "veth", "peer", "name", f"qvo{short}")
        run("ip", "link", "add", f"tap{short}", "type", "veth", "peer", "name", f"gone{short[:8]}")
        run("ip", "link", "set", f"qvb{short}", "master", f"qbr{short}")
        self._add_port(BRIDGE, f"qvo{short}", port, self._ghost)
        alone = f"qbr{self.port_id('c')[:11]}"
        run("ip", "link", "add", alone, "type", "bridge")
        links = [*(f"{end}{short}" for end in ("qbr", "qvb", "tap")), alone]
        return [f"OVS port qvo{short}", *(f"link {name}" for name in links)]

    def _left_native(self) -> list[str]:
        port = self.port_id("a")
        short = port[:11]
        run("ip", "link", "add", f"tap{short}", "type", "veth", "peer", "name", f"tin{short}")
        self._add_port(BRIDGE, f"tap{short}", port, self._ghost)
        return [f"OVS port tap{short}", f"link tap{short}"]

    def _left_trunk(self) -> list[str]:
        bridge, port = "tbr-dead0000-d", self.port_id("e")
        name = f"tap{port[:11]}"
        self._machine.ovs.add_bridge(bridge)
        self.addCleanup(self.vsctl, "--if-exists", "del-br", bridge)
        self._add_port(bridge, name, port, self._ghost)
        return [f"OVS bridge {bridge}", f"OVS port {name}"]

    def _left_in_folder(self) -> list[str]:
        root = Path(CONF.instances_path)
        folder = root / self._ghost
        (folder / "mnt").mkdir(parents=True)
        (folder / "console.log").write_text("login:")
        run("mount", "-t", "tmpfs", "tmpfs", str(folder / "mnt"))
        self.addCleanup(self._may_fail, "umount", str(folder / "mnt"))
        disk = folder / "disk"
        with disk.open("wb") as file:
            file.truncate(2**20)
        device = run("losetup", "--show", "--find", str(disk)).strip()
        self.addCleanup(self._may_fail, "losetup", "-d", device)
        image = root / f"{download.folder_prefix()}ab12cd34"
        image.mkdir()
        old = time.time() - CONF.lxd.image_timeout - 60
        os.utime(image, (old, old))
        return [
            f"mount {folder / 'mnt'}",
            f"loop device {device}",
            f"folder {self._ghost}",
            f"file {image.name}",
        ]

    def _add_port(self, bridge: str, name: str, port_id: str, server: str) -> None:
        ids = [f"external_ids:iface-id={port_id}", f"external_ids:vm-uuid={server}"]
        self.vsctl(
            "add-port", bridge, name, "--", "set", "Interface", name, *(ids if server else ids[:1])
        )

    @staticmethod
    def _may_fail(*command: str) -> None:
        with contextlib.suppress(Exception):
            run(*command)

    # -- what others have on the same host

    def _make_others(self, server: dict) -> list[object]:
        self.lxc("profile", "create", OTHERS)
        self.lxc("init", self.lxd_names("images")[0], OTHERS, "-s", POOL)
        self.lxc("storage", "volume", "create", POOL, OTHERS)
        self.lxc("snapshot", self.name_of(server), OTHERS)
        dhcp = self.port_id("d")
        self._add_port(BRIDGE, f"tap{dhcp[:11]}", dhcp, "")
        run(
            "ip",
            "link",
            "add",
            f"tap{dhcp[:11]}",
            "type",
            "veth",
            "peer",
            "name",
            f"ns-{dhcp[:11]}",
        )
        (Path(CONF.instances_path) / "_base").mkdir()
        (Path(CONF.instances_path) / "_base" / "libvirt.part").touch()
        self._dhcp = dhcp[:11]
        return self._others(server)

    def _others(self, server: dict) -> list[object]:
        """List all that must still be there in the end."""
        get, project = self._machine.get, self._project
        volumes = [item.name for item in gather.objects(get, project) if item.kind == "volume"]
        instances = {each.name: each for each in gather.instances(get, project)}
        return [
            OTHERS in self.lxd_names("profiles"),
            OTHERS in instances,
            f"{POOL} {OTHERS}" in volumes,
            OTHERS in instances[self.name_of(server)].snapshots,
            f"tap{self._dhcp}" in {link.name for link in self._machine.our_links()},
            f"tap{self._dhcp}" in {port.name for port in gather.ovs_ports(self._machine.ovs.db)},
            (Path(CONF.instances_path) / "_base" / "libvirt.part").exists(),
        ]

    def _remove_others(self, server: dict) -> None:
        self.lxc("delete", OTHERS)
        self.lxc("delete", f"{self.name_of(server)}/{OTHERS}")
        self.lxc("profile", "delete", OTHERS)
        self.lxc("storage", "volume", "delete", POOL, OTHERS)
        self.vsctl("del-port", f"tap{self._dhcp}")
        run("ip", "link", "delete", f"tap{self._dhcp}")
        (Path(CONF.instances_path) / "_base" / "libvirt.part").unlink()


class NativeOrphansTest(OrphansTest):
    hybrid = False


class CheckTest(StatusTestCase):
    starts_compute = False

    def check(self) -> tuple[int, dict[str, tuple[int, str]]]:
        """Return the exit status, and the result and the details of every check."""
        checks = readiness.Readiness()
        results = {name: run_(checks) for name, run_ in checks._upgrade_checks}
        code = max(result.code for result in results.values())
        return code, {name: (each.code, each.details) for name, each in results.items()}

    def test_a_host_that_is_ready(self):
        before = self._machine.get("/1.0/projects")
        _, results = self.check()
        del results["Privileged helpers"]  # this ring needs none
        assert {name for name, (code, _) in results.items() if code} == set(), results
        assert (
            results["LXD project"][1]
            == f"{self._project}: nova-compute makes it at its first start"
        )
        assert "GiB free" in results["Storage pool"][1]
        assert self._machine.get("/1.0/projects") == before

    def test_a_host_that_is_not(self):
        self.flags(pool="none", group="lxd")
        self.flags(ovs_bridge="br-none", group="neutron")
        code, results = self.check()
        assert code == 2
        assert results["Storage pool"][0] == 2
        assert (
            "[lxd]pool: LXD has no storage pool 'none' (it has: default)"
            in results["Storage pool"][1]
        )
        assert "has no bridge br-none" in results["Open vSwitch"][1]
        self.flags(endpoint="/nonexistent", group="lxd")
        _, results = self.check()
        assert "no LXD answers at /nonexistent" in results["LXD"][1]
        assert results["LXD project"] == (2, "not known: LXD does not answer, see above")

    def test_what_the_driver_made_is_found(self):
        self.start_compute()
        _, results = self.check()
        assert results["LXD project"] == (0, self._project)
