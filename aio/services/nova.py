"""Nova's workers: conductor, scheduler, the proxy of the serial consoles, and compute."""

from __future__ import annotations

import socket
from collections.abc import Callable

from aio.api import Api, ApiError
from aio.heartbeat import is_fresh
from aio.process import Process
from aio.run import run
from aio.services.base import Service
from aio.settings import REPOSITORY, Settings


def _reports(settings: Settings, process: Process) -> bool:
    try:
        services = Api(settings).get("nova", f"/os-services?binary={process.name}")["services"]
    except ApiError:
        return False
    up = [item for item in services if item["state"] == "up" and item["host"] == settings.host]
    return any(is_fresh(item["updated_at"], process.pid) for item in up)


def _listens(settings: Settings, process: Process) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", settings.ports.serial)) == 0


def _conf(folder: str, *names: str) -> list[str]:
    return [f"--config-file={folder}/{name}" for name in names]


def _command(name: str) -> Callable[[Settings], list[str]]:
    return lambda settings: [settings.program(name), *_conf(f"{settings.etc}/nova", "nova.conf")]


def _worker(name: str) -> Service:
    return Service(name, "nova", _command(name), _reports, configs=("nova/nova.conf",))


def _compute_command(settings: Settings) -> list[str]:
    files = _conf(f"{settings.etc}/compute", "nova.conf", "nova-compute.conf")
    python = [] if settings.choices.user == "root" else [str(settings.code / "bin" / "python")]
    return [*python, settings.program("nova-compute"), *files]


def _compute_env(settings: Settings) -> dict[str, str]:
    if settings.choices.user == "root":
        return {}
    return {"HOME": str(settings.data / "nova")}


def discover_hosts(settings: Settings) -> None:
    """Map new compute services to their cell now; the scheduler would do it within a minute."""
    conf = _conf(f"{settings.etc}/nova", "nova.conf")
    run(settings.program("nova-manage"), *conf, "cell_v2", "discover_hosts")


CONDUCTOR = _worker("nova-conductor")
SCHEDULER = _worker("nova-scheduler")
SERIAL_PROXY = Service(
    "nova-serialproxy",
    "nova",
    _command("nova-serialproxy"),
    _listens,
    configs=("nova/nova.conf",),
    ports=("serial",),
)
COMPUTE = Service(
    "nova-compute",
    "nova",
    _compute_command,
    _reports,
    configs=("compute/nova.conf", "compute/nova-compute.conf"),
    sources=(REPOSITORY / "nova_lxd",),
    env=_compute_env,
    folders=("nova", "nova/instances"),
    user=lambda settings: settings.choices.user,
    groups=("lxd",),
)
