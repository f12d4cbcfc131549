"""OpenStack's APIs with the standard library: enough to register, create and look."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

from aio.errors import AioError
from aio.settings import Settings

_PREFIX = {
    "keystone": "/v3",
    "glance": "/v2",
    "nova": "/v2.1",
    "neutron": "/v2.0",
    "placement": "",
}
_VERSION = {"OpenStack-API-Version": "compute 2.93"}
# The environment's proxies are not for loopback.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ApiError(AioError):
    """An API refused a request; ``status`` is the HTTP status, 0 when nothing answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def http(
    method: str,
    url: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    timeout: float = 60,
) -> tuple[Any, dict[str, str]]:
    """Send a request and return the decoded answer and its headers.

    ``body`` is JSON, or bytes or a binary file sent as they are.
    """
    raw = body is not None and (isinstance(body, bytes) or hasattr(body, "read"))
    data = body if raw else None if body is None else json.dumps(body).encode()
    kind = "application/octet-stream" if raw else "application/json"
    request = urllib.request.Request(url, data=data, method=method)
    if hasattr(body, "fileno"):
        request.add_header("Content-Length", str(os.fstat(body.fileno()).st_size))
    for name, value in {"Content-Type": kind, **(headers or {})}.items():
        request.add_header(name, value)
    try:
        with _OPENER.open(request, timeout=timeout) as answer:
            text = answer.read()
            return json.loads(text) if text else {}, dict(answer.headers)
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:500]
        raise ApiError(error.code, f"{method} {url}: {error.code} {said}") from None
    except (OSError, ValueError) as error:
        raise ApiError(0, f"{method} {url}: {error}") from None


def status(url: str, timeout: float = 10) -> int:
    """Return the HTTP status with which ``url`` answers, 0 when nothing does."""
    try:
        with _OPENER.open(url, timeout=timeout) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


class Api:
    """The APIs as one user sees them; by default the administrator."""

    def __init__(self, settings: Settings, user: str = "admin", project: str = "admin") -> None:
        self._settings = settings
        self._user = user
        self._project = project
        self._token = ""

    def _login(self) -> str:
        domain = {"id": "default"}
        password = self._settings.passwords[self._user]
        user = {"name": self._user, "domain": domain, "password": password}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": self._project, "domain": domain}},
            }
        }
        _, headers = http("POST", self._settings.url("keystone") + "/v3/auth/tokens", body)
        return headers["X-Subject-Token"]

    def request(self, method: str, service: str, path: str, body: Any = None) -> Any:
        """Send a request to ``service`` (keystone, glance, nova ...) and return the answer."""
        self._token = self._token or self._login()
        url = self._settings.url(service) + _PREFIX[service] + path
        headers = {"X-Auth-Token": self._token, **(_VERSION if service == "nova" else {})}
        return http(method, url, body, headers)[0]

    def get(self, service: str, path: str) -> Any:
        """Read ``path``."""
        return self.request("GET", service, path)

    def post(self, service: str, path: str, body: Any) -> Any:
        """Create something below ``path``."""
        return self.request("POST", service, path, body)

    def find(self, service: str, path: str, name: str) -> dict[str, Any] | None:
        """Return what is called ``name`` in the collection ``path``, None if there is nothing."""
        key = path.strip("/").split("/")[-1].split("?")[0].replace("-", "_")
        items = self.get(service, path)[key]
        return next((item for item in items if item["name"] == name), None)

    def ensure(self, service: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the thing that ``body``, as {kind: {name: ...}}, describes; make it if need be."""
        ((kind, wanted),) = body.items()
        found = self.find(service, path, wanted["name"])
        return found or self.post(service, path.split("?", maxsplit=1)[0], body)[kind]
