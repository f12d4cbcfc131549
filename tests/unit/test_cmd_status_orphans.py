"""nova-lxd-status orphans: nothing is called one that somebody may need."""

from __future__ import annotations

import datetime
import os
import time
from dataclasses import replace
from pathlib import Path

import nova.conf
import pytest
from nova.compute import vm_states
from oslo_utils import timeutils

from nova_lxd.cmd import orphans
from nova_lxd.cmd.conductor import CannotTell, Fate
from nova_lxd.cmd.orphans import Report
from nova_lxd.invariants import (
    Expected,
    ExpectedServer,
    Facts,
    Link,
    LxdImage,
    LxdInstance,
    LxdObject,
    OvsPort,
)
from nova_lxd.virt import download

CONF = nova.conf.CONF
HOST = CONF.host
UUID = "7a3b8a52-0f0a-4c5e-8f0c-0d2b2a7d6a01"
NAME = "instance-00000001"
SERVER = ExpectedServer(NAME, UUID, 512, 1, status="Running")
INSTANCE = LxdInstance(NAME, "Running", {"user.nova.uuid": UUID}, {})
STRAY = Facts(instances=(INSTANCE,))
WIRE = Facts(
    links=(Link("qvo22222222-22", 1450, kind="veth"),),
    ovs_ports=(OvsPort("qvo22222222-22", "br-int", {"vm-uuid": UUID}),),
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(orphans, "PAUSE", 0)


class Story:
    """What is found and what Nova says, look by look; the last of each stays."""

    def __init__(self, facts, servers=((),), fate=None, **expected) -> None:
        self.facts = list(facts)
        self.servers = list(servers)
        self.known = fate
        self.more = expected
        self.told: list[str] = []

    def look(self) -> Facts:
        self.told.append("facts")
        return self.facts.pop(0) if len(self.facts) > 1 else self.facts[0]

    def expected(self) -> Expected:
        self.told.append("nova")
        servers = self.servers.pop(0) if len(self.servers) > 1 else self.servers[0]
        return Expected("nova", tuple(servers), **self.more)

    def fate(self, uuid: str) -> Fate | None:
        self.told.append("fate")
        if isinstance(self.known, Exception):
            raise self.known
        return self.known

    def end(self) -> Report:
        return orphans.find(self.look, self)


def at(host: str = "other", vm_state: str = vm_states.ACTIVE, **more) -> Fate:
    return Fate(host, vm_state, more.pop("busy", False), **more)


def ago(seconds: float) -> datetime.datetime:
    return timeutils.utcnow(with_timezone=True) - datetime.timedelta(seconds=seconds)


def test_a_clean_host_needs_one_look():
    story = Story([STRAY], [[SERVER]])
    assert story.end() == Report()
    assert story.told == ["facts", "nova"]


def test_an_orphan_is_seen_twice_and_nova_is_asked_after_each_look():
    story = Story([STRAY])
    (orphan,) = story.end().orphans
    assert story.told == ["facts", "nova", "facts", "nova", "fate"]
    assert orphan.what == f"instance {NAME}"
    assert orphan.why == f"Nova knows no server {UUID}"
    assert orphan.command == f"lxc --project nova delete --force {NAME}"
    assert orphan.server == UUID


def test_what_is_being_removed_is_gone_at_the_second_look():
    assert Story([STRAY, Facts()]).end() == Report()


def test_what_an_undecided_container_uses_is_undecided():
    ours = {"environment.product_name": "OpenStack Nova"}
    facts = replace(STRAY, objects=(LxdObject("profile", NAME, ours, (NAME,)),))
    report = Story([facts], fate=at(busy=True)).end()
    assert report.orphans == ()
    assert len(report.undecided) == 2


def test_a_trunk_without_a_port_is_left_out():
    facts = Facts(ovs_ports=(OvsPort("tbr-11111111-1", "tbr-11111111-1"),))
    report = Story([facts]).end()
    assert report.orphans == ()
    (line,) = report.undecided
    assert line.startswith("OVS bridge tbr-11111111-1: it names no server")
    assert line.endswith("ovs-vsctl --if-exists del-br tbr-11111111-1")


def test_an_image_on_its_way_that_has_just_gone(options):
    facts = Facts(files=(f"{download.folder_prefix()}abc",))
    report = Story([facts], image_folders=download.folder_prefix()).end()
    assert report.orphans == ()


def test_what_came_while_nova_was_asked_has_a_server_at_the_second_look():
    assert Story([STRAY], [[], [SERVER]]).end() == Report()


def test_what_is_there_at_the_second_look_only_is_not_judged():
    assert Story([WIRE, replace(WIRE, instances=(INSTANCE,))], fate=at()).end().orphans == ()


@pytest.mark.parametrize(
    ("fate", "why"),
    [
        (None, f"Nova knows no server {UUID}"),
        (at(), f"server {UUID} is on host other"),
        (at("", vm_states.SHELVED_OFFLOADED), f"server {UUID} is on no host (shelved_offloaded)"),
        (
            at(deleted_at=datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)),
            f"server {UUID} was deleted at 2026-01-02 03:04:05 UTC",
        ),
    ],
)
def test_it_is_said_what_became_of_the_server(fate, why):
    (orphan,) = Story([STRAY], fate=fate).end().orphans
    assert orphan.why == why


