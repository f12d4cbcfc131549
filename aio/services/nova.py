"""Nova's workers: conductor, scheduler and compute."""

from __future__ import annotations

from aio.api import Api, ApiError
from aio.heartbeat import is_fresh
from aio.process import Process
from aio.services.base import Service
from aio.settings import REPOSITORY, Settings


def _reports(settings: Settings, process: Process) -> bool:
    try:
        services = Api(settings).get("nova", f"/os-services?binary={process.name}")["services"]
    except ApiError:
        return False
    up = [item for item in services if item["state"] == "up" and item["host"] == settings.host]
    return any(is_fresh(item["updated_at"], process.pid) for item in up)


def _conf(folder: str, *names: str) -> list[str]:
    return [f"--config-file={folder}/{name}" for name in names]


def _worker(name: str) -> Service:
    def command(settings: Settings) -> list[str]:
        return [settings.program(name), *_conf(f"{settings.etc}/nova", "nova.conf")]

    return Service(name, "nova", command, _reports, configs=("nova/nova.conf",))


def _compute_command(settings: Settings) -> list[str]:
    files = _conf(f"{settings.etc}/compute", "nova.conf", "nova-compute.conf")
    return [settings.program("nova-compute"), *files]


CONDUCTOR = _worker("nova-conductor")
SCHEDULER = _worker("nova-scheduler")
COMPUTE = Service(
    "nova-compute",
    "nova",
    _compute_command,
    _reports,
    configs=("compute/nova.conf", "compute/nova-compute.conf"),
    sources=(REPOSITORY / "nova_lxd",),
    folders=("nova/instances",),
)
