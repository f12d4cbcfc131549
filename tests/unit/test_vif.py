"""Each port becomes one nic, named as Neutron's rules expect it, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_lxd.exception import VifRefused
from nova_lxd.virt import vif as translator
from tests.unit.values import PORT_ID, is_one_line, rude_text, vif

OTHER_PORT = "0b1c2d3e-4f50-4162-8374-95a6b7c8d9e0"


def test_hybrid_plug():
    assert translator.nic_device(vif(), "eth0") == {
        "type": "nic",
        "nictype": "bridged",
        "parent": "qbr9e0c6af1-30",
        "host_name": "tap9e0c6af1-30",
        "name": "eth0",
        "hwaddr": "fa:16:3e:00:00:01",
        "mtu": "1450",
    }


def test_native_plug():
    assert translator.nic_device(vif(hybrid_plug=False), "eth1") == {
        "type": "nic",
        "nictype": "physical",
        "parent": "tin9e0c6af1-30",
        "name": "eth1",
        "hwaddr": "fa:16:3e:00:00:01",
        "mtu": "1450",
    }


def test_no_mtu_from_neutron_leaves_it_to_the_bridge():
    assert "mtu" not in translator.nic_device(vif(mtu=None), "eth0")


def test_every_nic_is_wired_in_order():
    # CVE-2017-5936: the old driver stopped after the first one.
    second = vif(port_id=OTHER_PORT, devname="tap0b1c2d3e-4f", mac="fa:16:3e:00:00:02")
    nics = translator.devices([vif(), second])
    assert list(nics) == ["tap9e0c6af1-30", "tap0b1c2d3e-4f"]
    assert [nic["name"] for nic in nics.values()] == ["eth0", "eth1"]
    assert [nic["parent"] for nic in nics.values()] == ["qbr9e0c6af1-30", "qbr0b1c2d3e-4f"]
    assert all(name == nic["host_name"] for name, nic in nics.items())


THREE = [
    vif(port_id=f"{digit}b1c2d3e-4f50-4162-8374-95a6b7c8d9e0", devname=f"tap{digit}b1c2d3e-4f")
    for digit in "123"
]
A, B, C = (port.devname for port in THREE)


@pytest.mark.parametrize(
    ("known", "names"),
    [
        ({}, ["eth0", "eth1", "eth2"]),
        ({B: "eth1", C: "eth2"}, ["eth0", "eth1", "eth2"]),
        ({A: "eth1"}, ["eth1", "eth0", "eth2"]),
        ({C: "eth0"}, ["eth1", "eth2", "eth0"]),
        ({A: "eth7", "tapgone": "eth0"}, ["eth7", "eth0", "eth1"]),
        ({B: "wan"}, ["eth0", "wan", "eth1"]),
    ],
)
def test_names_that_the_guest_knows_stay(known, names):
    nics = translator.devices(THREE, known)
    assert [nic["name"] for nic in nics.values()] == names


def test_no_ports_no_nics():
    assert translator.devices([]) == {}


def test_one_port_twice_is_refused():
    with pytest.raises(VifRefused, match=PORT_ID):
        translator.devices([vif(), vif()])


@given(st.uuids().map(str))
def test_names_fit_the_kernel(port_id):
    port = vif(port_id=port_id, devname="tap" + port_id[:11])
    names = [
        translator.bridge_name(port),
        translator.bridge_end(port),
        translator.ovs_end(port),
        translator.tap_name(port),
    ]
    assert [name[:3] for name in names] == ["qbr", "qvb", "qvo", "tap"]
    assert {(len(name), name[3:]) for name in names} == {(14, port_id[:11])}


@pytest.mark.parametrize(
    "changes",
    [
        {"devname": "tap0b1c2d3e-4f"},
        {"devname": ""},
        {"mac": "fa:16:3e:00:00"},
        {"mac": "fa:16:3e:00:00:01\n"},
        {"mtu": 1279},
        {"mtu": 16385},
        {"mtu": 0},
        {"port_id": "../../etc/passwd"},
    ],
)
def test_malformed_values_are_refused(changes):
    with pytest.raises(VifRefused):
        translator.nic_device(vif(**changes), "eth0")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "port_id": rude_text(),
            "devname": rude_text(),
            "mac": rude_text(),
            "vif_type": rude_text(),
            "vnic_type": rude_text(),
            "mtu": st.none() | st.integers(),
            "hybrid_plug": st.booleans(),
        },
    )
)
def test_whatever_neutron_says_lxd_gets_clean_values_or_nothing(changes):
    try:
        nics = translator.devices([vif(**changes)])
        said = [*nics, *(value for nic in nics.values() for value in nic.values())]
    except VifRefused as error:
        said = [str(error)]
    assert all(map(is_one_line, said))
