"""Changes of what exists: profiles and instances."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tenacity

from nova_lxd import exception
from nova_lxd.virt.model import ROLE_KEY, Config, Devices
from nova_lxd.virt.session.transport import Transport

_KEPT = "volatile."
"""What LXD itself keeps in an instance's config; a PUT without it loses it (pylxd's does not)."""

_WRITABLE = ("architecture", "config", "description", "devices", "ephemeral", "profiles")
"""What a PUT takes of an instance, and without which it would be emptied."""


class Updates(Transport):
    """Whole replacements, guarded by ETags where somebody else may write too."""

    def update_profile(self, name: str, config: Config, devices: Devices) -> None:
        """Replace a profile's content; NotFound without it."""
        self.operate("PUT", "profiles", name, json={"config": config, "devices": devices})

    def update_instance(
        self, name: str, config: Config, devices: Devices, profiles: Sequence[str]
    ) -> None:
        """Replace an instance's own config and devices; LXD's volatile keys stay.

        :raises NotFound: there is none
        :raises PreconditionFailed: somebody else changes it all the time
        """

        def change(present: dict[str, Any]) -> dict[str, Any]:
            kept = {key: value for key, value in present["config"].items() if key.startswith(_KEPT)}
            return {"config": kept | config, "devices": devices, "profiles": list(profiles)}

        self._change_instance(name, change)

    def change_role(
        self, name: str, role: str, devices: Callable[[Devices, Devices], Devices]
    ) -> None:
        """Change an instance's role and, in the same step, its own devices; all else of it stays.

        :param role: see :class:`InstanceState`
        :param devices: takes its own devices and those with its profile's, returns its own anew
        :raises NotFound: there is none
        :raises PreconditionFailed: somebody else changes it all the time
        """

        def change(present: dict[str, Any]) -> dict[str, Any]:
            config = {key: value for key, value in present["config"].items() if key != ROLE_KEY}
            return {
                "config": config | ({ROLE_KEY: role} if role else {}),
                "devices": devices(present["devices"], present["expanded_devices"]),
            }

        self.retry_busy(functools.partial(self._change_instance, name, change))

    def _change_instance(
        self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        """Write an instance back with what ``change`` makes of it."""

        def attempt() -> None:
            present, etag = self.get_tagged("instances", name)
            body = {key: present[key] for key in _WRITABLE} | change(present)
            headers = {"If-Match": etag}
            self.operate("PUT", "instances", name, json=body, headers=headers)

        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(exception.PreconditionFailed),
            stop=tenacity.stop_after_attempt(5),
            reraise=True,
        )(attempt)
