"""Isolated id ranges: disjoint from everybody's and inside the host's range."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_lxd import exception
from nova_lxd.virt import idmap
from nova_lxd.virt.model import IdRange

WHOLE = IdRange(100000, 10000001)

ranges = st.builds(IdRange, st.integers(0, 12_000_000), st.integers(1, 200_000))


@given(st.lists(ranges, max_size=40))
def test_the_chosen_range_is_free_and_inside(taken):
    try:
        chosen = idmap.choose(WHOLE, taken)
    except exception.IdRangeExhausted:
        return
    assert chosen.size == 65536
    assert WHOLE.base + 65536 <= chosen.base
    assert chosen.end <= WHOLE.end
    assert not any(chosen.overlaps(other) for other in taken)


@given(st.lists(ranges, max_size=20))
def test_a_hole_is_found_where_there_is_one(taken):
    candidates = [
        IdRange(base, 65536) for base in range(WHOLE.base + 65536, WHOLE.end - 65536, 65536)
    ]
    holes = [c for c in candidates if not any(c.overlaps(other) for other in taken)]
    if holes:
        assert idmap.choose(WHOLE, taken).base <= holes[0].base


def test_the_first_range_is_left_to_containers_without_isolation():
    assert idmap.choose(WHOLE, []) == IdRange(165536, 65536)


def test_a_host_holds_so_many_and_then_says_what_to_do():
    taken: list[IdRange] = []
    for _ in range(10000001 // 65536 - 1):
        taken.append(idmap.choose(WHOLE, taken))
    with pytest.raises(exception.IdRangeExhausted, match="/etc/subuid and /etc/subgid"):
        idmap.choose(WHOLE, taken)


class Lxd:
    """Knows an instance's range only once the instance is made, as LXD does.

    :ivar looks: how often all instances were read
    """

    project = "nova"

    def __init__(self):
        self.made = {}
        self.looks = 0

    def make(self, name, ids, project="nova"):
        self.made[project, name] = ids

    def instance_names(self):
        return set(self.made)

    def taken_id_ranges(self):
        self.looks += 1
        return {key: ids for key, ids in self.made.items() if ids}


@pytest.fixture
def lxd():
    return Lxd()


def build(lxd, allocator, name):
    with allocator.reserved(name) as chosen:
        lxd.make(name, chosen)
    return chosen


def test_servers_that_are_built_at_once_get_different_ranges(lxd):
    allocator = idmap.IdRanges(lxd, WHOLE)
    barrier = threading.Barrier(8)

    def build(number):
        with allocator.reserved(f"server-{number}") as chosen:
            barrier.wait(timeout=60)
            lxd.make(f"server-{number}", chosen)
        return chosen

    with ThreadPoolExecutor(8) as pool:
        chosen = list(pool.map(build, range(8)))
    assert not any(a.overlaps(b) for a, b in itertools.combinations(chosen, 2))


def test_a_range_whose_server_failed_is_free_again(lxd):
    allocator = idmap.IdRanges(lxd, WHOLE)
    with pytest.raises(RuntimeError), allocator.reserved("server") as first:
        raise RuntimeError
    with allocator.reserved("another") as second:
        assert second == first


def test_a_range_whose_server_is_gone_is_free_again(lxd):
    allocator = idmap.IdRanges(lxd, WHOLE)
    first = build(lxd, allocator, "server")
    del lxd.made["nova", "server"]
    assert build(lxd, allocator, "another") == first


def test_servers_that_were_made_here_are_not_read(lxd):
    allocator = idmap.IdRanges(lxd, WHOLE)
    chosen = [build(lxd, allocator, f"server-{number}") for number in range(5)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(chosen, 2))
    assert lxd.looks == 0


def test_servers_of_an_earlier_life_are_read_once(lxd):
    for number in range(3):
        build(lxd, idmap.IdRanges(lxd, WHOLE), f"server-{number}")
    lxd.looks = 0
    allocator = idmap.IdRanges(lxd, WHOLE)
    chosen = [build(lxd, allocator, f"new-{number}") for number in range(3)]
    assert lxd.looks == 1
    assert len({*chosen, *lxd.made.values()}) == 6


def test_what_is_not_ours_is_read_every_time(lxd):
    allocator = idmap.IdRanges(lxd, WHOLE)
    first = build(lxd, allocator, "server")
    moving = IdRange(first.end, 65536)
    lxd.make("other", moving, project="default")
    second = build(lxd, allocator, "another")
    lxd.make("other", IdRange(second.end, 65536), project="default")
    third = build(lxd, allocator, "last")
    assert [second.base, third.base] == [moving.end, first.end]


def test_what_somebody_makes_in_our_project_is_read(lxd):
    allocator = idmap.IdRanges(lxd, WHOLE)
    first = build(lxd, allocator, "server")
    lxd.make("by-hand", IdRange(first.end, 65536))
    assert build(lxd, allocator, "another").base == first.end + 65536
    assert build(lxd, allocator, "last").base == first.end + 2 * 65536
    assert lxd.looks == 1


def test_ranges_that_privileged_servers_did_not_take_are_given_to_others(lxd):
    allocator = idmap.IdRanges(lxd, IdRange(100000, 3 * 65536))
    for name in ("privileged", "another"):
        with allocator.reserved(name):
            lxd.make(name, None)
    assert build(lxd, allocator, "server").base == 165536
    assert build(lxd, allocator, "last").base == 231072
    with pytest.raises(exception.IdRangeExhausted), allocator.reserved("too-many"):
        pass
