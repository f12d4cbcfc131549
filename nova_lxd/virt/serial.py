"""Serial consoles: a TCP port for nova-serialproxy, LXD's console behind it."""

from __future__ import annotations

from typing import Any

from nova_lxd.virt.container import Containers
from nova_lxd.virt.session import Session


class SerialConsoles:
    """Offers a port for each server whose console somebody wants."""

    def __init__(self, session: Session, containers: Containers) -> None:
        self._session = session
        self._containers = containers

    def offer(self, instance: Any) -> tuple[str, int]:
        """Return host and port that lead to a server's console."""
        raise NotImplementedError

    def withdraw(self, instance: Any) -> None:
        """Close a server's port, if it has one."""

    def close(self) -> None:
        """Close all ports."""
