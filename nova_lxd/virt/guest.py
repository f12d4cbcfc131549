"""What needs the guest's help."""

from __future__ import annotations

from typing import Any

import tenacity
from oslo_log import log as logging

from nova_lxd import exception
from nova_lxd.virt.container import Containers
from nova_lxd.virt.session import Session

LOG = logging.getLogger(__name__)

_PATIENCE = 30
"""Seconds that the guest gets to change a password."""
_TOO_EARLY = "Failed to retrieve PID"
"""What LXD says of a command that comes before a container's init is ready (5.0.2)."""


class Guests:
    """Runs the few commands inside servers that Nova asks for."""

    def __init__(self, session: Session, containers: Containers) -> None:
        self._session = session
        self._containers = containers

    def set_password(self, instance: Any, password: str) -> None:
        """Set the administrator's password with the guest's ``chpasswd``.

        The administrator is ``root``, or whom the image's ``os_admin_user`` names.

        :raises GuestCannot: the guest has no chpasswd
        :raises Refused: the name or the password cannot be said to chpasswd
        :raises LXDError: chpasswd failed
        """
        user = instance.image_meta.properties.get("os_admin_user") or "root"
        if not _is_plain(user) or ":" in user:
            raise exception.Refused(
                "the image's os_admin_user must be a user's name, without ':' and line ends"
            )
        if not password or not _is_plain(password):
            raise exception.Refused("a password must not be empty and have no line ends in it")
        name = self._containers.current(instance).name
        self._change(name, f"{user}:{password}\n".encode())
        LOG.info("The password of %r was set", user, instance=instance)

    def _change(self, name: str, line: bytes) -> None:
        outcome = tenacity.Retrying(
            retry=tenacity.retry_if_exception_message(match=f".*{_TOO_EARLY}"),
            wait=tenacity.wait_fixed(0.2),
            stop=tenacity.stop_after_delay(_PATIENCE),
            reraise=True,
        )(self._session.run, name, ["chpasswd"], line, _PATIENCE)
        if outcome.status == 127:
            raise exception.GuestCannot(f"{name} has no chpasswd: install the package passwd")
        if outcome.status:
            # Not what it said: a hostile guest could say the password.
            raise exception.LXDError(f"chpasswd in {name} ended with status {outcome.status}")


def _is_plain(text: str) -> bool:
    return not set(text) & {"\n", "\r", "\0"}
