"""Flavors limit NICs in Nova's units; what cannot be kept is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_lxd.exception import FlavorRefused, VifRefused
from nova_lxd.virt import bandwidth as translator
from nova_lxd.virt import vif as vif_translator
from nova_lxd.virt.model import Bandwidth, Rate
from tests.unit.values import flavor, is_one_line, rude_text, vif

IN, OUT = "quota:vif_inbound_", "quota:vif_outbound_"


def bandwidth(**specs):
    specs = {f"quota:vif_{key}": str(value) for key, value in specs.items()}
    return translator.bandwidth(flavor(extra_specs=specs))


def test_no_keys_no_limits():
    assert bandwidth() == Bandwidth()
    assert bandwidth(inbound_average=0, outbound_average=0) == Bandwidth()


def test_each_way_has_its_own():
    limits = bandwidth(inbound_average=1000, outbound_average=500, outbound_peak=800)
    assert limits == Bandwidth(Rate(1000), Rate(500, 800))


def test_lxd_holds_what_is_received():
    nic = vif_translator.nic_device(vif(bandwidth=bandwidth(inbound_average=1000)), "eth0")
    assert nic["limits.ingress"] == "8000kbit"
    assert "limits.ingress" not in vif_translator.nic_device(vif(), "eth0")
    sent = bandwidth(outbound_average=1000)
    assert "limits.ingress" not in vif_translator.nic_device(vif(bandwidth=sent), "eth0")


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (Rate(1000), "tbf rate 8000kbit burst 131072b latency 50ms"),
        (Rate(1000, 1000), "tbf rate 8000kbit burst 131072b latency 50ms"),
        (Rate(1000, 0, 512), "tbf rate 8000kbit burst 524288b latency 50ms"),
        (
            Rate(1000, 2000),
            "tbf rate 8000kbit burst 131072b latency 50ms peakrate 16000kbit minburst 131072b",
        ),
        (Rate(10**6), "tbf rate 8000000kbit burst 10000000b latency 50ms"),
    ],
)
def test_a_bucket_for_what_is_sent(rate, words):
    assert translator.shape(rate) == words.split()


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ({"inbound_average": "fast"}, [f"{IN}average='fast'", "decimal digits"]),
        ({"inbound_average": "-1"}, [f"{IN}average='-1'", "use 1 to"]),
        ({"outbound_peak": "5"}, [f"{OUT}peak='5'", f"{OUT}average"]),
        ({"outbound_burst": "5"}, [f"{OUT}burst='5'", f"{OUT}average"]),
        ({"inbound_average": "9", "inbound_peak": "8"}, [f"{IN}peak='8'", f"{IN}average=9"]),
    ],
)
def test_what_makes_no_sense_is_refused(specs, said):
    with pytest.raises(FlavorRefused) as refusal:
        bandwidth(**specs)
    assert all(text in str(refusal.value) for text in said)


def test_a_port_without_a_bridge_cannot_be_limited():
    port = vif(hybrid_plug=False, bandwidth=bandwidth(inbound_average=1000))
    with pytest.raises(VifRefused, match=r"quota:vif_.*Neutron QoS policy"):
        vif_translator.check(port)


@given(st.dictionaries(st.sampled_from(sorted(translator.KEYS)), rude_text() | st.just("7")))
def test_whatever_the_flavor_says_tc_gets_clean_words_or_none(specs):
    try:
        limits = translator.bandwidth(flavor(extra_specs=specs))
        said = [*translator.shape(limits.outbound)] if limits.outbound else ["nothing"]
        said += [*translator.nic_limits(limits).values()]
    except FlavorRefused as error:
        said = [str(error)]
    assert all(map(is_one_line, said))
