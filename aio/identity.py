"""Registers users, services and endpoints in Keystone."""

from __future__ import annotations

from aio.api import Api
from aio.settings import Settings

#: service -> (type, path of its endpoint)
_SERVICES = {
    "glance": ("image", ""),
    "placement": ("placement", ""),
    "nova": ("compute", "/v2.1"),
    "neutron": ("network", ""),
}


def register(settings: Settings) -> None:
    """Make the service users, the catalogue and the user ``demo``; what exists stays."""
    api = Api(settings)
    project = _project(api, "service")
    roles = {name: _role(api, name) for name in ("admin", "service", "member")}
    for name, (kind, path) in _SERVICES.items():
        user = _user(api, name, settings.passwords["service"])
        for role in ("admin", "service"):
            api.request("PUT", "keystone", f"/projects/{project}/users/{user}/roles/{roles[role]}")
        _catalogue(api, settings, name, kind, settings.url(name) + path)
    demo = _user(api, "demo", settings.passwords["demo"])
    home = _project(api, "demo")
    api.request("PUT", "keystone", f"/projects/{home}/users/{demo}/roles/{roles['member']}")


def _project(api: Api, name: str) -> str:
    return str(api.ensure("keystone", "/projects", {"project": {"name": name}})["id"])


def _role(api: Api, name: str) -> str:
    return str(api.ensure("keystone", "/roles", {"role": {"name": name}})["id"])


def _user(api: Api, name: str, password: str) -> str:
    user = {"name": name, "password": password}
    return str(api.ensure("keystone", "/users", {"user": user})["id"])


def _catalogue(api: Api, settings: Settings, name: str, kind: str, url: str) -> None:
    service = api.ensure("keystone", "/services", {"service": {"name": name, "type": kind}})["id"]
    known = api.get("keystone", f"/endpoints?service_id={service}")["endpoints"]
    for interface in {"public", "internal", "admin"} - {item["interface"] for item in known}:
        endpoint = {"service_id": service, "interface": interface, "url": url}
        endpoint["region_id"] = settings.region
        api.post("keystone", "/endpoints", {"endpoint": endpoint})
