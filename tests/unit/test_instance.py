"""The whole of a server, composed; and its state, read back."""

import pytest

from nova_lxd.virt import instance
from nova_lxd.virt.model import Flavor, HostFacts, IdRange, InstanceState, Server, Vif

HOST = HostFacts(
    name="host",
    architectures=("x86_64", "i686"),
    server_version="5.0.2",
    api_extensions=frozenset(),
    pool="fast",
    pool_driver="btrfs",
    id_range=IdRange(100000, 10000001),
)
SERVER = Server(
    name="instance-0000002a",
    uuid="11111111-2222-4333-8444-555555555555",
    project_id="p" * 32,
    user_id="u" * 32,
    image_id="i",
    flavor_name="m1.tiny",
)
VIF = Vif(
    "9e0c6af1-30aa-4bbb-8ccc-0123456789ab",
    "tap9e0c6af1-30",
    "fa:16:3e:00:00:01",
    "ovs",
    hybrid_plug=True,
)
IDS = IdRange(231072, 65536)


def compose(specs=None, vifs=(VIF,)):
    flavor = Flavor("m1.tiny", 2, 512, 1, extra_specs=specs or {})
    return instance.compose(SERVER, flavor, vifs, HOST, "f" * 64, IDS)


def test_the_flavor_is_the_profile_and_the_nics_are_the_instance():
    spec = compose()
    assert spec.name == "instance-0000002a"
    assert spec.profile_config["limits.memory"] == "512MiB"
    assert set(spec.profile_devices) == {"root"}
    assert set(spec.devices) == {"tap9e0c6af1-30"}
    assert not any(key.startswith("limits.") for key in spec.config)


def test_servers_share_a_profile_when_their_flavors_come_to_the_same():
    assert compose(vifs=()).profile == compose().profile
    assert compose({"quota:cpu_shares": "512"}).profile != compose().profile
    assert instance.is_profile_of_ours(compose().profile)
    assert not instance.is_profile_of_ours("default")


def test_the_id_range_is_ours_and_not_left_to_lxd():
    spec = compose()
    assert spec.profile_config["security.idmap.isolated"] == "true"
    assert spec.config["security.idmap.base"] == "231072"
    assert spec.config["security.idmap.size"] == "65536"


def test_a_privileged_server_has_no_id_range():
    spec = compose({"lxd:privileged_allowed": "true"})
    assert "security.idmap.base" not in spec.config


def test_the_owner_is_told_by_ids_alone():
    owner = instance.owner_config(SERVER)
    assert owner == {
        "user.nova.uuid": SERVER.uuid,
        "user.nova.project_id": SERVER.project_id,
        "user.nova.user_id": SERVER.user_id,
        "user.nova.image_id": "i",
    }


def test_a_rescue_container_is_the_server_with_another_root():
    own = compose()
    twin = instance.rescue(own, "e" * 64, "/lxd/rootfs")
    assert (twin.name, twin.profile) == ("instance-0000002a-rescue", own.profile)
    assert twin.image_fingerprint == "e" * 64
    assert twin.config == own.config | {"user.nova.role": "rescue"}
    rescued = {"type": "disk", "source": "/lxd/rootfs", "path": "/mnt/rescued"}
    assert twin.devices == own.devices | {"rescued": rescued}


def test_nics_are_lent_and_given_back():
    own = compose().devices | {"drive": {"type": "disk", "path": "/d"}}
    root = {"type": "disk", "path": "/", "pool": "fast", "size": "1GiB"}
    size = instance.rescued_root_size(Flavor("m1.tiny", 2, 512, 1))
    lent = instance.without_nics(own, {**own, "root": root}, size)
    assert lent == {"drive": own["drive"], "root": {**root, "size": "1040MiB"}}
    assert instance.without_nics(lent, {**lent}, size) == lent
    assert instance.with_nics(lent, {**lent}, [VIF], {}) == own


def test_a_root_without_a_size_gets_none():
    root = {"type": "disk", "path": "/", "pool": "plain"}
    assert instance.without_nics({}, {"root": root}, "16MiB") == {}


def test_where_a_stopped_root_lies():
    path = instance.root_path("/var/lib/lxd", "fast", "nova", "i-1")
    assert path == "/var/lib/lxd/storage-pools/fast/containers/nova_i-1/rootfs"
    path = instance.root_path("/var/lib/lxd", "fast", "default", "i-1")
    assert path == "/var/lib/lxd/storage-pools/fast/containers/i-1/rootfs"


def test_each_server_is_told_once():
    states = [
        InstanceState("i-1", "one", "Stopped"),
        InstanceState("i-1-rescue", "one", "Running", role="rescue"),
        InstanceState("i-2-rescue", "two", "Running", role="rescue"),
        InstanceState("not-novas", "", "Running"),
    ]
    for order in (states, states[::-1]):
        assert instance.servers(order) == {"one": "i-1", "two": "i-2"}


@pytest.mark.parametrize(
    ("status", "power"),
    [
        ("Running", "running"),
        ("Frozen", "paused"),
        ("Stopped", "shutdown"),
        ("Error", "crashed"),
        ("Starting", "pending"),
        ("Stopping", "pending"),
        ("Freezing", "pending"),
        ("Aborting", "pending"),
        ("what LXD 9 may say", "pending"),
    ],
)
def test_only_lasting_states_are_reported_as_such(status, power):
    assert instance.power(status) == power
