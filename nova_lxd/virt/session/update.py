"""Changes of what exists: profiles and instances."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tenacity

from nova_lxd import exception
from nova_lxd.virt.model import REVERTING_KEY, ROLE_KEY, Config, Devices
from nova_lxd.virt.session.transport import Transport

_KEPT = ("volatile.", "image.", "user.nova.request_id")
"""What an instance's config keeps: LXD's own keys, which a PUT without them loses (pylxd's does
not), and the request that built it."""

_WRITABLE = ("architecture", "config", "description", "devices", "ephemeral", "profiles")
"""What a PUT takes of an instance, and without which it would be emptied."""


_PAUSE = 0.5
"""Seconds in which LXD plugs or unplugs a NIC, even when it is busy."""

_COMMIT = 40
"""Seconds that a full disk is given: btrfs commits every 30, and drops reservations then.

A kernel that reserves a block of the subvolume for a change of its limit refuses below 16 KiB
(measured on 6.18), and so does LXD.  CI saw it once under load, never alone.
"""


def _may_be_done(error: BaseException) -> bool:
    known = isinstance(error, exception.LXDDriverError)
    # A full disk has been given its time already.
    return known and not isinstance(error, exception.NotFound | exception.DiskFull)


class Updates(Transport):
    """Whole replacements, guarded by ETags where somebody else may write too."""

    def update_profile(self, name: str, config: Config, devices: Devices) -> bool:
        """Replace a profile's content, and tell whether it was wrong; NotFound without it."""
        body = {"config": config, "devices": devices}
        present = self.get("profiles", name)
        wrong = any(present[key] != value for key, value in body.items())
        if wrong:
            self.operate("PUT", "profiles", name, json=body)
        return wrong

    def update_instance(
        self, name: str, config: Config, devices: Devices, profiles: Sequence[str]
    ) -> None:
        """Replace an instance's own config and devices; see ``_KEPT`` for what stays.

        :raises NotFound: there is none
        :raises PreconditionFailed: somebody else changes it all the time
        """

        def change(present: dict[str, Any]) -> dict[str, Any]:
            kept = {key: value for key, value in present["config"].items() if key.startswith(_KEPT)}
            return {"config": config | kept, "devices": devices, "profiles": list(profiles)}

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

    def change_devices(self, name: str, change: Callable[[Devices], Devices]) -> None:
        """Change an instance's own devices; LXD does it at once when it runs.

        :param change: takes the devices, returns what they are to be; a repetition changes nothing
        :raises NotFound: there is none
        :raises PreconditionFailed: somebody else changes it all the time
        """

        def with_devices(present: dict[str, Any]) -> dict[str, Any]:
            return {"devices": change(present["devices"])}

        # Where only the answer is lost, or LXD is still at it, another try changes nothing more.
        tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_be_done),
            wait=tenacity.wait_fixed(_PAUSE),
            stop=tenacity.stop_after_attempt(3),
            reraise=True,
        )(self.retry_busy, functools.partial(self._change_instance, name, with_devices))

    def mark_reverting(self, name: str) -> None:
        """Note that an instance is to become what its snapshot is.

        The snapshot was taken without the note, so restoring it takes the note away.
        """
        body = {"config": {REVERTING_KEY: "true"}}
        self.operate("PATCH", "instances", name, json=body)

    def _change_instance(
        self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        """Write an instance back with what ``change`` makes of it, unless that is nothing."""

        def attempt() -> None:
            present, etag = self.get_tagged("instances", name)
            before = {key: present[key] for key in _WRITABLE}
            body = before | change(present)
            if body == before:
                return
            headers = {"If-Match": etag}
            self.operate("PUT", "instances", name, json=body, headers=headers)

        changing = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(exception.PreconditionFailed),
            stop=tenacity.stop_after_attempt(5),
            reraise=True,
        )
        patient = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(exception.DiskFull),
            wait=tenacity.wait_fixed(_PAUSE),
            stop=tenacity.stop_after_delay(min(_COMMIT, self.timeouts.operation)),
            reraise=True,
        )
        try:
            patient(changing, attempt)
        except exception.DiskFull as error:
            raise exception.DiskFull(
                f"{error}: the server's root disk is full to its last block; remove a file in it, "
                "or raise the limit on the host (btrfs qgroup limit), and try again"
            ) from error
