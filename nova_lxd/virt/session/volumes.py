"""Custom storage volumes."""

from __future__ import annotations

from nova_lxd.virt.session.transport import Transport


class Volumes(Transport):
    """Volumes that are no instance's root disk."""

    def import_volume(self, pool: str, name: str, backup: bytes) -> None:
        """Make a volume out of a backup of one; AlreadyExists if there is one of that name.

        It is the only way to fill a volume through LXD's API before an instance runs.
        """
        headers = {"Content-Type": "application/octet-stream", "X-LXD-name": name}
        path = ("storage-pools", pool, "volumes", "custom")
        self.operate("POST", *path, data=backup, headers=headers)

    def delete_volume(self, pool: str, name: str) -> None:
        """Delete a volume; NotFound without it."""
        self.operate("DELETE", "storage-pools", pool, "volumes", "custom", name)
