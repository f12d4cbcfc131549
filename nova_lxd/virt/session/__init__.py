"""The only door to LXD: what the driver asks of it, with typed answers.

Only the transport half of pylxd is used.  Its models save without ETags, wait without a bound and
force a stop by default (measured on pylxd 2.4.2 with LXD 5.0.2).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib import parse

from nova_lxd import exception
from nova_lxd.virt.model import (
    REVERTING_KEY,
    ROLE_KEY,
    Config,
    Devices,
    IdRange,
    InstanceSpec,
    InstanceState,
    Nic,
)
from nova_lxd.virt.session.commands import Commands
from nova_lxd.virt.session.files import Files
from nova_lxd.virt.session.images import Images
from nova_lxd.virt.session.measures import Measures
from nova_lxd.virt.session.snapshots import Snapshots
from nova_lxd.virt.session.survey import Survey
from nova_lxd.virt.session.terminals import Terminals
from nova_lxd.virt.session.transport import Timeouts, Transport
from nova_lxd.virt.session.update import Updates
from nova_lxd.virt.session.volumes import Volumes

__all__ = ["REQUIRED_EXTENSIONS", "PoolSpace", "ServerInfo", "Session", "Timeouts"]

REQUIRED_EXTENSIONS = (
    "projects",
    "instances",
    "instance_all_projects",
    "id_map_base",
    "resources_v2",
    "console",
)
"""What the driver asks of LXD; all of them are in LXD 4.0 and later."""

InstanceKey = tuple[str, str]
"""An instance's LXD project, and its name in there."""

_AFTER = {"start": "Running", "stop": "Stopped", "freeze": "Frozen", "unfreeze": "Running"}


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What LXD says of itself."""

    name: str
    version: str
    kernel_version: str
    architectures: tuple[str, ...]
    api_extensions: frozenset[str]


@dataclass(frozen=True, slots=True)
class PoolSpace:
    """A storage pool's size in bytes."""

    total: int
    used: int


class Session(Images, Updates, Snapshots, Files, Volumes, Commands, Terminals, Measures, Transport):
    """One LXD project as the driver sees it.  Safe to share between threads."""

    def __init__(self, endpoint: str, project: str, timeouts: Timeouts) -> None:
        super().__init__(endpoint, project, timeouts)
        self._survey = Survey()

    def server(self) -> ServerInfo:
        """Reach LXD and say who answers; raises what ``connect`` raises."""
        return _server_info(self.connect())

    # -- the project, the pool, the host

    def ensure_project(self) -> None:
        """Create our LXD project, with images and profiles of its own, unless it exists."""
        features = {"features.images": "true", "features.profiles": "true"}
        body = {
            "name": self.project,
            "description": "OpenStack Compute servers (nova-lxd)",
            "config": {**features, "features.storage.volumes": "true"},
        }
        with contextlib.suppress(exception.AlreadyExists):
            self.request("POST", "projects", json=body)

    def project_config(self) -> Config:
        """Read our LXD project's own settings; NotFound before it is made."""
        return dict(self.get("projects", self.project)["config"])

    def pool_driver(self, pool: str) -> str:
        """Name the pool's storage driver, such as ``btrfs``; NotFound without such a pool."""
        return str(self.get("storage-pools", pool)["driver"])

    def pool_names(self) -> list[str]:
        """List the storage pools by name."""
        return _names(self.get("storage-pools"))

    def pool_space(self, pool: str) -> PoolSpace:
        """Measure the pool."""
        space = self.get("storage-pools", pool, "resources")["space"]
        return PoolSpace(total=int(space["total"]), used=int(space["used"]))

    def resources(self) -> dict[str, Any]:
        """Describe the host's hardware: ``/1.0/resources`` as LXD gives it."""
        return dict(self.get("resources"))

    def default_id_range(self, pool: str) -> IdRange:
        """Learn which host ids containers may use.

        LXD tells it nowhere, but it gives the whole range to a container that is not isolated; so
        such a one is made, without a root file system, read and deleted (30 ms).
        """
        name = "nova-lxd-idmap-probe"
        root = {"type": "disk", "path": "/", "pool": pool}
        with contextlib.suppress(exception.NotFound):
            self.delete_instance(name)
        body = {"name": name, "source": {"type": "none"}, "profiles": []}
        self.operate("POST", "instances", json={**body, "devices": {"root": root}})
        try:
            config = self.get("instances", name)["config"]
        finally:
            self.delete_instance(name)
        return _whole_range(json.loads(config["volatile.idmap.next"]))

    def instance_names(self) -> set[InstanceKey]:
        """Name every instance of this LXD, whoever's it is; far quicker than reading them."""
        return {_key(url) for url in self.get("instances", params={"all-projects": "true"}) or ()}

    def taken_id_ranges(self) -> dict[InstanceKey, IdRange]:
        """Read the isolated id ranges of every instance of this LXD, whoever's it is."""
        answer = self.get("instances", params={"recursion": "1", "all-projects": "true"})
        return {
            (instance["project"], instance["name"]): taken
            for instance in answer
            if (taken := _isolated_range(instance["config"]))
        }

    # -- profiles

    def create_profile(self, name: str, config: Config, devices: Devices) -> None:
        """Create a profile; AlreadyExists if there is one of that name."""
        body = {"name": name, "config": config, "devices": devices}
        self.request("POST", "profiles", json=body)

    def delete_profile(self, name: str) -> None:
        """Delete a profile.

        :raises NotFound: there is none
        :raises InUse: instances have it
        """
        self.request("DELETE", "profiles", name)

    def unused_profiles(self) -> list[str]:
        """Name the profiles of our project that no instance has."""
        found = self.get("profiles", params={"recursion": "1"})
        return [profile["name"] for profile in found if not profile["used_by"]]

    # -- instances

    def states(self) -> list[InstanceState]:
        """Read every instance of our project in one request."""
        survey = self._survey = Survey()
        states = [_state(item) for item in self.get("instances", params={"recursion": "1"})]
        survey.fill(states)
        return states

    def recent(self, name: str) -> InstanceState | None:
        """Return what the last ``states`` told of an instance; None if that may be wrong by now."""
        return self._survey.find(name)

    def forget(self, name: str) -> None:
        """Note that somebody did something to an instance: ``recent`` tells no more of it."""
        self._survey.forget(name)

    def state(self, name: str) -> InstanceState:
        """Read one instance; NotFound without it."""
        return _state(self.get("instances", name))

    def create_instance(self, spec: InstanceSpec) -> None:
        """Create a stopped instance from an image of the store.

        The first server of an image waits while LXD unpacks it, so the image's deadline holds.
        """
        body = {
            "name": spec.name,
            "type": "container",
            "source": {"type": "image", "fingerprint": spec.image_fingerprint},
            "profiles": [spec.profile],
            "config": spec.config,
            "devices": spec.devices,
        }
        self.operate("POST", "instances", json=body, timeout=self.timeouts.image)

    def delete_instance(self, name: str) -> None:
        """Delete a stopped instance with its root disk.

        :raises NotFound: there is none
        :raises Busy: it runs, or something else goes on with it
        """
        self.operate("DELETE", "instances", name)

    def change_state(
        self, name: str, action: str, *, force: bool = False, timeout: float | None = None
    ) -> None:
        """Start, stop, freeze or unfreeze; being there already is success.

        :param action: ``start``, ``stop``, ``freeze`` or ``unfreeze``
        :param timeout: seconds LXD gives a guest to stop by itself
        :raises LXDError: LXD's words; the guest did not stop in time is one of them
        """
        body = {"action": action, "force": force, "timeout": int(timeout or -1)}
        wait = self.timeouts.operation + (timeout or 0)

        def change() -> None:
            self.operate("PUT", "instances", name, "state", json=body, timeout=wait)

        try:
            self.retry_busy(change)
        except exception.NotFound:
            raise
        except exception.LXDError as error:
            if not self._is(name, _AFTER[action], error):
                raise
        finally:
            self.forget(name)

    def _is(self, name: str, status: str, refusal: exception.LXDError) -> bool:
        """Whether an instance certainly has a status that LXD refused to bring about.

        "It has it already" is no failure, so then what hinders a look at it is.
        """
        try:
            return self.state(name).status == status
        except exception.LXDDriverError:
            if "already" in str(refusal):
                raise
            return False

    def console_log(self, name: str) -> bytes:
        """Read what the guest wrote to its console, the last 128 KiB at most."""
        try:
            answer = self.request("GET", "instances", name, "console", is_api=False)
        except exception.NotFound:
            self.state(name)
            return b""
        except exception.LXDError as error:
            # LXD answers 500 while its log file does not exist yet (5.0.2).
            if "no such file" in str(error):
                return b""
            raise
        return bytes(answer.content)


