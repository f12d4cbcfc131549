"""Snapshots of instances."""

from __future__ import annotations

from nova_lxd.virt.session.transport import Transport


class Snapshots(Transport):
    """Snapshots, and what LXD makes of them."""
