"""RabbitMQ, and the Erlang port mapper that it needs."""

from __future__ import annotations

import socket

from aio import kernel
from aio.process import Process
from aio.services.base import Service
from aio.settings import Settings

_HANDSHAKE = b"AMQP\x00\x00\x09\x01"


def _epmd_command(settings: Settings) -> list[str]:
    port = str(settings.ports.epmd)
    return [kernel.program("epmd"), "-address", "127.0.0.1", "-port", port]


def _epmd_healthy(settings: Settings, process: Process) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", settings.ports.epmd)) == 0


def _env(settings: Settings) -> dict[str, str]:
    data = settings.data / "rabbitmq"
    ports = settings.ports
    return {
        "HOME": str(data),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(ports.epmd),
        "RABBITMQ_NODENAME": "aio@localhost",
        "RABBITMQ_DIST_PORT": str(ports.rabbit_nodes),
        "RABBITMQ_CONF_ENV_FILE": str(data / "none.conf"),
        "RABBITMQ_CONFIG_FILE": str(settings.etc / "rabbitmq" / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(data / "none.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(data / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
        "RABBITMQ_LOG_BASE": str(settings.log),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(data / "generated"),
        "RABBITMQ_PID_FILE": str(settings.run / "rabbitmq.own.pid"),
        # No busy waiting: the two cores are needed elsewhere.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
        "+sbwt none +sbwtdcpu none +sbwtdio none",
    }


def _command(settings: Settings) -> list[str]:
    return ["/usr/lib/rabbitmq/bin/rabbitmq-server"]  # /usr/sbin/rabbitmq-server does su


def _healthy(settings: Settings, process: Process) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        try:
            client.connect(("127.0.0.1", settings.ports.rabbit))
            client.sendall(_HANDSHAKE)
            return client.recv(1) == b"\x01"  # a method frame: connection.start
        except OSError:
            return False


EPMD = Service(
    name="epmd",
    package="erlang-base",
    command=_epmd_command,
    healthy=_epmd_healthy,
    ports=("epmd",),
    grace=3,
)
SERVICE = Service(
    name="rabbitmq",
    package="rabbitmq-server",
    command=_command,
    healthy=_healthy,
    configs=("rabbitmq/rabbitmq.conf",),
    env=_env,
    folders=("rabbitmq",),
    ports=("rabbit", "rabbit_nodes"),
    grace=30,
)
