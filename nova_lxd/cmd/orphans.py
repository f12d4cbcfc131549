"""What of the driver's is on this host and belongs to no server."""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nova.conf
from nova.compute import vm_states
from oslo_utils import timeutils

from nova_lxd import invariants
from nova_lxd.cmd.conductor import CannotTell, Fate, Nova
from nova_lxd.cmd.options import ovs_database
from nova_lxd.invariants import Facts, Violation, gather

CONF = nova.conf.CONF

PAUSE = 10.0
"""Seconds between the two looks; what comes and goes is gone by then."""

_SHARED = ("I3", "I5", "I11")
"""Rules about what another nova-compute on the same machine may have as well."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something that can go."""

    what: str
    why: str
    command: str
    """Removes it; for a shell."""
    server: str = ""
    """Nova's id of the server whose it was, where it tells."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found."""

    orphans: tuple[Orphan, ...] = ()
    undecided: tuple[str, ...] = ()
    """What no server of this host needs and may yet belong to somebody, with the reason."""


def facts_of_host(endpoint: str) -> Facts:
    """Read what there is; changes nothing.

    :param endpoint: path of LXD's socket
    :raises CannotTell: some of it cannot be read
    """
    get, folder = gather.lxd(endpoint), Path(CONF.instances_path)
    try:
        return gather.host(get, CONF.lxd.project, ovs_database(), folder)
    except subprocess.CalledProcessError as error:
        words = (error.stderr or "").strip() or error
        raise CannotTell(f"{error.cmd[0]} failed: {words}") from error
    except subprocess.TimeoutExpired as error:
        raise CannotTell(f"{error.cmd[0]} did not answer within {error.timeout:g} s") from error
    except (gather.LxdAnswered, http.client.HTTPException, OSError, ValueError) as error:
        raise CannotTell(
            f"the host cannot be read (LXD's socket is {endpoint}): {error}"
        ) from error


def find(look: Callable[[], Facts], nova: Nova) -> Report:
    """Look twice, and ask Nova each time afterwards: what is being made or removed is no orphan.

    Nova has a server on this host before the driver makes anything for it, and until the driver has
    removed it all.

    :param look: reads the facts
    :raises CannotTell: Nova or the host did not tell everything, so nothing is said of anything
    """
    suspects = {violation.mend for violation in _leftovers(look, nova)[1]}
    if not suspects:
        return Report()
    time.sleep(PAUSE)
    orphans: list[Orphan] = []
    undecided: list[str] = []
    here, found = _leftovers(look, nova)
    for violation in found:
        if violation.mend not in suspects:
            continue
        fate = nova.fate(violation.server) if violation.server else None
        if doubt := _doubt(violation, fate, here):
            undecided.append(f"{violation.subject}: {doubt}")
        else:
            why = _why(violation, fate)
            orphans.append(Orphan(violation.subject, why, violation.mend, violation.server))
    return Report(tuple(orphans), tuple(undecided))


def _leftovers(look: Callable[[], Facts], nova: Nova) -> tuple[set[str], list[Violation]]:
    """Return the ids of the servers that are here, and what none of them needs."""
    facts = look()
    expected = nova.expected()
    here = {server.uuid for server in expected.servers}
    return here, invariants.leftovers(expected, facts)


def _doubt(violation: Violation, fate: Fate | None, here: set[str]) -> str:
    """Return why it may belong to somebody; empty when it belongs to nobody."""
    if fate is None:
        return _doubt_without_server(violation)
    if fate.deleted_at:
        age = (timeutils.utcnow(with_timezone=True) - fate.deleted_at).total_seconds()
        if age < CONF.lxd.operation_timeout:
            return f"server {violation.server} was deleted {age:.0f} s ago; it may go by itself yet"
        return ""
    came = fate.host == CONF.host and violation.server not in here
    if fate.busy or came:
        return f"Nova is doing something with server {violation.server}; ask again later"
    return "" if fate.host == CONF.host else _doubt_elsewhere(violation, fate)


def _doubt_elsewhere(violation: Violation, fate: Fate) -> str:
    if fate.vm_state == vm_states.ERROR:
        return f"server {violation.server} is in ERROR; this may be what it is brought back from"
    if violation.rule in _SHARED:
        return (
            f"server {violation.server} is {_where(fate)}; another nova-compute of this machine "
            "would need it there"
        )
    return ""


def _doubt_without_server(violation: Violation) -> str:
    """A folder in which an image is fetched is in use as long as the driver may work on it.

    Nor does a bridge say whose it is before it has a port.
    """
    if not violation.server and violation.subject.startswith("OVS bridge"):
        return (
            "it names no server, and a virtual machine that starts has a trunk's bridge before its "
            f"port; if there is none: {violation.mend}"
        )
    name = violation.subject.removeprefix("file ")
    if not name.startswith("lxd-image-"):
        return ""
    folder = Path(CONF.instances_path) / name
    try:
        age = time.time() - max(path.stat().st_mtime for path in (folder, *folder.glob("*")))
    except FileNotFoundError:
        return "it is being removed"
    if age < CONF.lxd.image_timeout:
        return f"it was written to {age:.0f} s ago; an image may be on its way"
    return ""


def _why(violation: Violation, fate: Fate | None) -> str:
    if not violation.server:
        return violation.problem
    if fate is None:
        return f"Nova knows no server {violation.server}"
    if fate.deleted_at:
        return f"server {violation.server} was deleted at {fate.deleted_at:%Y-%m-%d %H:%M:%S} UTC"
    if fate.host == CONF.host:
        return f"server {violation.server} is {fate.vm_state} and has no use for it"
    return f"server {violation.server} is {_where(fate)}"


def _where(fate: Fate) -> str:
    return f"on host {fate.host}" if fate.host else f"on no host ({fate.vm_state})"
