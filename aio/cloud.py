"""The cloud as a whole: its services, its LXD and its Open vSwitch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from aio import services
from aio.lxd import LxdDaemon
from aio.ovs import OvsDaemon
from aio.process import Process, memory_by_service
from aio.services.base import Service, Unit
from aio.settings import Settings

BRIDGES = ("br-int", "br-ex", "br-vlan")


@dataclass(frozen=True)
class Row:
    """One line of ``status``: ``memory`` in bytes."""

    name: str
    pid: int | None
    memory: int
    healthy: bool


class Cloud:
    """One cloud, running or not."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lxd = LxdDaemon(settings.lxd)
        self.ovs = OvsDaemon(settings.ovs, manager_port=settings.ports.ovsdb)
        self._units = {service.name: Unit(service, settings) for service in services.ALL}

    @property
    def owners(self) -> set[str]:
        """The marks of all processes of this cloud."""
        return {str(self.settings.state), str(self.lxd.folder), str(self.ovs.folder)}

    def unit(self, service: Service) -> Unit:
        """Return the unit of a service."""
        return self._units[service.name]

    def units(self, group: tuple[Service, ...] = services.ALL) -> list[Unit]:
        """Return the units of some services, by default of all."""
        return [self._units[service.name] for service in group]

    def processes(self) -> list[Process]:
        """Return all processes of the cloud, whether they run or not."""
        own = [unit.process for unit in self.units()]
        return [*self.ovs.processes, self.lxd.lxcfs.process, self.lxd.process, *own]

    def leaders(self) -> dict[int, str]:
        """Return the names of the processes that run, by their ids."""
        return {process.pid: process.name for process in self.processes() if process.pid}

    def any_running(self) -> bool:
        """Tell whether anything of this cloud runs."""
        return any(process.pid for process in self.processes())

    def ports_to_open(self) -> dict[str, int]:
        """Return the ports, by name, of what does not run yet."""
        idle = [unit.service for unit in self.units() if not unit.pid]
        names = [name for service in idle for name in service.ports]
        return {name: getattr(self.settings.ports, name) for name in names}

    def status(self) -> list[Row]:
        """Ask every service how it is."""
        memory = memory_by_service(self.owners, self.leaders())
        database, switch = self.ovs.processes
        ovs, lxd = self.ovs.healthy(), self.lxd.healthy()
        rows = [(process.name, process.pid, ovs) for process in (database, switch)]
        if self.lxd.lxcfs.hook.exists():
            rows += [("lxcfs", self.lxd.lxcfs.process.pid, self.lxd.lxcfs.healthy())]
        rows += [("lxd", self.lxd.process.pid, lxd)]
        rows += [(unit.name, unit.pid, unit.healthy()) for unit in self.units()]
        return [Row(name, pid, memory.get(name, 0), healthy) for name, pid, healthy in rows]

    def exports(self) -> dict[str, str]:
        """Return the environment in which openstack, lxc and ovs-vsctl reach this cloud."""
        settings = self.settings
        exempt = [
            *filter(None, os.environ.get("no_proxy", "").split(",")),
            "127.0.0.1",
            "localhost",
        ]
        return {
            "OS_AUTH_TYPE": "password",
            "OS_AUTH_URL": settings.url("keystone") + "/v3",
            "OS_USERNAME": "admin",
            "OS_PASSWORD": settings.passwords["admin"],
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_REGION_NAME": settings.region,
            "LXD_DIR": str(settings.lxd),
            "LXD_CONF": str(settings.lxc_config),
            **self.ovs.env,
            "no_proxy": ",".join(dict.fromkeys(exempt)),
        }
