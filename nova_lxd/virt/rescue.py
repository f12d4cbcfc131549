"""Rescue: another root to boot from, the own one beside it."""

from __future__ import annotations

from typing import Any

from nova_lxd.virt.container import Containers
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.model import HostFacts
from nova_lxd.virt.power import Power
from nova_lxd.virt.session import Session


class Rescue:
    """Puts servers into rescue and takes them out."""

    def __init__(
        self,
        session: Session,
        host: HostFacts,
        containers: Containers,
        images: ImageCache,
        power: Power,
    ) -> None:
        self._session = session
        self._host = host
        self._containers = containers
        self._images = images
        self._power = power

    def rescue(
        self, context: Any, instance: Any, network_info: Any, image_meta: Any, password: str
    ) -> None:
        """Boot a stopped server from another image."""
        raise NotImplementedError

    def unrescue(self, context: Any, instance: Any) -> None:
        """Boot it from its own root again."""
        raise NotImplementedError
