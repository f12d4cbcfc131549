"""Files inside instances."""

from __future__ import annotations

from nova_lxd.virt.session.transport import Transport


class Files(Transport):
    """Reads and writes them through LXD, which stays inside the instance's root."""
