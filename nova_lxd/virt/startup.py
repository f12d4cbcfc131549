"""What nova-compute finds when it starts: work that was cut off."""

from __future__ import annotations

from typing import Any

from nova_lxd.virt.container import Containers
from nova_lxd.virt.session import Session


class Startup:
    """Finishes or takes back what was under way when the service ended."""

    def __init__(self, session: Session, containers: Containers) -> None:
        self._session = session
        self._containers = containers

    def recover(self, context: Any, instances: Any) -> Any:
        """Bring this host's containers into line with Nova's servers, and return these."""
        return instances
