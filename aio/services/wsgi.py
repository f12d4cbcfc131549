"""The six APIs: WSGI applications under uwsgi."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aio.api import status
from aio.process import Process
from aio.services.base import Service
from aio.settings import Settings


def _answers(name: str) -> Callable[[Settings, Process], bool]:
    def healthy(settings: Settings, process: Process) -> bool:
        return 0 < status(settings.url(name) + "/") < 500

    return healthy


def _api(
    name: str, package: str, configs: tuple[str, ...], env: Callable[[Settings], Mapping[str, str]]
) -> Service:
    def command(settings: Settings) -> list[str]:
        return [settings.program("pyuwsgi"), "--ini", str(settings.etc / "uwsgi" / f"{name}.ini")]

    title = {"metadata": "nova-metadata"}.get(name, f"{name}-api")
    files = (*configs, f"uwsgi/{name}.ini")
    return Service(title, package, command, _answers(name), configs=files, env=env, ports=(name,))


def _nova_env(settings: Settings) -> dict[str, str]:
    # The paste file comes first, or the application does not start.
    paste = settings.venv / "etc" / "nova" / "api-paste.ini"
    folder = str(settings.etc / "nova")
    return {"OS_NOVA_CONFIG_DIR": folder, "OS_NOVA_CONFIG_FILES": f"{paste};nova.conf"}


def _dir_env(project: str, *files: str) -> Callable[[Settings], Mapping[str, str]]:
    def env(settings: Settings) -> dict[str, str]:
        prefix = f"OS_{project.upper()}_CONFIG"
        found = {f"{prefix}_DIR": str(settings.etc / project)}
        return {**found, f"{prefix}_FILES": ";".join(files)} if files else found

    return env


_NEUTRON = ("neutron.conf", "ml2_conf.ini")

KEYSTONE = _api(
    "keystone", "keystone", ("keystone/keystone.conf",), _dir_env("keystone", "keystone.conf")
)
GLANCE = _api("glance", "glance", ("glance/glance-api.conf",), _dir_env("glance"))
PLACEMENT = _api(
    "placement", "openstack-placement", ("placement/placement.conf",), _dir_env("placement")
)
NOVA = _api("nova", "nova", ("nova/nova.conf",), _nova_env)
METADATA = _api("metadata", "nova", ("nova/nova.conf",), _nova_env)
NEUTRON = _api(
    "neutron",
    "neutron",
    tuple(f"neutron/{name}" for name in _NEUTRON),
    _dir_env("neutron", *_NEUTRON),
)
