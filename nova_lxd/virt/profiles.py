"""The profiles in LXD: servers whose flavors come to the same share one (decision 0027)."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable, Iterator

import tenacity
from oslo_log import log as logging
from oslo_utils import excutils

from nova_lxd import exception
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.model import InstanceSpec
from nova_lxd.virt.session import Session

LOG = logging.getLogger(__name__)

_PAUSE = 0.5
"""Seconds before what failed is tried again."""


class Profiles:
    """Makes a profile before a server uses it, and deletes it when none does any more."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._awaited: Counter[str] = Counter()
        """How many servers are about to use a profile, which LXD would let us delete until then."""
        self._suspected = False
        """Whether there may be profiles that no server uses and nobody remembers."""

    @contextlib.contextmanager
    def used(self, spec: InstanceSpec) -> Iterator[None]:
        """Have a server's profile there, and right, for the block that gives it to the server."""
        with self._lock:
            self._awaited[spec.profile] += 1
        try:
            self._ensure(spec)
            yield
        finally:
            with self._lock:
                self._awaited[spec.profile] -= 1

    def _ensure(self, spec: InstanceSpec) -> None:
        content = (spec.profile, spec.profile_config, spec.profile_devices)
        try:
            if self._session.update_profile(*content):
                LOG.warning("LXD's profile %s was changed; it is right again", spec.profile)
        except exception.NotFound:
            # Another server of the flavor may be as far as this one.
            with contextlib.suppress(exception.AlreadyExists):
                self._session.create_profile(*content)

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(exception.LXDDriverError),
        wait=tenacity.wait_fixed(_PAUSE),
        stop=tenacity.stop_after_attempt(3),
        reraise=True,
    )
    def sweep(self) -> None:
        """Delete every profile of ours that no server uses, or is about to use.

        All of them, since one that could not be deleted when it should have been has no owner who
        would remember it.
        """
        # First, so that what fails beside this sweep is left to the next one.
        self._suspected = False
        try:
            self._delete(self._session.unused_profiles())
        except exception.LXDDriverError:
            with excutils.save_and_reraise_exception():
                self.suspect()

    def suspect(self) -> None:
        """Have the next removal of a server look for profiles that none uses."""
        self._suspected = True

    def drop(self, names: Iterable[str]) -> None:
        """Delete what a removed server had, unless others have it too.

        LXD lists a profile only with all who use it, so this asks for no list while none is needed.
        """
        if not self._suspected:
            try:
                self._delete(names)
            except exception.LXDDriverError as error:
                LOG.debug("LXD's profiles are looked through, since it said: %s", error)
            else:
                return
        self.sweep()

    def _delete(self, names: Iterable[str]) -> None:
        for name in filter(instance_translator.is_profile_of_ours, names):
            with self._lock:
                if not self._awaited[name]:
                    with contextlib.suppress(exception.NotFound, exception.InUse):
                        self._session.delete_profile(name)

    def tidy(self) -> None:
        """Sweep where a server needs nothing of it; what fails is left to the next sweep."""
        try:
            self.sweep()
        except exception.LXDDriverError as error:
            LOG.warning("LXD's profiles that no server uses stay for now: %s", error)
