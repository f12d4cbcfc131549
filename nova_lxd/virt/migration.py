"""Another flavor for a server, on the same host."""

from __future__ import annotations

from typing import Any

from nova_lxd.virt.container import Containers
from nova_lxd.virt.model import HostFacts
from nova_lxd.virt.power import Power
from nova_lxd.virt.session import Session


class Migration:
    """Resizes servers; until it is confirmed each resize can be taken back."""

    def __init__(
        self, session: Session, host: HostFacts, containers: Containers, power: Power
    ) -> None:
        self._session = session
        self._host = host
        self._containers = containers
        self._power = power

    def prepare(
        self, context: Any, instance: Any, dest: str, flavor: Any, timeout: int, retry_interval: int
    ) -> str:
        """Refuse what cannot work, stop the server and keep a way back."""
        raise NotImplementedError

    def finish(
        self, context: Any, instance: Any, network_info: Any, image_meta: Any, power_on: bool
    ) -> None:
        """Give a server its new flavor."""
        raise NotImplementedError

    def confirm(self, instance: Any) -> None:
        """Forget the way back."""
        raise NotImplementedError

    def revert(self, context: Any, instance: Any, network_info: Any, power_on: bool) -> None:
        """Go the way back."""
        raise NotImplementedError
