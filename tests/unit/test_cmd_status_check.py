"""nova-lxd-status check: what keeps the driver from running here, and what to do about it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nova.conf
import pytest
from oslo_upgradecheck.upgradecheck import Code

from nova_lxd import exception
from nova_lxd.cmd import readiness
from nova_lxd.invariants import OvsPort
from nova_lxd.virt.host import open_session
from nova_lxd.virt.session import PoolSpace, ServerInfo

CONF = nova.conf.CONF
SUCCESS, WARNING, FAILURE = Code
ROOT = "root:100000:1310720\n"


@pytest.fixture
def host(fake, options, monkeypatch, tmp_path):
    """A host on which everything is there; the pool of the fake LXD is one of copies."""
    options("lxd", endpoint=str(fake.socket))
    files = []
    for name in ("subuid", "subgid"):
        file = tmp_path / name
        file.write_text(f"ubuntu:1:2\n{ROOT}")
        files.append(str(file))
    monkeypatch.setattr(readiness, "_SUBIDS", files)
    monkeypatch.setattr(
        readiness.gather, "ovs_ports", lambda database: (OvsPort("br-int", "br-int"),)
    )
    monkeypatch.setattr(readiness, "_find", lambda name: f"/usr/bin/{name}")
    return fake


def results() -> dict[str, tuple[Code, str]]:
    checks = readiness.Readiness()
    found = {name: check(checks) for name, check in checks._upgrade_checks}
    return {name: (result.code, result.details) for name, result in found.items()}


def test_a_host_that_is_ready(host):
    open_session().ensure_project()
    codes = {name: code for name, (code, _) in results().items()}
    assert set(codes.values()) == {SUCCESS}


def test_nothing_is_made(host):
    assert results()["LXD project"] == (
        SUCCESS,
        "nova: nova-compute makes it at its first start",
    )
    assert open_session().request("GET", "projects").json()["metadata"] == ["/1.0/projects/default"]


def test_lxd_does_not_answer(host, options):
    options("lxd", endpoint="/nonexistent")
    found = results()
    code, details = found["LXD"]
    assert code == FAILURE
    assert details.startswith("[lxd]endpoint: no LXD answers at /nonexistent")
    for name in ("LXD project", "Storage pool", "Servers' ids"):
        assert found[name] == (FAILURE, "not known: LXD does not answer, see above")


@pytest.mark.parametrize(
    ("version", "extensions", "code", "words"),
    [
        ("4.0.9", None, WARNING, "install LXD 5.0 or later"),
        ("3.0.3", frozenset(), FAILURE, "lacks the API extensions projects"),
        ("5.0.2", None, SUCCESS, "LXD 5.0.2 at "),
    ],
)
def test_versions(host, monkeypatch, version, extensions, code, words):
    known = frozenset(readiness.open_session().server().api_extensions)
    info = ServerInfo(
        "vm", version, "6.1", ("x86_64",), known if extensions is None else extensions
    )
    monkeypatch.setattr("nova_lxd.virt.session.Session.server", lambda self: info)
    found = results()["LXD"]
    assert found[0] == code
    assert words in found[1]


def test_the_user_may_not(host, monkeypatch):
    def refuse(self):
        raise exception.LXDPermissionDenied("no")

    monkeypatch.setattr("nova_lxd.virt.session.Session.server", refuse)
    code, details = results()["LXD"]
    assert code == FAILURE
    assert "adduser nova lxd" in details


def test_a_project_that_shares(host, monkeypatch):
    config = {"features.images": "true", "features.profiles": "false"}
    monkeypatch.setattr("nova_lxd.virt.session.Session.project_config", lambda _: config)
    code, details = results()["LXD project"]
    assert code == WARNING
    assert "nova shares its profiles with" in details


@pytest.mark.parametrize(
    ("driver", "code", "words"),
    [("btrfs", SUCCESS, "default (btrfs), 15 GiB free"), ("dir", WARNING, "a dir pool copies")],
)
def test_pools(host, monkeypatch, driver, code, words):
    session = "nova_lxd.virt.session.Session"
    space = PoolSpace(total=20 * 2**30, used=5 * 2**30)
    monkeypatch.setattr(f"{session}.pool_driver", lambda *_: driver)
    monkeypatch.setattr(f"{session}.pool_space", lambda *_: space)
    found = results()["Storage pool"]
    assert found[0] == code
    assert words in found[1]


def test_no_pool(host, options):
    options("lxd", pool="none")
    code, details = results()["Storage pool"]
    assert code == FAILURE
    assert "lxc storage create none btrfs" in details


def test_names(host, options):
    options(instance_name_template="vm_%d")
    code, details = results()["Servers' names"]
    assert code == FAILURE
    assert details.startswith("instance_name_template")


@pytest.mark.parametrize(
    ("text", "taken", "code", "words"),
    [
        (ROOT, 3, SUCCESS, "1310720 ids from 100000: room for 19 servers, 3 are taken"),
        (ROOT, 19, WARNING, "widen root's range"),
        ("0:100000:65536\n", 0, WARNING, "room for 0 servers"),
        ("nova:1:2\n", 0, WARNING, "has no line for root"),
        ("root:1\n", 0, WARNING, "root has no host ids"),
        (None, 0, WARNING, "No such file"),
    ],
)
def test_ids(host, monkeypatch, text, taken, code, words):
    file = Path(readiness._SUBIDS[1])
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    monkeypatch.setattr("nova_lxd.virt.session.Session.taken_id_ranges", lambda _: [0] * taken)
    found = results()["Servers' ids"]
    assert found[0] == code
    assert words in found[1]


def test_the_snap_has_ids_of_its_own(host, monkeypatch):
    monkeypatch.setattr(readiness, "_SNAP", str(Path(CONF.lxd.endpoint).parent))
    monkeypatch.setattr(readiness, "_SUBIDS", ["/nonexistent"])
    assert results()["Servers' ids"][0] == SUCCESS


def test_no_open_vswitch(host, monkeypatch):
    def fail(database):
        raise subprocess.CalledProcessError(1, "ovs-vsctl", stderr="connection refused\n")

    monkeypatch.setattr(readiness.gather, "ovs_ports", fail)
    code, details = results()["Open vSwitch"]
    assert code == FAILURE
    assert "[os_vif_ovs]ovsdb_connection" in details
    assert "(connection refused)" in details
    assert "set-manager" in details


def test_no_bridge(host, options):
    options("neutron", ovs_bridge="br-none")
    code, details = results()["Open vSwitch"]
    assert code == FAILURE
    assert "has no bridge br-none" in details


@pytest.mark.parametrize(("missing", "code"), [("ip", FAILURE), ("ethtool", WARNING)])
def test_tools(host, monkeypatch, missing, code):
    monkeypatch.setattr(readiness, "_find", lambda name: None if name == missing else name)
    found = results()["Tools"]
    assert found[0] == code
    assert found[1].startswith(f"{missing} is not installed")


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (None, "/etc/nova/rootwrap.conf"),
        ("sudo -n nova-rootwrap /etc/nova/rootwrap.conf privsep-helper", "privsep-helper"),
        ("doas privsep-helper --config-file /etc/nova/nova.conf", "doas"),
        ("/usr/local/bin/become", "/usr/local/bin/become"),
    ],
)
def test_helpers(host, options, monkeypatch, command, missing):
    options("nova_lxd_privileged", helper_command=command)
    monkeypatch.setattr(readiness, "_find", lambda name: None if name == missing else name)
    code, details = results()["Privileged helpers"]
    assert code == FAILURE
    assert details.startswith("[nova_lxd_privileged]helper_command: ")
    assert f"there is no {missing}:" in details


def test_a_console_needs_a_helper_of_its_own(host, options, monkeypatch):
    options("nova_lxd_console_privileged", helper_command="/nowhere")
    monkeypatch.setattr(readiness, "_find", lambda name: None if name == "/nowhere" else name)
    assert results()["Privileged helpers"][0] == SUCCESS
    options("serial_console", enabled=True)
    code, details = results()["Privileged helpers"]
    assert code == FAILURE
    assert details.startswith("[nova_lxd_console_privileged]helper_command")


def test_programs_are_found_where_root_has_them(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert readiness._find("sh") is None or readiness._find("sh").startswith(("/usr/sbin", "/sbin"))
    file = tmp_path / "helper"
    assert readiness._find(str(file)) is None
    file.touch()
    assert readiness._find(str(file)) == str(file)
    python = Path(readiness.sys.executable)
    assert readiness._find(python.name) == str(python)
