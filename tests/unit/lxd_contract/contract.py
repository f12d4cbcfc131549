"""The whole contract; a subclass gives the fixtures that differ between fake and real."""

from .files import FileContract
from .life import LifeContract
from .power import PowerContract
from .snapshots import SnapshotContract
from .store import StoreContract


class LXDContract(StoreContract, LifeContract, PowerContract, SnapshotContract, FileContract):
    """Needs the fixtures ``lxd_socket``, ``deaf_guests``, ``no_bridges`` and ``slow_cleanup``."""