def _names(urls: Iterable[str] | None) -> list[str]:
    """Read the names in LXD's list of URLs; an empty list is null in some of its dialects."""
    return [parse.urlsplit(url).path.rsplit("/", 1)[-1] for url in urls or ()]


def _key(url: str) -> InstanceKey:
    parts = parse.urlsplit(url)
    project = parse.parse_qs(parts.query).get("project", ["default"])[0]
    return project, parts.path.rsplit("/", 1)[-1]


def _server_info(host: Mapping[str, Any]) -> ServerInfo:
    environment = host["environment"]
    return ServerInfo(
        name=environment["server_name"],
        version=environment["server_version"],
        kernel_version=environment["kernel_version"],
        architectures=tuple(environment["architectures"]),
        api_extensions=frozenset(host["api_extensions"]),
    )


def _state(item: Mapping[str, Any]) -> InstanceState:
    config = item["config"]
    taken = _isolated_range(config)
    return InstanceState(
        name=item["name"],
        uuid=config.get("user.nova.uuid", ""),
        status=item["status"],
        id_base=taken.base if taken else None,
        role=config.get(ROLE_KEY, ""),
        profiles=tuple(item["profiles"] or ()),
        reverting=REVERTING_KEY in config,
        pool=item["expanded_devices"].get("root", {}).get("pool", ""),
        nics={
            name: _nic(device)
            for name, device in item["devices"].items()
            if device["type"] == "nic" and name.startswith("tap")
        },
    )


def _nic(device: Mapping[str, str]) -> Nic:
    return Nic(
        name=device.get("name", ""),
        mac=device.get("hwaddr", ""),
        hybrid=device.get("nictype") == "bridged",
    )


def _isolated_range(config: Mapping[str, str]) -> IdRange | None:
    """Read an instance's own id range; None for one that shares the host's."""
    base = int(config.get("volatile.idmap.base") or 0)
    if not base:
        # LXD says 0 while an instance's profile lacks "isolated"; the range is still its own.
        base, size = (int(config.get(f"security.idmap.{key}") or 0) for key in ("base", "size"))
        return IdRange(base, size or 65536) if base else None
    entries = json.loads(config.get("volatile.idmap.next") or "[]")
    sizes = [entry["Maprange"] for entry in entries] or [65536]
    return IdRange(base, max(sizes))


def _whole_range(entries: Iterable[Mapping[str, Any]]) -> IdRange:
    """Intersect the uid and the gid range."""
    entries = list(entries)
    base = max(int(entry["Hostid"]) for entry in entries)
    end = min(int(entry["Hostid"]) + int(entry["Maprange"]) for entry in entries)
    return IdRange(base, end - base)
