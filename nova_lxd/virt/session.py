"""The only door to LXD: requests, bounded waits, errors and typed answers.

Only the transport half of pylxd is used.  Its models save without ETags, wait without a bound and
force a stop by default (measured on pylxd 2.4.2 with LXD 5.0.2).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib import parse

import pylxd
import requests
import tenacity
from pylxd import exceptions as pylxd_exceptions
from requests_toolbelt import MultipartEncoder

from nova_lxd import exception
from nova_lxd.virt.model import CachedImage, Config, Devices, IdRange, InstanceSpec, InstanceState

REQUIRED_EXTENSIONS = (
    "projects",
    "instances",
    "instance_all_projects",
    "id_map_base",
    "resources_v2",
    "console",
)
"""What the driver asks of LXD; all of them are in LXD 4.0 and later."""

_WAIT_STEP = 30
"""Seconds of one long poll of an operation; the deadline is ours, not LXD's."""

_AFTER = {"start": "Running", "stop": "Stopped", "freeze": "Frozen", "unfreeze": "Running"}

_TEXTS = (
    ("busy running", exception.Busy),
    ("already exists", exception.AlreadyExists),
    ("already in use", exception.AlreadyExists),
    ("not found", exception.NotFound),
)
"""LXD reports failures of operations, and some of requests, by text alone."""

