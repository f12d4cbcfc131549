"""Whether the driver can run on this host: what nova-compute finds at its start, asked beforehand.

Nothing is made or changed, so what only the making would tell is not known here.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nova.conf
from nova import utils
from oslo_upgradecheck.upgradecheck import Code, Result, UpgradeCommands
from vif_plug_ovs import privsep as osvif_privsep

from nova_lxd import exception, privsep
from nova_lxd.cmd.options import ovs_database
from nova_lxd.invariants import gather
from nova_lxd.virt import idmap
from nova_lxd.virt.host import Host, check_name_template, open_session
from nova_lxd.virt.model import IdRange

CONF = nova.conf.CONF

_TESTED_VERSION = 5_000_000
_SUBIDS = ("/etc/subuid", "/etc/subgid")
_SNAP = "/var/snap/"


def _checked(check: Callable[[Any], Result]) -> Callable[[Any], Result]:
    """Let what a check raises be its result."""

    @functools.wraps(check)
    def run(self: Any) -> Result:
        try:
            return check(self)
        except exception.LXDUnreachable:
            return Result(Code.FAILURE, "not known: LXD does not answer, see above")
        except exception.LXDDriverError as error:
            return Result(Code.FAILURE, str(error))

    return run


class Readiness(UpgradeCommands):
    """The checks, in the order in which a host is set up."""

    display_title = "nova-lxd-status check"

    def __init__(self) -> None:
        self._session = open_session()
        self._host = Host(self._session)

    @_checked
    def _lxd(self) -> Result:
        info = self._host.reach()
        where = f"LXD {info.version} at {self._session.endpoint}, asked as uid {os.geteuid()}"
        if self._host.version < _TESTED_VERSION:
            return Result(Code.WARNING, f"{where}: install LXD 5.0 or later, this one is untested")
        return Result(Code.SUCCESS, where)

    @_checked
    def _project(self) -> Result:
        name = self._session.project
        try:
            config = self._session.project_config()
        except exception.NotFound:
            return Result(Code.SUCCESS, f"{name}: nova-compute makes it at its first start")
        shared = [kind for kind in ("images", "profiles") if not _has_own(config, kind)]
        if shared:
            return Result(
                Code.WARNING,
                f"[lxd]project: {name} shares its {' and '.join(shared)} with LXD's project "
                "default, and so with others: let nova-compute make a project of its own",
            )
        return Result(Code.SUCCESS, name)

    @_checked
    def _names(self) -> Result:
        check_name_template()
        return Result(Code.SUCCESS, str(CONF.instance_name_template))

    @_checked
    def _pool(self) -> Result:
        pool = CONF.lxd.pool
        driver = self._host.pool_driver(pool)
        space = self._session.pool_space(pool)
        text = f"{pool} ({driver}), {(space.total - space.used) // 2**30} GiB free"
        if driver == "dir":
            return Result(
                Code.WARNING,
                f"[lxd]pool: {text}: a dir pool copies the image for each server and holds no root "
                "disk to its size; use btrfs, zfs or lvm for more than a trial",
            )
        return Result(Code.SUCCESS, text)

    @_checked
    def _id_range(self) -> Result:
        if self._session.endpoint.startswith(_SNAP):
            return Result(Code.SUCCESS, "LXD's snap chooses it; nova-compute asks at its start")
        try:
            whole = _intersection(_root_ids(Path(file)) for file in _SUBIDS)
        except (OSError, ValueError) as error:
            return Result(
                Code.WARNING,
                f"root has no host ids for containers ({error}): give it some in /etc/subuid and "
                "/etc/subgid, such as root:1000000:1000000000, and restart LXD",
            )
        room = idmap.capacity(whole)
        taken = len(self._session.taken_id_ranges())
        text = f"{whole.size} ids from {whole.base}: room for {room} servers, {taken} are taken"
        if taken < room:
            return Result(Code.SUCCESS, text)
        return Result(
            Code.WARNING,
            f"{text}: widen root's range in /etc/subuid and /etc/subgid and restart LXD",
        )

    def _switch(self) -> Result:
        database, bridge = ovs_database(), CONF.neutron.ovs_bridge
        try:
            ports = gather.ovs_ports(database)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            words = str(getattr(error, "stderr", "") or error).strip()
            return Result(
                Code.FAILURE,
                f"[os_vif_ovs]ovsdb_connection: no Open vSwitch database answers at {database} "
                f"({words}): start it, and let it listen there: ovs-vsctl set-manager "
                "ptcp:6640:127.0.0.1; or set the option to unix:PATH of its socket",
            )
        if bridge not in {port.bridge for port in ports}:
            return Result(
                Code.FAILURE,
                f"[neutron]ovs_bridge: Open vSwitch at {database} has no bridge {bridge}: start "
                "this host's Neutron agent or ovn-controller, which makes it, or set the option",
            )
        return Result(Code.SUCCESS, f"bridge {bridge} at {database}")

    def _tools(self) -> Result:
        if not _find("ip"):
            return Result(Code.FAILURE, "ip is not installed: install iproute2")
        if not _find("ethtool"):
            return Result(
                Code.WARNING,
                "ethtool is not installed: servers need it where Open vSwitch has "
                "datapath_type=netdev",
            )
        return Result(Code.SUCCESS, "ip, ethtool")

    def _helpers(self) -> Result:
        contexts = [privsep.net_admin, osvif_privsep.vif_plug]
        if CONF.serial_console.enabled:
            contexts.append(privsep.console)
        for context in contexts:
            command = context.conf.helper_command
            words = shlex.split(command or f"{utils.get_root_helper()} privsep-helper")
            missing = [word for word in _programs(words) if not _find(word)]
            if missing:
                return Result(
                    Code.FAILURE,
                    f"[{context.cfg_section}]helper_command: {' '.join(words)}: there is no "
                    f"{', '.join(missing)}: install it, or set the option as the sample does",
                )
        return Result(Code.SUCCESS, "their commands are there; nova-compute tells if one fails")

    _upgrade_checks = (
        ("LXD", _lxd),
        ("LXD project", _project),
        ("Storage pool", _pool),
        ("Servers' names", _names),
        ("Servers' ids", _id_range),
        ("Open vSwitch", _switch),
        ("Tools", _tools),
        ("Privileged helpers", _helpers),
    )


def _has_own(config: dict[str, str], kind: str) -> bool:
    return config.get(f"features.{kind}") == "true"


def _root_ids(file: Path) -> IdRange:
    """Read the first range that root has; the name is root or its number.

    :raises OSError: there is no such file; ValueError: root has none
    """
    for line in file.read_text().splitlines():
        user, *numbers = line.strip().split(":")
        if user in ("root", "0"):
            base, size = map(int, numbers)
            return IdRange(base, size)
    raise ValueError(f"{file} has no line for root")


def _intersection(ranges: Iterable[IdRange]) -> IdRange:
    ranges = list(ranges)
    base = max(ids.base for ids in ranges)
    return IdRange(base, max(0, min(ids.end for ids in ranges) - base))


def _programs(words: list[str]) -> list[str]:
    """Return the programs and files at the beginning of a helper's command, the helper included."""
    end = words.index("privsep-helper") + 1 if "privsep-helper" in words else 1
    return [word for word in words[:end] if not word.startswith("-")]


def _find(name: str) -> str | None:
    """Look for a program, or a file with its path, also where only root does."""
    if name.startswith("/"):
        return name if os.path.exists(name) else None
    folders = [os.environ.get("PATH", os.defpath), os.path.dirname(sys.executable)]
    return shutil.which(name, path=os.pathsep.join([*folders, "/usr/sbin", "/sbin"]))
