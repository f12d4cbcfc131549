"""Brings the cloud up in named stages, each of which may be run again at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aio import account, config, databases, host, kernel, machine, resources, services
from aio.api import Api
from aio.cloud import BRIDGES, Cloud
from aio.errors import AioError
from aio.process import wait_until
from aio.report import Reporter
from aio.services import mariadb, nova, rabbitmq, wsgi
from aio.services.base import Service, Unit

Action = Callable[[Cloud, Reporter], None]


@dataclass(frozen=True)
class Stage:
    """A step of ``up``. ``action`` does nothing again that is done already."""

    title: str
    action: Action


def run_stages(stages: Sequence[Stage], cloud: Cloud, reporter: Reporter) -> None:
    """Run the stages in order; the first failure ends it, and says which stage failed."""
    for number, stage in enumerate(stages, 1):
        try:
            with reporter.stage(number, len(stages), stage.title):
                stage.action(cloud, reporter)
        except AioError as error:
            hint = error.hint or "mend what the log says"
            then = f"{hint}; then 'python3 aio up' goes on from here"
            raise AioError(f"{stage.title}: {error.message}", log=error.log, hint=then) from error


def _check(cloud: Cloud, reporter: Reporter) -> None:
    machine.require_root()
    if not cloud.any_running():
        kernel.remove_tree(cloud.settings.log)
        machine.require_room(cloud.settings)
    machine.require_ports(cloud.ports_to_open())


def _packages(cloud: Cloud, reporter: Reporter) -> None:
    wanted = account.PACKAGES if cloud.settings.choices.user != "root" else ()
    machine.install_packages(reporter, wanted)


def _environment(cloud: Cloud, reporter: Reporter) -> None:
    machine.ensure_environment(cloud.settings, reporter)


def _configuration(cloud: Cloud, reporter: Reporter) -> None:
    for folder in (cloud.settings.state, cloud.settings.data):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
    host.record(cloud.settings)
    host.raise_limits()
    host.choose_iptables(cloud.settings)
    account.add(cloud.settings)
    config.write(cloud.settings)


def _backends(cloud: Cloud, reporter: Reporter) -> None:
    databases.restore(cloud.settings)
    mariadb.initialise(cloud.settings)
    cloud.unit(rabbitmq.EPMD).start()
    cloud.unit(rabbitmq.EPMD).wait()
    _start(cloud, services.BACKENDS)
    cloud.lxd.start()
    cloud.lxd.create_pool(cloud.settings.lxd_pool, size=cloud.settings.pool_size)
    cloud.ovs.start()
    for bridge in BRIDGES:
        cloud.ovs.add_bridge(bridge)
    resources.address_bridge(cloud.settings)
    _wait(cloud, services.BACKENDS, reporter)


def _databases(cloud: Cloud, reporter: Reporter) -> None:
    if not databases.are_ready(cloud.settings):
        server, keystone = cloud.unit(mariadb.SERVICE), cloud.unit(wsgi.KEYSTONE)
        databases.fill(cloud.settings, server, keystone, reporter)


def _control(cloud: Cloud, reporter: Reporter) -> None:
    _start(cloud, services.CONTROL)
    _wait(cloud, services.CONTROL, reporter)


def _agents(cloud: Cloud, reporter: Reporter) -> None:
    _start(cloud, services.HOST)
    resources.create(cloud.settings)
    _wait(cloud, services.HOST, reporter)


def _discover(cloud: Cloud, reporter: Reporter) -> None:
    """Map the host to its cell now; the scheduler would do it within a minute."""

    def mapped() -> bool:
        found = Api(cloud.settings).get("nova", "/os-hypervisors")["hypervisors"]
        return any(item["state"] == "up" for item in found)

    if not mapped():
        nova.discover_hosts(cloud.settings)
        compute = cloud.unit(nova.COMPUTE).process
        wait_until(mapped, 120, "the hypervisor to appear in Nova", log=compute.tail)


def _start(cloud: Cloud, group: tuple[Service, ...]) -> None:
    for unit in cloud.units(group):
        unit.start()


def _wait(cloud: Cloud, group: tuple[Service, ...], reporter: Reporter) -> None:
    waiting: list[Unit] = cloud.units(group)
    for number, unit in enumerate(waiting):
        reporter.count(number, len(waiting), unit.name)
        unit.wait()


UP = (
    Stage("Check the machine", _check),
    Stage("Install Debian packages", _packages),
    Stage("Install OpenStack with pip", _environment),
    Stage("Write the configuration", _configuration),
    Stage("MariaDB, RabbitMQ, LXD, Open vSwitch", _backends),
    Stage("Databases, users, endpoints", _databases),
    Stage("APIs, conductor, scheduler", _control),
    Stage("Agents, nova-compute, image, network", _agents),
    Stage("Add the host to its cell", _discover),
)
