"""Stops the cloud and removes what it made, also after a crash."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from aio import account, host, kernel, services
from aio.cloud import Cloud
from aio.process import kill, owned_by, parent
from aio.report import Reporter
from aio.stages import Stage

_GONE_AFTER_DOWN = ("data", "etc", "run", "bin", "code")


def _services(cloud: Cloud, reporter: Reporter) -> None:
    """Stop the backends after everything that uses them."""
    for group in (services.HOST + services.CONTROL, services.BACKENDS[::-1]):
        units = cloud.units(group)
        with ThreadPoolExecutor(len(units)) as pool:
            list(pool.map(lambda unit: unit.stop(), units))


def _leftovers(cloud: Cloud, reporter: Reporter) -> None:
    """End what services started and left: dnsmasq, haproxy, privsep helpers."""
    spared = set(_ancestors(os.getpid()))
    kill([pid for pid in owned_by(str(cloud.settings.state)) if pid not in spared], 3)


def _ancestors(pid: int) -> list[int]:
    return [] if pid < 1 else [pid, *_ancestors(parent(pid))]


def _guests(cloud: Cloud, reporter: Reporter) -> None:
    for problem in cloud.lxd.purge():
        reporter.line(f"        LXD: {problem}")


def _network(cloud: Cloud, reporter: Reporter) -> None:
    host.remove_namespaces()
    ports = cloud.ovs.ports()
    cloud.ovs.purge()
    host.remove_links(ports)
    host.remove_firewall(cloud.settings)


def _files(cloud: Cloud, reporter: Reporter) -> None:
    host.restore(cloud.settings)
    account.remove(cloud.settings)
    for name in _GONE_AFTER_DOWN:
        kernel.remove_tree(cloud.settings.state / name)
    cloud.settings.choices_file.unlink(missing_ok=True)


def _everything(cloud: Cloud, reporter: Reporter) -> None:
    kernel.remove_tree(cloud.settings.state)


DOWN = (
    Stage("Stop the services", _services),
    Stage("Remove the servers and LXD", _guests),
    Stage("Stop what services left behind", _leftovers),
    Stage("Remove networks and Open vSwitch", _network),
    Stage("Remove the data", _files),
)
PURGE = (*DOWN, Stage("Remove the folder", _everything))
