"""Every rule is shown a healthy host, which it must leave alone, and sick ones."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

import pytest

from nova_lxd import invariants
from nova_lxd.invariants import gather
from nova_lxd.invariants.facts import (
    Expected,
    ExpectedPort,
    ExpectedServer,
    Facts,
    HostSize,
    Link,
    LxdImage,
    LxdInstance,
    LxdObject,
    OvsPort,
    PlacementFacts,
)
from nova_lxd.invariants.instances import size_in_bytes
from nova_lxd.virt.model import IdRange

UUID = "7a3b8a52-0f0a-4c5e-8f0c-0d2b2a7d6a01"
OTHER = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
PORT = ExpectedPort("9e0c6af1-30c1-4d7a-9d5b-5ad0b4a3c001", "fa:16:3e:4c:2c:30", mtu=1450)
SERVER = ExpectedServer(
    "instance-00000001",
    UUID,
    memory_mb=512,
    vcpus=2,
    root_gb=1,
    status="Running",
    ports=(PORT,),
)
EXPECTED = Expected(
    "nova",
    servers=(SERVER,),
    id_range=IdRange(100000, 10000001),
    foreign={"default/web": "digest"},
    log_allowed=("Failed to build .* as the test wants",),
)


def idmap(base: int, size: int = 65536) -> str:
    """What LXD writes into ``volatile.idmap.*``."""
    entry = {"Hostid": base, "Nsid": 0, "Maprange": size}
    return json.dumps([entry | {"Isuid": True}, entry | {"Isgid": True}])


def instance(name: str = SERVER.name, base: int = 165536, **config: str) -> LxdInstance:
    """A container as the driver makes it; keyword ``a__b`` sets config key ``a.b``."""
    defaults = {
        "limits.memory": "512MiB",
        "limits.cpu": "2",
        "security.devlxd": "false",
        "security.idmap.isolated": "true",
        "user.nova.uuid": UUID,
        "volatile.idmap.next": idmap(base),
    }
    devices = {
        "root": {"type": "disk", "path": "/", "pool": "default", "size": "1GiB"},
        PORT.tap: {
            "type": "nic",
            "nictype": "bridged",
            "parent": "qbr9e0c6af1-30",
            "host_name": PORT.tap,
            "hwaddr": PORT.mac,
            "mtu": "1450",
        },
    }
    changed = {key.replace("__", "."): value for key, value in config.items()}
    return LxdInstance(name, "Running", defaults | changed, devices)


LINKS = (
    Link("lo", 65536, ipv6=True),
    Link("eth0", 1500, ipv6=True),
    Link("qbr9e0c6af1-30", 1450, kind="bridge"),
    Link("tap9e0c6af1-30", 1450, master="qbr9e0c6af1-30", kind="veth"),
    Link("qvb9e0c6af1-30", 1450, master="qbr9e0c6af1-30", kind="veth"),
    Link("qvo9e0c6af1-30", 1450, master="ovs-system", kind="veth"),
)
OVS = OvsPort(
    "qvo9e0c6af1-30",
    "br-int",
    {"iface-id": PORT.port_id, "attached-mac": PORT.mac, "vm-uuid": UUID},
)
DHCP = OvsPort("tap11111111-11", "br-int", {"iface-id": "11111111-1111-1111-1111-111111111111"})
PLACEMENT = PlacementFacts(
    {"VCPU": 2, "MEMORY_MB": 24000, "DISK_GB": 20},
    {UUID: {"VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 1}},
    HostSize(2, 24000, 20),
)
HEALTHY = Facts(
    instances=(instance(),),
    objects=(
        LxdObject("profile", "default"),
        LxdObject("profile", SERVER.name, {}, (SERVER.name,)),
        LxdObject("operation", "5f2a", instances=(SERVER.name,)),
        LxdObject("volume", "default swap", {"user.nova.uuid": UUID}),
    ),
    images=(LxdImage("f" * 64, ("155d900f-4e14-4e4c-a73d-069cbf4541e6",)),),
    links=LINKS,
    ovs_ports=(OVS, DHCP, OvsPort("br-int", "br-int")),
    filtered_taps=frozenset({PORT.tap}),
    files=("locks", "locks/nova-lock", "_base", UUID, "compute_id"),
    instances_path="/var/lib/nova/instances",
    placement=PLACEMENT,
    log_errors=("ERROR Failed to build instance-00000002 as the test wants",),
    foreign={"default/web": "digest"},
)


def with_instance(**config: str) -> Facts:
    return replace(HEALTHY, instances=(instance(**config),))


def with_device(name: str, **values: str) -> Facts:
    sick = instance()
    devices = {**sick.devices, name: {**sick.devices.get(name, {}), **values}}
    return replace(HEALTHY, instances=(replace(sick, devices=devices),))


def with_object(kind: str, name: str) -> Facts:
    return replace(HEALTHY, objects=(*HEALTHY.objects, LxdObject(kind, name)))


def with_link(link: Link) -> Facts:
    kept = (other for other in LINKS if other.name != link.name)
    return replace(HEALTHY, links=(*kept, link))


def with_placement(**changes: object) -> Facts:
    return replace(HEALTHY, placement=replace(PLACEMENT, **changes))  # type: ignore[arg-type]


TWIN = ExpectedServer("instance-00000002", OTHER, 512, 2, 1, status="Running")
TWO = replace(HEALTHY, instances=(instance(), instance(TWIN.name, user__nova__uuid=OTHER)))

SICK = {
    "I1 stray": (replace(HEALTHY, instances=(instance(), instance("old", 300000))), "I1", "old"),
    "I1 lost": (replace(HEALTHY, instances=()), "I1", SERVER.name),
    "I1 other owner": (with_instance(user__nova__uuid=OTHER), "I1", OTHER),
    "I2 profile": (with_object("profile", "instance-00000009"), "I2", "profile delete"),
    "I2 volume": (with_object("volume", "default old"), "I2", "storage volume delete default old"),
    "I2 operation": (with_object("operation", "77aa"), "I2", "operation delete 77aa"),
    "I2 image": (replace(HEALTHY, images=(LxdImage("e" * 64, ()),)), "I2", "image delete eeeeee"),
    "I2 snapshot": (
        replace(HEALTHY, instances=(replace(instance(), snapshots=("s1",)),)),
        "I2",
        f"delete {SERVER.name}/s1",
    ),
    "I2 backup": (
        replace(HEALTHY, instances=(replace(instance(), backups=("b1",)),)),
        "I2",
        "query -X DELETE",
    ),
    "I3 no nic": (
        replace(HEALTHY, instances=(replace(instance(), devices={"root": {"size": "1GiB"}}),)),
        "I3",
        "no such device",
    ),
    "I3 nic mac": (with_device(PORT.tap, hwaddr="fa:16:3e:00:00:00"), "I3", "hwaddr"),
    "I3 nic mtu": (with_device(PORT.tap, mtu="1500"), "I3", "mtu"),
    "I3 nic parent": (with_device(PORT.tap, parent="lxdbr0"), "I3", "parent"),
    "I3 no ovs port": (replace(HEALTHY, ovs_ports=()), "I3", "missing"),
    "I3 other bridge": (
        replace(HEALTHY, ovs_ports=(replace(OVS, bridge="br-ex"),)),
        "I3",
        "on br-ex, not on br-int",
    ),
    "I3 iface-id": (
        replace(HEALTHY, ovs_ports=(replace(OVS, external_ids={"vm-uuid": UUID}),)),
        "I3",
        "iface-id",
    ),
    "I3 ovs error": (
        replace(HEALTHY, ovs_ports=(replace(OVS, error="could not open"),)),
        "I3",
        "could not open",
    ),
    "I3 no tap": (
        replace(HEALTHY, links=tuple(link for link in LINKS if link.name != PORT.tap)),
        "I3",
        "tap9e0c6af1-30 does not exist",
    ),
    "I3 unbridged": (with_link(Link(PORT.tap, 1450)), "I3", "in no bridge"),
    "I3 link mtu": (
        with_link(Link("qvb9e0c6af1-30", 1500, master="qbr9e0c6af1-30")),
        "I3",
        "has MTU 1500",
    ),
    "I3 ipv6": (
        with_link(Link(PORT.tap, 1450, master="qbr9e0c6af1-30", ipv6=True)),
        "I3",
        "net.ipv6.conf.tap9e0c6af1-30.disable_ipv6=1",
    ),
    "I3 stray link": (with_link(Link("qvb22222222-22", 1450)), "I3", "ip link delete qvb22222222"),
    "I3 stray trunk": (
        replace(HEALTHY, ovs_ports=(*HEALTHY.ovs_ports, OvsPort("tbr-1", "tbr-1"))),
        "I3",
        "del-br tbr-1",
    ),
    "I3 stray ovs port": (
        replace(HEALTHY, ovs_ports=(*HEALTHY.ovs_ports, OvsPort("qvo22222222-22", "br-int"))),
        "I3",
        "del-port br-int qvo22222222-22",
    ),
    "I4 unfiltered": (replace(HEALTHY, filtered_taps=frozenset()), "I4", PORT.tap),
    "I5 mount": (replace(HEALTHY, mounts=("/var/lib/nova/mnt/x",)), "I5", "umount"),
    "I5 loop": (replace(HEALTHY, loops={"/dev/loop7": "/var/lib/nova/x"}), "I5", "losetup -d"),
    "I6 shared": (TWO, "I6", f"shares host ids with {SERVER.name}"),
    "I6 outside": (
        with_instance(volatile__idmap__current=idmap(65536)),
        "I6",
        "65536-131071 are outside",
    ),
    "I6 not isolated": (with_instance(security__idmap__isolated="false"), "I6", "not isolated"),
    "I6 privileged": (with_instance(security__privileged="true"), "I6", "privileged"),
    "I8 memory": (with_instance(limits__memory="512MB"), "I8", "limits.memory is 512000000"),
    "I8 no memory": (with_instance(limits__memory=""), "I8", "limits.memory is None"),
    "I8 cpu": (with_instance(limits__cpu="1"), "I8", "limits.cpu is 1"),
    "I8 disk": (with_device("root", size="10GiB"), "I8", "root disk is 10737418240"),
    "I9 inventory": (with_placement(inventory={"VCPU": 4}), "I9", "inventory VCPU"),
    "I9 empty inventory": (with_placement(inventory={}), "I9", "the inventory says 0"),
    "I9 amount": (
        with_placement(allocations={UUID: {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}}),
        "I9",
        "VCPU is 1",
    ),
    "I9 no allocation": (with_placement(allocations={}), "I9", "holds no allocation"),
    "I9 stray allocation": (
        with_placement(allocations={**PLACEMENT.allocations, OTHER: {"VCPU": 1}}),
        "I9",
        f"allocation delete {OTHER}",
    ),
    "I10 power": (
        replace(HEALTHY, instances=(replace(instance(), status="Stopped"),)),
        "I10",
        "LXD says Stopped, Nova says Running",
    ),
    "I11 temporary": (replace(HEALTHY, files=("_base/ab.part",)), "I11", "rm -rf"),
    "I11 image": (
        replace(HEALTHY, files=("lxd-image-h-x", "lxd-image-h-x/image")),
        "I11",
        "rm -rf",
    ),
    "I11 folder": (replace(HEALTHY, files=(OTHER,)), "I11", "its server is gone"),
    "I13 error": (replace(HEALTHY, log_errors=("Traceback",)), "I13", "Traceback"),
    "I14 raw": (with_instance(raw__lxc="lxc.mount.auto="), "I14", "config unset"),
    "I14 devlxd": (with_instance(security__devlxd="true"), "I14", "devlxd"),
    "I14 newline": (with_instance(environment__A="a\nb"), "I14", "control character"),
    "I14 shifted": (with_instance(security__shifted="true"), "I14", "shifted"),
    "I14 shifted device": (with_device("data", shift="true"), "I14", "device data is shifted"),
    "I14 device newline": (with_device("data", source="/x\ny"), "I14", "control character"),
    "I16 changed": (replace(HEALTHY, foreign={"default/web": "other"}), "I16", "has changed"),
    "I16 gone": (replace(HEALTHY, foreign={}), "I16", "is gone"),
    "I16 new": (
        replace(HEALTHY, foreign={"default/web": "digest", "default/new": "d"}),
        "I16",
        "is new",
    ),
}


def expected_for(facts: Facts) -> Expected:
    return replace(EXPECTED, servers=(SERVER, TWIN)) if facts is TWO else EXPECTED


def test_a_healthy_host_is_clean():
    assert invariants.check(EXPECTED, HEALTHY) == []


@pytest.mark.parametrize("case", SICK)
def test_a_sick_host_is_told(case):
    facts, rule, told = SICK[case]
    found = [v for v in invariants.check(expected_for(facts), facts) if v.rule == rule]
    assert any(told in str(violation) for violation in found), found
    assert all(violation.mend for violation in found)


def test_every_rule_is_shown_sick():
    shown = {rule for _facts, rule, _told in SICK.values()}
    documented = {
        word for word in (invariants.__doc__ or "").split() if word[:2].strip("I").isdigit()
    }
    assert shown == documented


RESCUED = replace(SERVER, rescued=True)
ROOT = instance().devices["root"]
OWN = replace(instance(), status="Stopped", devices={"root": {**ROOT, "size": "1040MiB"}})
RESCUER = instance(f"{SERVER.name}-rescue")


def rules_broken_by(*instances: LxdInstance) -> set[tuple[str, str]]:
    expected = replace(EXPECTED, servers=(RESCUED,))
    found = invariants.check(expected, replace(HEALTHY, instances=instances))
    return {(violation.rule, violation.subject) for violation in found}


def test_a_rescued_server_is_two_containers_that_share_their_ids():
    assert rules_broken_by(OWN, RESCUER) == set()


def test_a_rescued_server_that_is_not_as_it_should_be():
    own, rescuer = f"instance {OWN.name}", f"instance {RESCUER.name}"
    assert rules_broken_by(RESCUER) == {("I1", own)}
    assert ("I1", rescuer) in rules_broken_by(OWN)
    assert ("I10", own) in rules_broken_by(replace(OWN, status="Running"), RESCUER)
    assert ("I10", rescuer) in rules_broken_by(OWN, replace(RESCUER, status="Stopped"))
    without_nic = replace(RESCUER, devices={"root": ROOT})
    assert {rule for rule, _ in rules_broken_by(OWN, without_nic)} == {"I3"}


def test_a_rescue_container_that_nova_does_not_know_is_a_stray():
    facts = replace(HEALTHY, instances=(instance(), RESCUER))
    broken = {violation.rule for violation in invariants.check(EXPECTED, facts)}
    assert broken == {"I1", "I6"}


def test_two_healthy_servers_are_clean():
    twin = instance(TWIN.name, 231072, user__nova__uuid=OTHER)
    expected = replace(EXPECTED, servers=(SERVER, TWIN))
    allocations = {UUID: PLACEMENT.allocations[UUID], OTHER: PLACEMENT.allocations[UUID]}
    facts = replace(
        HEALTHY,
        instances=(instance(), twin),
        placement=replace(PLACEMENT, allocations=allocations),
    )
    assert invariants.check(expected, facts) == []


@pytest.mark.parametrize(
    "server",
    [
        replace(SERVER, status="", built=False),
        replace(SERVER, status="Stopped", built=False),
    ],
)
def test_a_server_in_error_may_have_nothing(server):
    expected = replace(EXPECTED, servers=(server,), foreign={})
    assert invariants.check(expected, Facts()) == []


def test_a_stopped_server_needs_no_wires():
    stopped = replace(SERVER, status="Stopped")
    facts = replace(
        HEALTHY,
        instances=(replace(instance(), status="Stopped"),),
        links=(),
        ovs_ports=(),
        filtered_taps=frozenset(),
    )
    assert invariants.check(replace(EXPECTED, servers=(stopped,)), facts) == []


def test_a_native_port_sits_on_the_integration_bridge():
    port = replace(PORT, hybrid=False)
    server = replace(SERVER, ports=(port,))
    nic = {"type": "nic", "nictype": "physical", "parent": port.tin}
    nic |= {"hwaddr": PORT.mac, "mtu": "1450"}
    container = replace(instance(), devices={"root": {"size": "1GiB"}, port.tap: nic})
    expected = replace(EXPECTED, servers=(server,))
    facts = replace(
        HEALTHY,
        instances=(container,),
        links=(Link(port.tap, 1450),),
        ovs_ports=(replace(OVS, name=port.tap),),
    )
    assert invariants.check(expected, facts) == []

    both = replace(facts, links=(*facts.links, Link(port.tin, 1450)))
    (violation,) = invariants.check(expected, both)
    assert "tin9e0c6af1-30 is on the host" in violation.problem

    stopped = replace(expected, servers=(replace(server, status="Stopped"),))
    both = replace(both, instances=(replace(container, status="Stopped"),))
    assert invariants.check(stopped, both) == []


def test_a_trunks_parent_sits_on_the_trunks_bridge():
    server = replace(SERVER, ports=(replace(PORT, bridge="tbr-33333333-3"),))
    expected = replace(EXPECTED, servers=(server,))
    bridge = OvsPort("tbr-33333333-3", "tbr-33333333-3")
    facts = replace(HEALTHY, ovs_ports=(replace(OVS, bridge=bridge.name), bridge))
    assert invariants.check(expected, facts) == []
    (violation,) = invariants.check(EXPECTED, facts)
    assert "on tbr-33333333-3, not on br-int" in violation.problem


def test_a_veth_pair_goes_by_one_of_its_ends():
    ends = ("qvb22222222-22", "qvo22222222-22", "tap44444444-44", "tin44444444-44")
    facts = replace(HEALTHY, links=(*LINKS, *(Link(end, 1450) for end in ends)))
    mends = [violation.mend for violation in invariants.check(EXPECTED, facts)]
    assert mends == ["ip link delete qvb22222222-22", "ip link delete tap44444444-44"]


@pytest.mark.parametrize("server", [SERVER, replace(SERVER, settled=False, status="")])
def test_a_server_that_is_not_settled_may_have_more(server):
    own = replace(instance(), snapshots=("s1",), backups=("b1",))
    facts = replace(HEALTHY, instances=(own, RESCUER))
    broken = {v.rule for v in invariants.check(replace(EXPECTED, servers=(server,)), facts)}
    assert broken == ({"I1", "I2", "I6"} if server.settled else set())


def test_what_a_rescue_container_uses_has_an_owner():
    items = (
        LxdObject("operation", "5f2b", instances=(RESCUER.name,)),
        LxdObject("volume", "default x", instances=(RESCUER.name,)),
    )
    facts = replace(HEALTHY, instances=(OWN, RESCUER), objects=items)
    assert invariants.check(replace(EXPECTED, servers=(RESCUED,)), facts) == []


def test_a_flavor_may_allow_a_privileged_container():
    server = replace(SERVER, privileged=True)
    facts = with_instance(security__privileged="true")
    assert invariants.check(replace(EXPECTED, servers=(server,)), facts) == []


def test_somebody_elses_links_are_left_alone():
    expected = replace(EXPECTED, other_links=frozenset({"qvb22222222-22"}))
    assert invariants.check(expected, with_link(Link("qvb22222222-22", 1450))) == []


def test_a_pool_without_quotas_needs_no_disk_size():
    expected = replace(EXPECTED, enforces_disk_size=False)
    assert invariants.check(expected, with_device("root", size="")) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 * 2**20),
        ("1GiB", 2**30),
        ("10GB", 10**10),
        ("1kB", 1000),
        ("4096", 4096),
        ("1KiB", 1024),
        ("", None),
        ("50%", None),
        ("1 parsec", None),
    ],
)
def test_sizes_are_lxds(text, size):
    assert size_in_bytes(text) == size


ANSWERS = {
    "/1.0/instances?recursion=1&project=nova": [
        {"name": "a", "status": "Stopped", "expanded_config": {"k": "v"}, "expanded_devices": None}
    ],
    "/1.0/instances/a/snapshots?project=nova": ["/1.0/instances/a/snapshots/s1?project=nova"],
    "/1.0/instances/a/backups?project=nova": None,
    "/1.0/profiles?recursion=1&project=nova": [
        {"name": "a", "config": {}, "used_by": ["/1.0/instances/a?project=nova"]}
    ],
    "/1.0/storage-pools?project=nova": ["/1.0/storage-pools/fast"],
    "/1.0/storage-pools/fast/volumes/custom?recursion=1&project=nova": [
        {"name": "swap", "config": {"user.nova.uuid": UUID}, "used_by": []}
    ],
    "/1.0/operations?recursion=1&project=nova": {
        "running": [
            {"id": "op1", "class": "task", "resources": {"instances": ["/1.0/instances/a"]}},
            {"id": "op2", "class": "task", "resources": None},
            {"id": "op3", "class": "websocket", "resources": None},
        ],
        "success": [{"id": "op4", "class": "websocket", "resources": None}],
    },
    "/1.0/images?recursion=1&project=nova": [
        {
            "fingerprint": "f" * 64,
            "aliases": [{"name": "glance"}],
            "properties": {"os": "x"},
            "uploaded_at": "2026-01-02T03:04:05.123456789Z",
        }
    ],
    "/1.0/instances?recursion=1&all-projects=true": [
        {"name": "a", "project": "nova", "config": {}, "expanded_config": {}},
        {
            "name": "web",
            "project": "default",
            "config": None,
            "expanded_config": {"volatile.last_state.power": "RUNNING"},
            "last_used_at": "now",
        },
    ],
}


def test_what_lxd_tells_becomes_facts():
    get = ANSWERS.__getitem__
    assert gather.instances(get, "nova") == (LxdInstance("a", "Stopped", {"k": "v"}, {}, ("s1",)),)
    assert gather.objects(get, "nova") == (
        LxdObject("profile", "a", {}, ("a",)),
        LxdObject("volume", "fast swap", {"user.nova.uuid": UUID}),
        LxdObject("operation", "op1", {}, ("a",)),
        LxdObject("operation", "op3"),
    )
    (image,) = gather.images(get, "nova")
    assert image == LxdImage("f" * 64, ("glance",), {"os": "x"}, image.age)
    came = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert image.age == pytest.approx(time.time() - came, abs=60)


def test_an_instance_that_is_deleted_meanwhile_is_left_out():
    def get(url):
        if url.endswith("backups?project=nova"):
            raise gather.LxdHasNone("GET: not found")
        return ANSWERS[url]

    assert gather.instances(get, "nova") == ()


def test_a_foreign_instance_changes_its_digest_only_when_it_changes():
    def digest(**changes):
        answer = [{**ANSWERS["/1.0/instances?recursion=1&all-projects=true"][1], **changes}]
        return gather.foreign(lambda _url: answer, "nova")

    before = gather.foreign(ANSWERS.__getitem__, "nova")
    assert before.keys() == {"default/web"}
    assert digest(last_used_at="later") == before
    assert digest(status="Stopped") != before


def test_ovsdb_notation_becomes_facts(monkeypatch):
    def table(*rows, headings):
        return json.dumps({"headings": headings, "data": rows})

    tables = {
        "Bridge": table(["br-int", ["uuid", "p1"]], headings=["name", "ports"]),
        "Port": table(
            [["uuid", "p1"], "qvo1", ["uuid", "i1"]],
            [["uuid", "p2"], "loose", ["uuid", "i1"]],
            headings=["_uuid", "name", "interfaces"],
        ),
        "Interface": table(
            [["uuid", "i1"], "qvo1", ["map", [["iface-id", "x"]]], 1450, ["set", []]],
            headings=["_uuid", "name", "external_ids", "mtu", "error"],
        ),
    }
    monkeypatch.setattr(gather, "_run", lambda *command: tables[command[-1]])
    assert gather.ovs_ports("tcp:127.0.0.1:1") == (
        OvsPort("qvo1", "br-int", {"iface-id": "x"}, 1450),
    )


def test_links_become_facts(monkeypatch):
    answer = [
        {"ifname": "tap1", "mtu": 1450, "master": "qbr1", "linkinfo": {"info_kind": "veth"}},
        {},
        {"ifname": "tap2", "mtu": 1450, "link_netnsid": 0, "promiscuity": 1},
    ]
    monkeypatch.setattr(gather, "_run", lambda *command: json.dumps(answer))
    assert gather.links() == (
        Link("tap1", 1450, master="qbr1", kind="veth"),
        Link("tap2", 1450, in_container=True, promiscuous=True),
    )


def test_taps_are_read_from_the_firewall(monkeypatch):
    rule = "-A neutron-openvswi-sg-chain -m physdev --physdev-out tap1 --physdev-is-bridged -j x"
    monkeypatch.setattr(gather, "_run", lambda *command: rule)
    assert gather.filtered_taps() == {"tap1"}


def test_loops_and_mounts_are_ours_only_below_our_folders(monkeypatch, tmp_path):
    devices = [
        {"name": "/dev/loop1", "back-file": f"{tmp_path}/disk"},
        {"name": "/dev/loop2", "back-file": "/elsewhere"},
        {"name": "/dev/loop3", "back-file": None},
    ]
    monkeypatch.setattr(gather, "_run", lambda *command: json.dumps({"loopdevices": devices}))
    assert gather.loops([tmp_path]) == {"/dev/loop1": f"{tmp_path}/disk"}
    assert gather.mounts([tmp_path]) == ()


def test_files_are_listed_two_levels_deep(tmp_path):
    (tmp_path / UUID / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "note").touch()
    assert gather.files(tmp_path) == (UUID, f"{UUID}/deep", "note")


def test_folders_that_are_closed_or_gone_are_not_entered(monkeypatch, tmp_path):
    for name in ("lost+found", "gone", UUID):
        (tmp_path / name / "file").mkdir(parents=True)
    closed = {"lost+found": PermissionError, "gone": FileNotFoundError}
    scandir = gather.os.scandir

    def scan(folder):
        if error := closed.get(folder.name):
            raise error(str(folder))
        return scandir(folder)

    monkeypatch.setattr(gather.os, "scandir", scan)
    assert gather.files(tmp_path) == (UUID, f"{UUID}/file", "gone", "lost+found")
    closed[tmp_path.name] = PermissionError
    with pytest.raises(PermissionError):
        gather.files(tmp_path)
    assert gather.files(tmp_path / "none") == ()


class _Lxd(BaseHTTPRequestHandler):
    def do_GET(self):  # the base class's name
        good = {"type": "sync", "metadata": {"path": self.path}}
        errors = {"/bad": {"error": "no"}, "/none": {"error": "not found", "error_code": 404}}
        answer = {"type": "error", **errors[self.path]} if self.path in errors else good
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *args):
        pass

    def address_string(self):
        return "unix"


@pytest.fixture
def lxd_socket(tmp_path):
    path = str(tmp_path / "socket")
    with socketserver.ThreadingUnixStreamServer(path, _Lxd) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.shutdown()
        thread.join(10)


def test_lxd_is_asked_over_its_socket(lxd_socket):
    assert gather.lxd(lxd_socket)("/1.0?project=x") == {"path": "/1.0?project=x"}
    with pytest.raises(gather.LxdAnswered, match="GET /bad: no"):
        gather.lxd(lxd_socket)("/bad")
    with pytest.raises(gather.LxdHasNone, match="not found"):
        gather.lxd(lxd_socket)("/none")
