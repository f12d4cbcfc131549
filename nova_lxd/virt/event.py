"""LXD's lifecycle events as Nova's."""

from __future__ import annotations

from typing import Any

from nova_lxd.virt.session import Session


class Events:
    """Listens to LXD for as long as the service runs."""

    def __init__(self, session: Session, emit: Any) -> None:
        self._session = session
        self._emit = emit

    def start(self) -> None:
        """Listen in a thread of our own."""

    def stop(self) -> None:
        """Listen no more."""
