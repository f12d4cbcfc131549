"""The flavor becomes exactly what it says, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_utils import strutils

from nova_lxd.exception import FlavorRefused
from nova_lxd.virt import flavor as translator
from tests.unit.values import flavor, flavor_with, host, is_one_line, rude_text

ALWAYS = {
    "boot.autostart": "false",
    "environment.product_name": "OpenStack Nova",
    "limits.cpu": "2",
    "limits.memory": "512MiB",
    "limits.processes": "4096",
    "security.devlxd": "false",
    "security.idmap.isolated": "true",
    "security.nesting": "false",
    "security.privileged": "false",
}
ROOT = {"type": "disk", "path": "/", "pool": "default", "size": "10GiB"}


def config_of(extra_specs, **changes):
    return translator.profile_config(flavor_with(extra_specs, **changes), host())


def root_of(extra_specs):
    return translator.root_device(flavor_with(extra_specs), host())


def test_plain_flavor_is_unprivileged_isolated_and_limited():
    assert translator.profile_config(flavor(), host()) == ALWAYS


def test_root_disk_has_the_flavor_size_and_nothing_else():
    assert translator.root_device(flavor(), host()) == ROOT


def test_root_gb_zero_sets_no_size():
    # The old driver asked LXD for "0GB".
    assert "size" not in translator.root_device(flavor(root_gb=0), host())


def test_root_disk_has_no_size_on_a_pool_that_would_ignore_it():
    assert "size" not in translator.root_device(flavor(), host(pool_driver="dir"))


@given(st.integers(1, 2**24), st.integers(1, 2**16))
def test_sizes_are_binary(memory_mb, root_gb):
    # The old driver sent MB and GB: RAM 4.6 % and disk 6.9 % short.
    wanted = flavor(memory_mb=memory_mb, root_gb=root_gb)
    assert in_bytes(translator.profile_config(wanted, host())["limits.memory"]) == memory_mb << 20
    assert in_bytes(translator.root_device(wanted, host())["size"]) == root_gb << 30


def in_bytes(text: str) -> int:
    units = {"MiB": 2**20, "GiB": 2**30, "MB": 10**6, "GB": 10**9}
    number = text.rstrip("MGiB")
    return int(number) * units[text.removeprefix(number)]


@pytest.mark.parametrize("value", ["False", "false", "0", "no", "OFF", " false "])
@pytest.mark.parametrize("key", ["lxd:privileged_allowed", "lxd:nested_allowed"])
def test_false_means_false(key, value):
    # To the old driver any text was true.
    assert config_of({key: value}) == ALWAYS


def test_privileged_server_has_no_id_map():
    config = config_of({"lxd:privileged_allowed": "True"})
    assert config["security.privileged"] == "true"
    assert "security.idmap.isolated" not in config


def test_nested():
    assert config_of({"lxd:nested_allowed": "true"}) == ALWAYS | {"security.nesting": "true"}


def test_isolated_true_is_what_every_server_is():
    assert config_of({"lxd:isolated": "true"}) == ALWAYS


def test_isolated_false_agrees_with_privileged_only():
    config_of({"lxd:isolated": "false", "lxd:privileged_allowed": "true"})
    with pytest.raises(FlavorRefused, match="lxd:isolated='false'"):
        config_of({"lxd:isolated": "false"})
    with pytest.raises(FlavorRefused, match="lxd:isolated='true'"):
        config_of({"lxd:isolated": "true", "lxd:privileged_allowed": "true"})


@given(rude_text())
def test_booleans_are_those_of_the_api(text):
    try:
        expected = strutils.bool_from_string(text, strict=True)
    except ValueError:
        expected = None
    assert translator.parse_boolean(text) is expected


def test_host_may_forbid_what_the_flavor_does_not_ask_for():
    strict = host(allow_privileged=False, allow_nested=False)
    refused = {"lxd:privileged_allowed": "false", "lxd:nested_allowed": "false"}
    assert translator.profile_config(flavor_with(refused), strict) == ALWAYS


def test_process_limit():
    assert config_of({"lxd:process_limit": "100"})["limits.processes"] == "100"


@pytest.mark.parametrize(
    ("extra_specs", "allowance"),
    [
        ({"quota:cpu_quota": "12500"}, "25ms/100ms"),
        ({"quota:cpu_quota": "25000", "quota:cpu_period": "50000"}, "50ms/50ms"),
        ({"quota:cpu_quota": "500", "quota:cpu_period": "1000"}, "1ms/1ms"),
        ({"quota:cpu_quota": "50000", "quota:cpu_period": "0"}, "100ms/100ms"),
        ({"quota:cpu_quota": "50000", "quota:cpu_shares": "0"}, "100ms/100ms"),
    ],
)
def test_cpu_quota_is_for_each_vcpu(extra_specs, allowance):
    assert config_of(extra_specs, vcpus=2) == ALWAYS | {"limits.cpu.allowance": allowance}


@pytest.mark.parametrize(
    "extra_specs",
    [
        {"quota:cpu_quota": "-1"},
        {"quota:cpu_quota": "0"},
        {"quota:cpu_quota": "100000"},
        {"quota:cpu_period": "50000"},
        {"quota:cpu_shares": "0"},
    ],
)
def test_cpu_quota_that_takes_nothing_away_is_none(extra_specs):
    assert config_of(extra_specs) == ALWAYS


@given(st.integers(2, 262144))
def test_cpu_shares_reach_the_kernel_exactly(shares):
    config = config_of({"quota:cpu_shares": str(shares)})
    percent = int(config["limits.cpu.allowance"].removesuffix("%"))
    priority = int(config["limits.cpu.priority"])
    assert 0 <= priority <= 10
    # What LXD computes (measured: "13%" at priority 5 is 128 in cpu.shares).
    assert int(1024 / 100 * percent) - (10 - priority) == shares


@pytest.mark.parametrize(
    ("extra_specs", "limits"),
    [
        ({"quota:disk_read_bytes_sec": "10485760"}, {"limits.read": "10485760B"}),
        ({"quota:disk_write_bytes_sec": "1"}, {"limits.write": "1B"}),
        ({"quota:disk_read_iops_sec": "20"}, {"limits.read": "20iops"}),
        ({"quota:disk_total_bytes_sec": "5000"}, {"limits.max": "5000B"}),
        ({"quota:disk_total_iops_sec": "7"}, {"limits.max": "7iops"}),
        (
            {"quota:disk_read_iops_sec": "5", "quota:disk_write_bytes_sec": "6"},
            {"limits.read": "5iops", "limits.write": "6B"},
        ),
        ({"quota:disk_read_iops_sec": "0", "quota:disk_read_bytes_sec": "0"}, {}),
    ],
)
def test_disk_rates(extra_specs, limits):
    assert root_of(extra_specs) == ROOT | limits


@pytest.mark.parametrize(
    "keys",
    [
        ("quota:disk_read_bytes_sec", "quota:disk_read_iops_sec"),
        ("quota:disk_write_bytes_sec", "quota:disk_write_iops_sec"),
        ("quota:disk_total_bytes_sec", "quota:disk_total_iops_sec"),
        ("quota:disk_total_bytes_sec", "quota:disk_read_bytes_sec"),
        ("quota:disk_total_iops_sec", "quota:disk_write_bytes_sec"),
    ],
)
def test_disk_rates_that_lxd_would_merge_are_refused(keys):
    with pytest.raises(FlavorRefused, match="|".join(keys)):
        root_of(dict.fromkeys(keys, "1000"))


@pytest.mark.parametrize(
    "extra_specs",
    [
        {"hw:cpu_policy": "shared"},
        {"hw:cpu_sockets": "2", "hw:cpu_max_threads": "1"},
        {"hw:mem_page_size": "small"},
        {"hw:mem_encryption": "false", "os:secure_boot": "optional"},
        {"hw_rng:allowed": "True", "hw_rng:rate_bytes": "1", "hw_video:ram_max_mb": "64"},
        {"hide_hypervisor_id": "true", "ssd": "yes"},
        {"trait:CUSTOM_FAST": "required", "resources:CUSTOM_GOLD": "1"},
        {"aggregate_instance_extra_specs:ssd": "true", "capabilities:cpu_arch": "x86_64"},
        {"quota:vif_limit": "0"},
    ],
)
def test_what_asks_nothing_of_a_container_changes_nothing(extra_specs):
    assert config_of(extra_specs) == ALWAYS
    assert root_of(extra_specs) == ROOT


@given(
    st.dictionaries(
        st.one_of(
            rude_text(),
            st.sampled_from(sorted(translator._HONOURED)),
            rude_text().map("lxd:".__add__),
        ),
        st.one_of(rude_text(), st.integers(-10, 10**7).map(str), st.sampled_from(["true", "no"])),
        max_size=6,
    ),
    rude_text(),
)
def test_whatever_the_flavor_says_lxd_gets_clean_values_or_nothing(extra_specs, name):
    wanted = flavor_with(extra_specs, name=name)
    said = []
    try:
        for part in (translator.profile_config, translator.root_device):
            said += [text for item in part(wanted, host()).items() for text in item]
        assert not {key for key in extra_specs if key.startswith("lxd:")} - translator._HONOURED
    except FlavorRefused as error:
        said.append(str(error))
    assert all(map(is_one_line, said))
    assert not any(text.startswith("raw.") for text in said)
