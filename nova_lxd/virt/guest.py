"""What needs the guest's help."""

from __future__ import annotations

from typing import Any

from nova_lxd.virt.container import Containers
from nova_lxd.virt.session import Session


class Guests:
    """Runs the few commands inside servers that Nova asks for."""

    def __init__(self, session: Session, containers: Containers) -> None:
        self._session = session
        self._containers = containers

    def set_password(self, instance: Any, password: str) -> None:
        """Set the administrator's password."""
        raise NotImplementedError