@pytest.mark.parametrize(
    ("facts", "fate", "doubt"),
    [
        (STRAY, at(busy=True), "Nova is doing something"),
        (STRAY, at(vm_state=vm_states.ERROR), "is in ERROR"),
        (STRAY, at(HOST), "Nova is doing something"),
        (STRAY, at(deleted_at=ago(20)), "it may go by itself yet"),
        (WIRE, at(), "another nova-compute of this machine"),
        (Facts(files=(UUID,)), at(), "another nova-compute of this machine"),
    ],
)
def test_what_may_be_somebodys_is_left_out(facts, fate, doubt):
    report = Story([facts], fate=fate).end()
    assert report.orphans == ()
    assert report.undecided
    assert all(doubt in line for line in report.undecided)


def test_wires_of_a_server_that_was_deleted_are_orphans():
    report = Story([WIRE], fate=at(deleted_at=ago(3600))).end()
    assert [orphan.what for orphan in report.orphans] == [
        "OVS port qvo22222222-22",
        "link qvo22222222-22",
    ]


def test_wires_that_nobody_uses_are_orphans_without_a_server_that_they_name():
    bridge, veth = "qbr22222222-22", {"kind": "veth", "promiscuous": True}
    links = (
        Link(bridge, 1450, kind="bridge", promiscuous=True),
        Link("tap22222222-22", 1450, master=bridge, **veth),
        Link("qvb22222222-22", 1450, master=bridge, **veth),
    )
    orphans_ = Story([Facts(links=links)]).end().orphans
    assert [orphan.what for orphan in orphans_] == [f"link {link.name}" for link in links]
    assert {orphan.why for orphan in orphans_} == {"no Neutron port needs it"}


def test_what_a_container_that_lxd_forgot_still_has_goes_with_its_deleted_server():
    used = replace(WIRE, links=(replace(WIRE.links[0], in_container=True),))
    assert len(Story([used], fate=at(deleted_at=ago(3600))).end().orphans) == 2


def test_a_twin_of_a_server_that_is_not_rescued():
    twin = LxdInstance(f"{NAME}-rescue", "Stopped", {"user.nova.uuid": UUID}, {})
    facts = Facts(instances=(INSTANCE, twin))
    (orphan,) = Story([facts], [[SERVER]], at(HOST)).end().orphans
    assert orphan.what == f"instance {NAME}-rescue"
    assert orphan.why == f"server {UUID} is active and has no use for it"
    unsettled = replace(SERVER, settled=False)
    assert Story([facts], [[unsettled]]).end() == Report()
    assert Story([facts], [[replace(SERVER, rescued=True)]]).end() == Report()


def test_without_an_answer_nothing_is_said():
    with pytest.raises(CannotTell, match="conductor"):
        Story([STRAY], fate=CannotTell("conductor")).end()


