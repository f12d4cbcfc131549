"""What the benchmark of a host that fills up makes of what it sees."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from benchmarks import scale, usage

BEGUN = 1_764_000_000.5  # 2025-11-24T16:00:00.5Z


def server(seconds, status="ACTIVE"):
    return SimpleNamespace(status=status, launched_at=f"2025-11-24T16:00:{seconds:02}.000000")


def step(servers, *, share=0.01, requests=1):
    return {
        "servers": servers,
        "idle": {"cpu_share": {"nova-compute": share, "helpers": 0.001}},
        "periodic": {"power sync": {"requests": {"GET instances?recursion=1": requests}}},
    }


def test_steps_go_on_by_hundreds() -> None:
    assert scale.steps([10, 300], 0) == [10, 300]
    assert scale.steps([10, 300], 550) == [10, 300, 400, 500]


def test_only_what_came_after_the_order_counts() -> None:
    servers = [server(30), server(0), server(10), server(20, "ERROR")]
    assert scale.arrivals(servers, BEGUN) == [9.5, 29.5]


def test_rates() -> None:
    assert scale.rates([1.0, 2.0, 4.0]) == {
        "create_per_second": 0.75,
        "active_p50_s": 2.0,
        "active_p95_s": 4.0,
    }
    assert set(scale.rates([]).values()) == {None}


def test_memory_is_told_per_server_above_what_there_was() -> None:
    base, now = {"lxd": 80.0, "containers": 0.0}, {"lxd": 90.0, "containers": 130.0}
    assert scale.per_server(base, now, 10) == {"lxd": 1.0, "containers": 13.0}


def test_limits_are_of_the_idle_step_and_of_the_largest() -> None:
    found = scale.limits([{"servers": 0}, step(200, share=0.015), step(300, requests=301)], 200)
    assert [(limit["value"], limit["limit"]) for limit in found] == [(0.016, 0.02), (301, 1)]


@pytest.mark.parametrize(
    ("ranges", "shared", "strange"),
    [
        ([(165536, 65536), (231072, 65536)], [], []),
        ([(165536, 65536), (231071, 65536)], ["(165536, 65536) and (231071, 65536)"], []),
        ([(65536, 65536)], [], ["(65536, 65536)"]),
        ([(10034465, 65536), (10100001, 1)], [], ["(10100001, 1)"]),
    ],
    ids=["apart", "overlap", "below", "above"],
)
def test_id_ranges(ranges, shared, strange) -> None:
    subuid = "_lxd:1:2\nroot:100000:10000001\n"
    assert (scale.overlaps(ranges), scale.outside(ranges, subuid)) == (shared, strange)


def test_a_host_with_too_few_ids_is_told_at_once() -> None:
    scale.check_ids(151, "_lxd:1:2\nroot:100000:10000001\n")
    with pytest.raises(SystemExit, match="enough for 151 servers, not for 152: write root:"):
        scale.check_ids(152, "root:100000:10000001\n")


def test_what_was_left_behind_is_counted_by_its_kind() -> None:
    left = ["ip link: tap0a1b2c3d-4e", "ip link: tap0a1b2c3d-4f", "ip link: br-int"]
    assert scale.kinds(left) == {"ip link: tap*": 2, "ip link: br-int": 1}


def test_what_runs_below_a_process() -> None:
    parents = {1: 0, 10: 1, 20: 10, 21: 20, 30: 1}
    assert usage.below({10}, parents) == {10, 20, 21}
    assert usage.below(set(), parents) == set()


@pytest.mark.parametrize(
    ("service", "is_leader", "part"),
    [
        ("nova-compute", True, "nova-compute"),
        ("nova-compute", False, "helpers"),
        ("nova-conductor", True, "nova control plane"),
        ("neutron-dhcp-agent", False, "neutron"),
        ("lxd", False, "lxd"),
        ("mariadb", True, "other services"),
    ],
)
def test_services_belong_to_parts(service, is_leader, part) -> None:
    assert usage.part_of(service, is_leader=is_leader) == part


def test_shares_are_of_one_core() -> None:
    assert usage.shares({"lxd": 5.0}, {"lxd": 8.0, "helpers": 0.6}, 60) == {
        "helpers": 0.01,
        "lxd": 0.05,
    }


def said(url, message="Handling API request"):
    context = {"method": "GET", "url": url, "protocol": "unix"}
    return json.dumps({"type": "logging", "metadata": {"message": message, "context": context}})


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (said("/1.0"), "GET "),
        (said("/1.0/instances?recursion=1&project=nova"), "GET instances?recursion=1"),
        (said("/1.0/instances/web?project=nova"), "GET instances/*"),
        (said("/1.0/operations/1f/wait?timeout=30"), "GET operations/*/wait"),
        (said("/1.0/images/aliases/1f"), "GET images/*/1f"),
        (said("/1.0", "Started operation"), None),
        ('{"type": "lifecycle", "metadata": {"action": "instance-started"}}', None),
        ("", None),
        ("[]", None),
    ],
)
def test_requests_are_named_by_what_they_are_about(message, name) -> None:
    assert usage.request_of(message) == name
