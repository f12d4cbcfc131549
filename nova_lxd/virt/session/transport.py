"""Requests to LXD, bounded waits, and foreign errors turned into ours."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib import parse

import pylxd
import requests
import tenacity
from pylxd import exceptions as pylxd_exceptions

from nova_lxd import exception
from nova_lxd.virt.session import unixhttp

_SCHEME = "http+unix://"

_WAIT_STEP = 30
"""Seconds of one long poll of an operation; the deadline is ours, not LXD's."""

_TEXTS = (
    ("busy running", exception.Busy),
    ("instance is running", exception.Busy),
    # So LXD 5.0.2 refuses to delete an instance while it makes an image of a snapshot of it.
    ("cannot remove an instance volume that has snapshots", exception.Busy),
    ("already exists", exception.AlreadyExists),
    ("already in use", exception.AlreadyExists),
    ("profile is currently in use", exception.InUse),
    ("disk quota exceeded", exception.DiskFull),
)
"""LXD reports failures of operations, and some of requests, by text alone.

"Not found" is not among them: what a failed operation misses is a pool or a device, seldom the
instance itself.  An absent instance is told by status 404.
"""

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


class Transport:
    """Speaks to one LXD on behalf of one of its projects.  Safe to share between threads."""

    def __init__(self, endpoint: str, project: str, timeouts: Timeouts) -> None:
        """Do no I/O; ``connect`` does.

        :param endpoint: path of LXD's unix socket
        """
        self.endpoint = endpoint
        self.project = project
        self.timeouts = timeouts
        self._api: Any = None

    def connect(self) -> dict[str, Any]:
        """Reach LXD and return what ``GET /1.0`` says.

        :raises LXDUnreachable: nothing answers at the endpoint
        :raises LXDPermissionDenied: the socket is there but closed to this user
        """
        session = unixhttp.open_session(_SCHEME, self.endpoint)
        with self._translated("GET /1.0"):
            client = pylxd.Client(
                f"{_SCHEME}localhost", session=session, timeout=self.timeouts.request
            )
        self._api = client.api
        return dict(client.host_info)

    def get(self, *path: str, params: dict[str, str] | None = None) -> Any:
        """Return the ``metadata`` of a GET below ``/1.0``."""
        return self._answer("GET", *path, params=params)["metadata"]

    def get_tagged(self, *path: str) -> tuple[Any, str]:
        """Return the ``metadata`` of a GET, and the ETag to send when it is changed."""
        response = self.request("GET", *path)
        return self._read(response, f"GET /1.0/{'/'.join(path)}")["metadata"], _etag(response)

    def request(
        self, method: str, *path: str, request_timeout: float | None = None, **kwargs: Any
    ) -> requests.Response:
        """Send one request below ``/1.0``; ``path`` is quoted part by part.

        :param request_timeout: seconds, when ``Timeouts.request`` is not the right bound
        :raises LXDError, LXDUnreachable, DeadlineExceeded: see :mod:`nova_lxd.exception`
        """
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

    def operate(
        self, method: str, *path: str, timeout: float | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Send a request that LXD carries out in the background, and wait for its end."""
        answer = self._answer(method, *path, **kwargs)
        if answer["type"] != "async":
            return answer
        what = f"{method} /1.0/{'/'.join(path)}"
        limit = timeout or self.timeouts.operation
        return self.await_operation(answer["metadata"]["id"], what, limit)

    def start_operation(self, method: str, *path: str, **kwargs: Any) -> dict[str, Any]:
        """Send a request that LXD carries out in the background, and return the operation."""
        return dict(self._answer(method, *path, **kwargs)["metadata"])

    def await_operation(self, operation: str, what: str, timeout: float) -> dict[str, Any]:
        """Wait for the end of an operation and return what LXD says of it.

        :param what: for the error's text
        :raises LXDError: it failed
        :raises DeadlineExceeded: it did not end in ``timeout`` seconds
        """
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            step = min(left, _WAIT_STEP)
            # LXD counts whole seconds; a fraction would be read as 0, which is no wait at all.
            result = self._poll(operation, max(1, round(step)), step)
            if result["status_code"] >= 400:
                raise _failure(what, result["err"])
            if result["status_code"] >= 200:
                return result
        raise exception.DeadlineExceeded(
            f"{what}: LXD had not finished after {timeout:g} s (operation {operation}); "
            "see 'lxc operation list' and LXD's log"
        )

    def _poll(self, operation: str, seconds: int, step: float) -> dict[str, Any]:
        patience = step + self.timeouts.request
        params = {"timeout": str(seconds)}
        try:
            answer = self._answer(
                "GET", "operations", operation, "wait", request_timeout=patience, params=params
            )
        except exception.NotFound as error:
            # Not to be taken for the absence of what the operation works on.
            raise exception.LXDError(
                f"LXD no longer knows operation {operation}, as after a restart: {error}"
            ) from error
        return dict(answer["metadata"])

    def _answer(self, method: str, *path: str, **kwargs: Any) -> dict[str, Any]:
        """Send a request and read the JSON object that LXD answers with."""
        response = self.request(method, *path, **kwargs)
        return self._read(response, f"{method} /1.0/{'/'.join(path)}")

    def _read(self, response: requests.Response, what: str) -> dict[str, Any]:
        with self._translated(what):
            answer = response.json()
        if not isinstance(answer, dict) or "metadata" not in answer:
            raise exception.LXDError(f"{what}: LXD answered {str(answer)[:200]}")
        return answer

    def retry_busy(self, call: Callable[[], Any]) -> None:
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
        except TypeError as error:
            # pylxd looks into the answer and stumbles over JSON that is no object.
            raise exception.LXDError(f"{what}: LXD's answer is not understood") from error
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


def _etag(response: requests.Response) -> str:
    return str(response.headers.get("ETag", ""))


def _failure(what: str, text: str) -> exception.LXDDriverError:
    for part, kind in _TEXTS:
        if part in text.lower():
            return kind(f"{what}: {text}")
    return exception.LXDError(f"{what}: {text}")


def _refusal(what: str, error: pylxd_exceptions.LXDAPIException) -> exception.LXDDriverError:
    kind = _STATUS.get(error.response.status_code)
    return kind(f"{what}: {error}") if kind else _failure(what, str(error))
