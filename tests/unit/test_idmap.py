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
    """Knows an instance's range only once the instance is made, as LXD does."""

    def __init__(self):
        self.made = []

    def taken_id_ranges(self):
        return list(self.made)


def test_servers_that_are_built_at_once_get_different_ranges():
    lxd = Lxd()
    allocator = idmap.IdRanges(lxd, WHOLE)
    barrier = threading.Barrier(8)

    def build(_):
        with allocator.reserved() as chosen:
            barrier.wait(timeout=60)
            lxd.made.append(chosen)
        return chosen

    with ThreadPoolExecutor(8) as pool:
        chosen = list(pool.map(build, range(8)))
    assert not any(a.overlaps(b) for a, b in itertools.combinations(chosen, 2))


def test_a_range_whose_server_failed_is_free_again():
    allocator = idmap.IdRanges(Lxd(), WHOLE)
    with pytest.raises(RuntimeError), allocator.reserved() as first:
        raise RuntimeError
    with allocator.reserved() as second:
        assert second == first
