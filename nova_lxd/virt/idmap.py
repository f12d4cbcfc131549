"""Isolated uid/gid ranges, one for each server, chosen by us.

LXD 5.0.2 gives one range to several containers that are created at the same time, and starts them
(measured).  A base that is named explicitly it takes as it is, so the driver must not err.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

from nova_lxd import exception
from nova_lxd.virt.model import IdRange
from nova_lxd.virt.session import Session

SIZE = 65536
"""Ids of one server: what a Linux system expects to have."""


def capacity(whole: IdRange) -> int:
    """Say for how many servers a host's ids are enough; see :func:`choose` for the one less."""
    return max(0, whole.size // SIZE - 1)


def choose(whole: IdRange, taken: Iterable[IdRange]) -> IdRange:
    """Find the lowest free range.

    The first one of the host stays unused: containers of others that are not isolated live there.

    :raises IdRangeExhausted: none is left
    """
    candidate = IdRange(whole.base + SIZE, SIZE)
    for other in sorted(taken, key=lambda r: r.base):
        if candidate.overlaps(other):
            candidate = IdRange(other.end, SIZE)
    if candidate.end > whole.end:
        raise exception.IdRangeExhausted(
            f"every uid/gid range of this host ({whole.size} ids from {whole.base}, {SIZE} for "
            "each server) is taken: widen root's range in /etc/subuid and /etc/subgid and restart "
            "LXD and nova-compute"
        )
    return candidate


class IdRanges:
    """Hands out ranges so that servers which are built at the same time get different ones.

    Reading all containers takes LXD long (0.1 s for 200 that run), and their names nearly nothing.
    One of our project's keeps its range for life, so all are read only when there is a new one that
    was not made here, or one of somebody else's.
    """

    def __init__(self, session: Session, whole: IdRange) -> None:
        self._session = session
        self._whole = whole
        self._lock = threading.Lock()
        self._known: dict[str, IdRange | None] = {}
        """Our project's containers, by name: None for one that has no range of its own."""
        self._pending: dict[str, IdRange] = {}

    @contextlib.contextmanager
    def reserved(self, name: str) -> Iterator[IdRange]:
        """Reserve a free range for the block, which must create the instance ``name`` with it."""
        with self._lock:
            chosen = self._pending[name] = self._choose()
        try:
            yield chosen
        finally:
            with self._lock:
                self._known[name] = self._pending.pop(name)

    def _choose(self) -> IdRange:
        try:
            return choose(self._whole, self._taken())
        except exception.IdRangeExhausted:
            # A privileged server was given one as well, and did not take it.
            self._known.clear()
            return choose(self._whole, self._taken())

    def _taken(self) -> set[IdRange]:
        present = self._session.instance_names()
        ours = {name for project, name in present if project == self._session.project}
        known = self._known | self._pending
        found = set(self._pending.values())
        if len(ours) < len(present) or not ours <= known.keys():
            ranges = self._session.taken_id_ranges()
            known = {name: ranges.get((self._session.project, name)) for name in ours}
            found.update(ranges.values())
        self._known = {name: known[name] for name in ours}
        return found | {taken for taken in self._known.values() if taken}
