"""Changes of what exists: profiles and instances."""

from __future__ import annotations

from collections.abc import Sequence

import tenacity

from nova_lxd import exception
from nova_lxd.virt.model import Config, Devices
from nova_lxd.virt.session.transport import Transport

_KEPT = "volatile."
"""What LXD itself keeps in an instance's config; a PUT without it loses it (pylxd's does not)."""


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
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(exception.PreconditionFailed),
            stop=tenacity.stop_after_attempt(5),
            reraise=True,
        )(self._replace_instance, name, config, devices, profiles)

    def _replace_instance(
        self, name: str, config: Config, devices: Devices, profiles: Sequence[str]
    ) -> None:
        present, etag = self.get_tagged("instances", name)
        kept = {key: value for key, value in present["config"].items() if key.startswith(_KEPT)}
        body = {
            "architecture": present["architecture"],
            "description": present["description"],
            "ephemeral": present["ephemeral"],
            "config": kept | config,
            "devices": devices,
            "profiles": list(profiles),
        }
        headers = {"If-Match": etag}
        self.operate("PUT", "instances", name, json=body, headers=headers)
