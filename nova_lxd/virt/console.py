"""The server's console."""

from __future__ import annotations

from nova_lxd.virt.session import Session


def log(session: Session, name: str) -> str:
    """Read the console log, the last 128 KiB; bytes that are no UTF-8 are replaced."""
    return session.console_log(name).decode("utf-8", errors="replace")