@pytest.mark.parametrize("age", [60, 7200])
def test_an_image_on_its_way_is_no_orphan(age, options, tmp_path):
    folder = Path(CONF.instances_path) / f"{download.folder_prefix()}abc"
    folder.mkdir(parents=True)
    file = folder / "image"
    file.touch()
    for path in (file, folder):
        os.utime(path, (time.time() - age,) * 2)
    facts = Facts(files=(folder.name,), instances_path=CONF.instances_path)
    report = Story([facts], image_folders=download.folder_prefix()).end()
    assert bool(report.orphans) == (age > CONF.lxd.image_timeout)
    assert bool(report.undecided) == (age < CONF.lxd.image_timeout)


# -- what is not ours

OTHERS = {
    "an instance by hand": Facts(instances=(LxdInstance("web", "Running", {}, {}),)),
    "its profile": Facts(objects=(LxdObject("profile", "web"),)),
    "a volume": Facts(objects=(LxdObject("volume", "default data"),)),
    "an operation": Facts(objects=(LxdObject("operation", "5f2a"),)),
    "a profile that a foreign instance uses": Facts(
        instances=(LxdInstance("web", "Running", {}, {}),),
        objects=(
            LxdObject("profile", NAME, {"environment.product_name": "OpenStack Nova"}, ("web",)),
        ),
    ),
    "an image": Facts(images=(LxdImage("f" * 64, ()),)),
    "an image with a name": Facts(images=(LxdImage("f" * 64, ("id",), {"nova.image_id": "id"}),)),
    "a DHCP port": Facts(
        links=(Link("tap22222222-22", 1450, kind="veth"),),
        ovs_ports=(OvsPort("tap22222222-22", "br-int", {"iface-id": "x"}),),
    ),
    "a router's ports": Facts(ovs_ports=(OvsPort("qr-22222222-22", "br-int", {"iface-id": "x"}),)),
    "a virtual machine": Facts(
        links=tuple(
            Link(f"{end}22222222-22", 1450, kind=kind)
            for end, kind in (("tap", "tun"), ("qbr", "bridge"), ("qvb", "veth"), ("qvo", "veth"))
        ),
    ),
    "libvirt without Nova": Facts(ovs_ports=(OvsPort("vnet0", "br-int", {"vm-uuid": UUID}),)),
    "another integration bridge": Facts(
        links=(Link("qvb22222222-22", 1450, kind="veth"),),
        ovs_ports=(OvsPort("qvo22222222-22", "br-two", {"vm-uuid": UUID}),),
    ),
    "a container of another LXD": Facts(
        links=(
            Link("qbr22222222-22", 1450, kind="bridge"),
            Link("tap22222222-22", 1450, "", "qbr22222222-22", "veth", in_container=True),
        ),
    ),
    "another Open vSwitch": Facts(
        links=(
            Link("qbr22222222-22", 1450, kind="bridge"),
            Link("qvo22222222-22", 1450, kind="veth", promiscuous=True),
            Link("tap44444444-44", 1450, kind="veth", promiscuous=True),
        ),
    ),
    "links of LXD's own": Facts(links=(Link("veth12ab34cd", 1450, kind="veth"),)),
    "a file system for the folder": Facts(mounts=("/srv/nova",), instances_path="/srv/nova"),
    "a mount in the folder": Facts(mounts=("/srv/nova/_base",), instances_path="/srv/nova"),
    "libvirt's files": Facts(files=("_base", "_base/x.part", "snapshots/tmp1", "locks", "a.tmp")),
    "another host's image": Facts(files=("lxd-image-other-ab",)),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_others_own_is_left_alone(case):
    story = Story([OTHERS[case]], image_folders="lxd-image-compute1-")
    assert story.end() == Report()


def test_what_a_servers_container_uses_is_left_alone():
    instance = replace(INSTANCE, devices={"tap22222222-22": {"type": "nic"}})
    facts = replace(WIRE, instances=(instance,))
    assert Story([facts], [[SERVER]], at(HOST)).end() == Report()


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({}, 1),
        ({"snapshots": frozenset({"nova-resize"})}, 0),
        ({"settled": False}, 0),
    ],
)
def test_snapshots_of_ours(changes, number):
    instance = replace(INSTANCE, snapshots=("nova-resize", "by-hand"), backups=("backup0",))
    story = Story([Facts(instances=(instance,))], [[replace(SERVER, **changes)]], at(HOST))
    assert len(story.end().orphans) == number


