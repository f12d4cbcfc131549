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
    """Hands out ranges so that servers which are built at the same time get different ones."""

    def __init__(self, session: Session, whole: IdRange) -> None:
        self._session = session
        self._whole = whole
        self._lock = threading.Lock()
        self._pending: set[IdRange] = set()

    @contextlib.contextmanager
    def reserved(self) -> Iterator[IdRange]:
        """Reserve a free range for the block, which must create the instance that takes it."""
        with self._lock:
            taken = {*self._session.taken_id_ranges(), *self._pending}
            chosen = choose(self._whole, taken)
            self._pending.add(chosen)
        try:
            yield chosen
        finally:
            with self._lock:
                self._pending.discard(chosen)
