"""Websockets: events, consoles, commands."""

from __future__ import annotations

from nova_lxd.virt.session.transport import Transport


class Streams(Transport):
    """Opens what LXD streams."""