_STATUS = {
    404: exception.NotFound,
    409: exception.AlreadyExists,
    412: exception.PreconditionFailed,
    503: exception.LXDUnreachable,
}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds in seconds: of one request, of an operation, of moving a whole image."""

    request: float
    operation: float
    image: float


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


class Session:
    """One LXD project as the driver sees it.  Safe to share between threads."""

    def __init__(self, endpoint: str, project: str, timeouts: Timeouts) -> None:
        """Do no I/O; ``connect`` does.

        :param endpoint: path of LXD's unix socket
        """
        self.endpoint = endpoint
        self.project = project
        self.timeouts = timeouts
        self._api: Any = None

    def connect(self) -> ServerInfo:
        """Reach LXD and say who answers.

        :raises LXDUnreachable: nothing answers at the endpoint
        :raises LXDPermissionDenied: the socket is there but closed to this user
        """
        # pylxd quotes the path only while the socket exists, so the URL is made here.
        url = f"http+unix://{parse.quote(self.endpoint, safe='')}"
        with self._translated("GET /1.0"):
            client = pylxd.Client(url, timeout=self.timeouts.request)
        self._api = client.api
        return _server_info(client.host_info)

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
            self._request("POST", "projects", json=body)

    def pool_driver(self, pool: str) -> str:
        """Name the pool's storage driver, such as ``btrfs``; NotFound without such a pool."""
        return str(self._get("storage-pools", pool)["driver"])

    def pool_space(self, pool: str) -> PoolSpace:
        """Measure the pool."""
        space = self._get("storage-pools", pool, "resources")["space"]
        return PoolSpace(total=int(space["total"]), used=int(space["used"]))

    def resources(self) -> dict[str, Any]:
        """Describe the host's hardware: ``/1.0/resources`` as LXD gives it."""
        return self._get("resources")

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
        self._operate("POST", "instances", json={**body, "devices": {"root": root}})
        try:
            config = self._get("instances", name)["config"]
        finally:
            self.delete_instance(name)
        return _whole_range(json.loads(config["volatile.idmap.next"]))

    def taken_id_ranges(self) -> list[IdRange]:
        """List the isolated id ranges of every instance of this LXD, whoever's it is."""
        answer = self._get("instances", params={"recursion": "1", "all-projects": "true"})
        return [taken for instance in answer if (taken := _isolated_range(instance["config"]))]

    # -- profiles

    def create_profile(self, name: str, config: Config, devices: Devices) -> None:
        """Create a profile; AlreadyExists if there is one of that name."""
        body = {"name": name, "config": config, "devices": devices}
        self._request("POST", "profiles", json=body)

    def delete_profile(self, name: str) -> None:
        """Delete a profile; NotFound without one."""
        self._request("DELETE", "profiles", name)

    def profile_names(self) -> list[str]:
        """List the profiles of our project by name."""
        return [parse.urlsplit(url).path.rsplit("/", 1)[-1] for url in self._get("profiles")]

    # -- instances

    def states(self) -> list[InstanceState]:
        """Read every instance of our project in one request."""
        return [_state(item) for item in self._get("instances", params={"recursion": "1"})]

    def state(self, name: str) -> InstanceState:
        """Read one instance; NotFound without it."""
        return _state(self._get("instances", name))

    def create_instance(self, spec: InstanceSpec) -> None:
        """Create a stopped instance from an image of the store.

        The first server of an image waits while LXD unpacks it, so the image's deadline holds.
        """
        body = {
            "name": spec.name,
            "type": "container",
            "source": {"type": "image", "fingerprint": spec.image_fingerprint},
            "profiles": [spec.name],
            "config": spec.config,
            "devices": spec.devices,
        }
        self._operate("POST", "instances", json=body, timeout=self.timeouts.image)

    def delete_instance(self, name: str) -> None:
        """Delete a stopped instance with its root disk; NotFound without it."""
        self._retry_busy(lambda: self._operate("DELETE", "instances", name))

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
            self._operate("PUT", "instances", name, "state", json=body, timeout=wait)

        try:
            self._retry_busy(change)
        except exception.NotFound:
            raise
        except exception.LXDError:
            if self.state(name).status != _AFTER[action]:
                raise

    def console_log(self, name: str) -> bytes:
        """Read what the guest wrote to its console, the last 128 KiB at most."""
        try:
            answer = self._request("GET", "instances", name, "console", is_api=False)
        except exception.NotFound:
            self.state(name)
            return b""
        except exception.LXDError as error:
            # LXD answers 500 while its log file does not exist yet (5.0.2).
            if "no such file" in str(error):
                return b""
            raise
        return bytes(answer.content)

    # -- images

    def find_image(self, alias: str) -> CachedImage | None:
        """Look an image up by alias; None without it."""
        try:
            target = self._get("images", "aliases", alias)["target"]
            image = self._get("images", target)
        except exception.NotFound:
            return None
        size = image["properties"].get("nova.unpacked_bytes", "0")
        return CachedImage(fingerprint=target, unpacked_bytes=int(size))

    def upload_image(
        self, fingerprint: str, metadata: bytes, rootfs: BinaryIO, properties: Mapping[str, str]
    ) -> None:
        """Stream a split image into LXD's store; one that is there already is success.

        :param fingerprint: sha256 of ``metadata`` followed by ``rootfs``; LXD checks it
        :param rootfs: seekable, at its start; never read into memory as a whole
        """
        encoder = MultipartEncoder(
            {
                "metadata": ("metadata.tar", metadata, "application/octet-stream"),
                "rootfs": ("rootfs.tar", rootfs, "application/octet-stream"),
            }
        )
        headers = {
            "Content-Type": encoder.content_type,
            "X-LXD-fingerprint": fingerprint,
            "X-LXD-properties": parse.urlencode(properties),
        }
        bounds = {"timeout": self.timeouts.image, "request_timeout": self.timeouts.image}
        with contextlib.suppress(exception.AlreadyExists):
            self._operate("POST", "images", data=encoder, headers=headers, **bounds)

    def add_alias(self, alias: str, fingerprint: str) -> None:
        """Name an image of the store; AlreadyExists if the alias is taken."""
        body = {"name": alias, "target": fingerprint, "description": "Glance image"}
        self._request("POST", "images", "aliases", json=body)

    def delete_image(self, fingerprint: str) -> None:
        """Delete an image with its aliases; NotFound without it."""
        self._operate("DELETE", "images", fingerprint)

    # -- transport

    def _get(self, *path: str, params: dict[str, str] | None = None) -> Any:
        return self._request("GET", *path, params=params).json()["metadata"]

    def _request(
        self, method: str, *path: str, request_timeout: float | None = None, **kwargs: Any
    ) -> requests.Response:
        if self._api is None:
            self.connect()
        node = self._api
        for part in path:
            node = node[parse.quote(part, safe="")]
        params = kwargs.pop("params", None) or {}
        # LXD refuses a request that names a project and asks for all of them.
        if "all-projects" not in params:
            params["project"] = self.project
        kwargs |= {"params": params, "timeout": request_timeout or self.timeouts.request}
        with self._translated(f"{method} /1.0/{'/'.join(path)}"):
            response: requests.Response = getattr(node, method.lower())(**kwargs)
        return response

    def _operate(
        self, method: str, *path: str, timeout: float | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Send a request that LXD carries out in the background, and wait for its end."""
        answer = self._request(method, *path, **kwargs).json()
        if answer["type"] != "async":
            return dict(answer)
        what = f"{method} /1.0/{'/'.join(path)}"
        return self._wait(answer["metadata"]["id"], what, timeout or self.timeouts.operation)

    def _wait(self, operation: str, what: str, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            step = min(left, _WAIT_STEP)
            # LXD counts whole seconds; a fraction would be read as 0, which is no wait at all.
            result = self._get_operation(operation, max(1, round(step)), step)
            if result["status_code"] >= 400:
                raise _failure(what, result["err"])
            if result["status_code"] >= 200:
                return result
        raise exception.DeadlineExceeded(
            f"{what}: LXD had not finished after {timeout:g} s (operation {operation}); "
            "see 'lxc operation list' and LXD's log"
        )

    def _get_operation(self, operation: str, seconds: int, step: float) -> dict[str, Any]:
        path = ("operations", operation, "wait")
        patience = step + self.timeouts.request
        answer = self._request(
            "GET", *path, params={"timeout": str(seconds)}, request_timeout=patience, is_api=False
        ).json()
        if answer["type"] == "error":
            # Incus answers a failed operation so; LXD does when it forgot the operation.
            raise _failure("/".join(path), answer.get("error", ""))
        return dict(answer["metadata"])

    def _retry_busy(self, call: Any) -> None:
        """Call until LXD is done with what else it does to the instance.

        A failed start leaves the instance busy for some seconds (LXD 5.0.2).
        """
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(exception.Busy),
            wait=tenacity.wait_exponential(multiplier=0.1, max=1),
            stop=tenacity.stop_after_delay(self.timeouts.operation),
            reraise=True,
        )(call)

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn what pylxd and requests raise into our errors."""
        try:
            yield
        except pylxd_exceptions.LXDAPIException as error:
            raise _refusal(what, error) from error
        except requests.exceptions.ReadTimeout as error:
            raise exception.DeadlineExceeded(
                f"{what}: no answer from LXD at {self.endpoint} within [lxd]request_timeout "
                f"({self.timeouts.request:g} s); it may have been carried out all the same"
            ) from error
        except (requests.exceptions.RequestException, pylxd_exceptions.ClientConnectionFailed) as e:
            if "Permission denied" in str(e):
                raise exception.LXDPermissionDenied(
                    f"{what}: this user may not use {self.endpoint}"
                ) from e
            raise exception.LXDUnreachable(f"{what}: LXD at {self.endpoint}: {e}") from e


def _failure(what: str, text: str) -> exception.LXDDriverError:
    for part, kind in _TEXTS:
        if part in text.lower():
            return kind(f"{what}: {text}")
    return exception.LXDError(f"{what}: {text}")


def _refusal(what: str, error: pylxd_exceptions.LXDAPIException) -> exception.LXDDriverError:
    kind = _STATUS.get(error.response.status_code)
    return kind(f"{what}: {error}") if kind else _failure(what, str(error))


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
    )


def _isolated_range(config: Mapping[str, str]) -> IdRange | None:
    """Read an instance's own id range; None for one that shares the host's."""
    base = int(config.get("volatile.idmap.base") or config.get("security.idmap.base") or 0)
    if not base:
        return None
    entries = json.loads(config.get("volatile.idmap.next") or "[]")
    sizes = [entry["Maprange"] for entry in entries] or [65536]
    return IdRange(base, max(sizes))


def _whole_range(entries: Iterable[Mapping[str, Any]]) -> IdRange:
    """Intersect the uid and the gid range."""
    entries = list(entries)
    base = max(int(entry["Hostid"]) for entry in entries)
    end = min(int(entry["Hostid"]) + int(entry["Maprange"]) for entry in entries)
    return IdRange(base, end - base)
