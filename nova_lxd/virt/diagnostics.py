"""What a running server uses."""

from __future__ import annotations

from typing import Any

from nova_lxd.virt.container import Containers
from nova_lxd.virt.session import Session


class Diagnostics:
    """Measures servers."""

    def __init__(self, session: Session, containers: Containers) -> None:
        self._session = session
        self._containers = containers

    def read(self, instance: Any) -> dict[str, Any]:
        """Measure one server, in the words of the API before 2.48."""
        raise NotImplementedError

    def read_object(self, instance: Any) -> Any:
        """Measure one server, as Nova's Diagnostics."""
        raise NotImplementedError
