"""MariaDB on a unix socket."""

from __future__ import annotations

import socket

from aio import kernel
from aio.config import DATABASES
from aio.process import Process
from aio.run import run
from aio.services.base import Service
from aio.settings import Settings


def initialise(settings: Settings) -> None:
    """Make the empty data folder, unless there is one."""
    datadir = settings.data / "mysql"
    if (datadir / "mysql").is_dir():
        return
    datadir.mkdir(parents=True, exist_ok=True)
    datadir.chmod(0o700)
    run(
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={datadir}",
        "--user=root",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    )


def create_databases(settings: Settings) -> None:
    """Make the databases, unless they exist."""
    script = "".join(
        f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8;\n" for name in DATABASES
    )
    run("mariadb", "--no-defaults", f"--socket={settings.mysql_socket}", "-uroot", stdin=script)


def _command(settings: Settings) -> list[str]:
    return [
        kernel.program("mariadbd"),
        "--no-defaults",
        f"--datadir={settings.data / 'mysql'}",
        f"--socket={settings.mysql_socket}",
        f"--pid-file={settings.run / 'mariadbd.own.pid'}",
        "--user=root",
        "--skip-networking",
        "--skip-name-resolve",
        "--max-connections=1000",
        "--innodb-log-file-size=32M",
        # A power cut may cost a second of data; this cloud does not outlive one anyway.
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-doublewrite=0",
    ]


def _healthy(settings: Settings, process: Process) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(settings.mysql_socket))
            return len(client.recv(5)) == 5  # the greeting's header and protocol version
        except OSError:
            return False


SERVICE = Service(
    name="mariadb",
    package="mariadb-server",
    command=_command,
    healthy=_healthy,
    grace=60,
)
