"""The whole of a server, composed; and its state, read back."""

import pytest

from nova_lxd.virt import instance
from nova_lxd.virt.model import Flavor, HostFacts, IdRange, Server, Vif

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