def test_an_image_may_be_in_the_making():
    facts = Facts(images=(LxdImage("f" * 64, (), {"nova.image_id": "id"}),))
    assert Story([facts], makes_images=True).end() == Report()
    young = Facts(images=(replace(facts.images[0], age=299),))
    assert Story([young], naming_seconds=300).end() == Report()
    (orphan,) = Story([facts], naming_seconds=300).end().orphans
    assert orphan.command == "lxc --project nova image delete ffffffffffff"


# -- one of each, in an order in which it can go


def test_mounts_go_before_their_folder_and_containers_before_what_they_use():
    used = {"tap22222222-22": {"type": "nic", "host_name": "tap22222222-22"}}
    facts = Facts(
        instances=(replace(INSTANCE, devices=used, snapshots=("nova-image",)),),
        objects=(
            LxdObject("profile", NAME, {"environment.product_name": "OpenStack Nova"}, (NAME,)),
            LxdObject("volume", f"default {NAME}-config", {"user.nova.uuid": UUID}, (NAME,)),
        ),
        links=tuple(Link(f"{end}22222222-22", 1450, kind="veth") for end in ("tap", "qvb", "qvo")),
        ovs_ports=(
            OvsPort("qvo22222222-22", "tbr-11111111-1", {"vm-uuid": UUID}),
            OvsPort("tbr-11111111-1", "tbr-11111111-1"),
        ),
        mounts=(f"/srv/nova/{UUID}/mnt", f"/srv/nova/{UUID}/mnt/a b"),
        loops={"/dev/loop7": f"/srv/nova/{UUID}/disk"},
        files=(UUID, f"{UUID}/console.part"),
        instances_path="/srv/nova",
    )
    report = Story([facts], ovs_vsctl="ovs-vsctl --db=tcp:127.0.0.1:6640").end()
    assert [orphan.command for orphan in report.orphans] == [
        f"lxc --project nova delete --force {NAME}",
        f"lxc --project nova profile delete {NAME}",
        f"lxc --project nova storage volume delete default {NAME}-config",
        "ovs-vsctl --db=tcp:127.0.0.1:6640 --if-exists del-port tbr-11111111-1 qvo22222222-22",
        "ovs-vsctl --db=tcp:127.0.0.1:6640 --if-exists del-br tbr-11111111-1",
        # The tap goes with its container, and qvo with qvb.
        "ip link delete qvb22222222-22",
        f"umount '/srv/nova/{UUID}/mnt/a b'",
        f"umount /srv/nova/{UUID}/mnt",
        "losetup -d /dev/loop7",
        f"rm -rf --one-file-system /srv/nova/{UUID}",
    ]
    assert {orphan.server for orphan in report.orphans} == {UUID}


# -- the host does not answer


def test_a_host_that_cannot_be_read(monkeypatch, options):
    with pytest.raises(CannotTell, match=r"LXD's socket is /nonexistent.*No such file"):
        orphans.facts_of_host("/nonexistent")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("sh", "-c", "echo no database >&2; exit 1"), "sh failed: no database"),
        (("sleep", "60"), "sleep did not answer within 0.1 s"),
        (("/nonexistent",), "No such file"),
    ],
)
def test_a_tool_that_fails(monkeypatch, options, command, message):
    monkeypatch.setattr(orphans.gather, "_TIMEOUT", 0.1 if command[0] == "sleep" else 60)
    monkeypatch.setattr(orphans.gather, "host", lambda *_: orphans.gather._run(*command))
    with pytest.raises(CannotTell, match=message):
        orphans.facts_of_host("/run/lxd.socket")
