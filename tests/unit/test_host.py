"""A host that cannot run servers is refused in one line that names the option and the remedy."""

import re
import time

import nova.conf
import psutil
import pytest

from nova_lxd import conf, exception
from nova_lxd.virt import diagnostics, host
from nova_lxd.virt.model import IdRange
from nova_lxd.virt.session import REQUIRED_EXTENSIONS, PoolSpace, ServerInfo

CONF = nova.conf.CONF
conf.register_opts(CONF)

RESOURCES = {
    "cpu": {
        "architecture": "x86_64",
        "total": 4,
        "sockets": [
            {
                "vendor": "AuthenticAMD",
                "name": "AMD EPYC",
                "cores": [{"threads": [{}, {}]}, {"threads": [{}, {}]}],
            }
        ],
    },
    "memory": {"total": 8 * 1024**3, "used": 1024**3},
}


class Lxd:
    """A LXD with the pool ``default``; what is wrong with it is set by the test."""

    endpoint = "/run/lxd.socket"
    project = "nova"

    def __init__(self, extensions=REQUIRED_EXTENSIONS, version="5.0.2", error=None):
        self.info = ServerInfo("vm", version, "6.1", ("x86_64", "i686"), frozenset(extensions))
        self.error = error
        self.projects = []
        self.measured = 0

    def server(self):
        if self.error:
            raise self.error
        return self.info

    def ensure_project(self):
        self.projects.append(self.project)

    def pool_names(self):
        return ["default", "slow"]

    def pool_driver(self, pool):
        if pool not in self.pool_names():
            raise exception.NotFound("Storage pool not found")
        return "btrfs"

    def pool_space(self, pool):
        return PoolSpace(total=20 * 1024**3, used=5 * 1024**3)

    def resources(self):
        self.measured += 1
        return RESOURCES

    def default_id_range(self, pool):
        return IdRange(100000, 10000001)


@pytest.fixture
def option():
    changed = []

    def set_option(name, value, group=None):
        CONF.set_override(name, value, group)
        changed.append((name, group))

    yield set_option
    for name, group in changed:
        CONF.clear_override(name, group)


def refusal(lxd):
    with pytest.raises(exception.ConfigurationError) as caught:
        host.Host(lxd).check()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_fit_host_gets_our_project_and_tells_its_facts():
    lxd = Lxd()
    facts = host.Host(lxd).check()
    assert lxd.projects == ["nova"]
    assert facts.pool_driver == "btrfs"
    assert facts.architectures == ("x86_64", "i686")
    assert facts.id_range == IdRange(100000, 10000001)


def test_unknown_pool(option):
    option("pool", "fast", "lxd")
    message = refusal(Lxd())
    assert message.startswith("[lxd]pool:")
    assert "default, slow" in message
    assert "lxc storage create fast btrfs" in message


def test_no_lxd_at_the_endpoint():
    message = refusal(Lxd(error=exception.LXDUnreachable("no such file")))
    assert message.startswith("[lxd]endpoint: no LXD answers at /run/lxd.socket")


def test_no_permission():
    message = refusal(Lxd(error=exception.LXDPermissionDenied("denied")))
    assert "adduser nova lxd" in message


def test_old_lxd():
    extensions = [name for name in REQUIRED_EXTENSIONS if name != "id_map_base"]
    lxd = Lxd(extensions, version="3.0.3")
    message = refusal(lxd)
    assert "LXD 3.0.3" in message
    assert "id_map_base" in message
    assert "LXD 5.0 or later" in message
    assert lxd.projects == []


@pytest.mark.parametrize("template", ["vm_%08x", "%08x", "vm-%d-", "vm.%d", "x" * 56 + "%d"])
def test_names_that_lxd_refuses(option, template):
    option("instance_name_template", template)
    assert "instance_name_template" in refusal(Lxd())


def test_the_option_says_where_lxd_is(option, monkeypatch, tmp_path):
    (tmp_path / "unix.socket").touch()
    monkeypatch.setenv("LXD_DIR", str(tmp_path))
    assert host.endpoint() == f"{tmp_path}/unix.socket"
    option("endpoint", "/elsewhere", "lxd")
    assert host.endpoint() == "/elsewhere"


def test_capacity_is_in_whole_mebibytes_and_gibibytes():
    capacity = host.Host(Lxd()).capacity()
    assert (capacity.vcpus, capacity.memory_mb, capacity.memory_mb_used) == (4, 8192, 1024)
    assert (capacity.disk_gb, capacity.disk_gb_used) == (20, 5)
    assert '"topology": {"sockets": 1, "cores": 2, "threads": 2}' in capacity.cpu_info


def test_the_capacity_is_measured_when_it_is_not_known_yet():
    lxd = Lxd()
    measured = host.Host(lxd)
    assert measured.last_capacity() == measured.last_capacity() == measured.capacity()
    assert lxd.measured == 2


UPTIME = r"\s*(.+)\sup\s+(.+),\s+(.+)\susers?,\s+load average:\s(.+)"
"""How openstackclient takes it apart."""


@pytest.mark.parametrize(
    ("seconds", "up"),
    [(20, "0:00"), (3680, "1:01"), (86400 * 3 + 43220, "3 days, 12:00")],
    ids=["just now", "an hour", "days"],
)
def test_the_uptime_is_what_clients_expect(monkeypatch, seconds, up):
    monkeypatch.setattr("psutil.boot_time", lambda: time.time() - seconds)
    found = re.match(UPTIME, diagnostics.host_uptime())
    assert found
    assert found[2].strip() == up
    assert found[3] == str(len(psutil.users()))
    assert len(found[4].split(", ")) == 3


@pytest.mark.parametrize(
    ("version", "number"), [("5.0.2", 5000002), ("5.21.4 LTS", 5021004), ("6.5", 6005000)]
)
def test_the_version_is_a_number(version, number):
    checked = host.Host(Lxd(version=version))
    checked.check()
    assert checked.version == number
