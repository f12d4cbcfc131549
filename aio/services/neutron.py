"""Neutron's servers beside the API, and its agents."""

from __future__ import annotations

from aio.api import Api, ApiError
from aio.heartbeat import is_fresh
from aio.process import Process
from aio.services.base import Service, runs
from aio.settings import Settings

_SERVER = ("neutron.conf", "ml2_conf.ini")


def _reports(settings: Settings, process: Process) -> bool:
    path = f"/agents?binary={process.name}&host={settings.host}"
    try:
        agents = Api(settings).get("neutron", path)["agents"]
    except ApiError:
        return False
    return any(
        item["alive"] and is_fresh(item["heartbeat_timestamp"], process.pid) for item in agents
    )


def _service(name: str, files: tuple[str, ...], *, agent: bool) -> Service:
    def command(settings: Settings) -> list[str]:
        folder = settings.etc / "neutron"
        return [settings.program(name), *(f"--config-file={folder / file}" for file in files)]

    return Service(
        name,
        "neutron",
        command,
        _reports if agent else runs,
        configs=tuple(f"neutron/{file}" for file in files),
        folders=("neutron",),
        ports=("openflow",) if "openvswitch" in name else (),
        # They wait for threads that do not end; nothing of value is lost by not waiting with them.
        grace=4 if agent else 2,
    )


def _agent(kind: str, file: str) -> Service:
    return _service(f"neutron-{kind}-agent", ("neutron.conf", file), agent=True)


RPC_SERVER = _service("neutron-rpc-server", _SERVER, agent=False)
PERIODIC = _service("neutron-periodic-workers", _SERVER, agent=False)
OPENVSWITCH = _agent("openvswitch", "openvswitch_agent.ini")
DHCP = _agent("dhcp", "dhcp_agent.ini")
L3 = _agent("l3", "l3_agent.ini")
METADATA = _agent("metadata", "metadata_agent.ini")
