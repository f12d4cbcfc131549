"""Custom storage volumes."""

from __future__ import annotations

from nova_lxd.virt.session.transport import Transport


class Volumes(Transport):
    """Volumes that are no instance's root disk."""
