"""This host's LXD: fit for the driver or not, and what it has to offer."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import nova.conf
from oslo_serialization import jsonutils
from oslo_utils import units, versionutils

from nova_lxd import exception
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.model import HostFacts
from nova_lxd.virt.session import REQUIRED_EXTENSIONS, ServerInfo, Session, Timeouts

CONF = nova.conf.CONF

_SOCKETS = ("/var/snap/lxd/common/lxd/unix.socket", "/var/lib/lxd/unix.socket")
_INSTANCE_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the host has in all, and what is in use: MiB and GiB."""

    vcpus: int
    memory_mb: int
    memory_mb_used: int
    disk_gb: int
    disk_gb_used: int
    cpu_info: str
    """JSON as Nova wants it: arch, vendor, model, features, topology."""


def endpoint() -> str:
    """Find LXD's socket: the option, else where LXD's packages put it."""
    if CONF.lxd.endpoint:
        return str(CONF.lxd.endpoint)
    folder = os.environ.get("LXD_DIR")
    candidates = ([f"{folder}/unix.socket"] if folder else []) + list(_SOCKETS)
    return next((path for path in candidates if os.path.exists(path)), _SOCKETS[-1])


def open_session() -> Session:
    """Make the session that the options describe; does no I/O."""
    lxd = CONF.lxd
    timeouts = Timeouts(lxd.request_timeout, lxd.operation_timeout, lxd.image_timeout)
    return Session(endpoint(), lxd.project, timeouts)


class Host:
    """The compute host as LXD describes it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._info: ServerInfo | None = None
        self._capacity: Capacity | None = None

    def check(self) -> HostFacts:
        """Refuse a host that cannot run servers; make our LXD project where it is missing.

        :raises ConfigurationError: one line that names the option and the remedy
        """
        check_name_template()
        info = self.reach()
        self._session.ensure_project()
        pool = CONF.lxd.pool
        return HostFacts(
            name=info.name,
            architectures=info.architectures,
            server_version=info.version,
            api_extensions=info.api_extensions,
            pool=pool,
            pool_driver=self.pool_driver(pool),
            id_range=self._session.default_id_range(pool),
            allow_privileged=CONF.lxd.allow_privileged,
            allow_nested=CONF.lxd.allow_nested,
        )

    def reach(self) -> ServerInfo:
        """Refuse an LXD that does not answer us, or cannot do what the driver asks of it.

        :raises ConfigurationError: as ``check`` does
        """
        info = self._info = self._connect()
        missing = [name for name in REQUIRED_EXTENSIONS if name not in info.api_extensions]
        if missing:
            raise exception.ConfigurationError(
                f"[lxd]endpoint: LXD {info.version} at {self._session.endpoint} lacks the API "
                f"extensions {', '.join(missing)}: install LXD 5.0 or later"
            )
        return info

    def _connect(self) -> ServerInfo:
        socket = self._session.endpoint
        try:
            return self._session.server()
        except exception.LXDPermissionDenied as error:
            raise exception.ConfigurationError(
                f"[lxd]endpoint: the user that runs nova-compute (uid {os.geteuid()}) may not use "
                f"{socket}: add it to the socket's group (usually 'adduser nova lxd') and start "
                "nova-compute again"
            ) from error
        except exception.LXDUnreachable as error:
            raise exception.ConfigurationError(
                f"[lxd]endpoint: no LXD answers at {socket}: start LXD, or set the option to the "
                f"path of its unix socket ({error})"
            ) from error

    def pool_driver(self, pool: str) -> str:
        """Name the pool's storage driver; refuse one that LXD does not have.

        :raises ConfigurationError: as ``check`` does
        """
        try:
            return self._session.pool_driver(pool)
        except exception.NotFound as error:
            names = ", ".join(self._session.pool_names()) or "none"
            raise exception.ConfigurationError(
                f"[lxd]pool: LXD has no storage pool '{pool}' (it has: {names}): create it with "
                f"'lxc storage create {pool} btrfs' or set the option to one that exists"
            ) from error

    @property
    def version(self) -> int:
        """LXD's version as Nova's integer: 5.21.4 is 5021004, 6.5 is 6005000."""
        found = re.findall(r"\d+", self._info.version) if self._info else []
        numbers = tuple(int(number) for number in [*found, 0, 0, 0][:3])
        return int(versionutils.convert_version_to_int(numbers))

    @property
    def kernel_version(self) -> str:
        """The host's kernel release."""
        return self._info.kernel_version if self._info else ""

    def capacity(self) -> Capacity:
        """Measure the host in two requests, however many servers it runs."""
        resources = self._session.resources()
        space = self._session.pool_space(CONF.lxd.pool)
        self._capacity = Capacity(
            vcpus=int(resources["cpu"]["total"]),
            memory_mb=int(resources["memory"]["total"]) // units.Mi,
            memory_mb_used=int(resources["memory"]["used"]) // units.Mi,
            disk_gb=space.total // units.Gi,
            disk_gb_used=space.used // units.Gi,
            cpu_info=jsonutils.dumps(_cpu_info(resources["cpu"])),
        )
        return self._capacity

    def last_capacity(self) -> Capacity:
        """Return what ``capacity`` measured last.

        Nova has it measured every minute.  What the host has in all it asks for after that, and
        whenever a server begins and ends, while all others wait; LXD takes 15 ms or more for it.
        """
        return self._capacity or self.capacity()


def check_name_template() -> None:
    """Refuse an option that gives names which LXD does not take.

    :raises ConfigurationError: as ``check`` of the host does
    """
    sample = CONF.instance_name_template % 1
    names = (sample, instance_translator.rescue_name(sample))
    if not all(map(_INSTANCE_NAME.fullmatch, names)):
        raise exception.ConfigurationError(
            f"instance_name_template: it gives names like '{sample}', which LXD refuses: use "
            "letters, digits and hyphens, a letter first, 56 at most"
        )


def _cpu_info(cpu: dict[str, Any]) -> dict[str, Any]:
    sockets = cpu.get("sockets") or []
    first = sockets[0] if sockets else {}
    cores = first.get("cores") or [{}]
    return {
        "arch": cpu.get("architecture", ""),
        "vendor": first.get("vendor", ""),
        "model": first.get("name", ""),
        "features": [],
        "topology": {
            "sockets": max(1, len(sockets)),
            "cores": len(cores),
            "threads": max(1, len(cores[0].get("threads") or [])),
        },
    }
