"""Fills the databases, once; later runs start from a copy of the result."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from aio import identity, machine
from aio.config import DATABASES, database_url, transport_url
from aio.report import Reporter
from aio.run import run
from aio.services import mariadb
from aio.services.base import Unit
from aio.settings import Settings

_KEPT = ("mysql", "keystone")  # folders below data/ that make up the pristine state


def fingerprint(settings: Settings) -> str:
    """Return a digest of what the pristine databases depend on."""
    parts = [machine.environment_fingerprint(), str(settings.ports), str(settings.passwords)]
    parts += [database_url(settings, name) for name in DATABASES]
    parts.append(run("mariadbd", "--version"))
    parts += [
        Path(module.__file__ or "").read_text() for module in (identity, sys.modules[__name__])
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def are_ready(settings: Settings) -> bool:
    """Tell whether the databases hold everything that services need to start."""
    return (settings.data / "databases-ready").exists()


def restore(settings: Settings) -> bool:
    """Put the pristine databases in place; False when there are none, or data exists already."""
    mark = settings.pristine / "fingerprint"
    if (settings.data / "mysql").exists():
        return False
    if not mark.exists() or mark.read_text() != fingerprint(settings):
        return False
    settings.data.mkdir(parents=True, exist_ok=True)
    for name in _KEPT:
        run("cp", "-a", "--reflink=auto", str(settings.pristine / name), str(settings.data))
    (settings.data / "databases-ready").touch()
    return True


def _keep(settings: Settings, server: Unit) -> None:
    server.stop()
    shutil.rmtree(settings.pristine, ignore_errors=True)
    settings.pristine.mkdir(mode=0o700)
    for name in _KEPT:
        run("cp", "-a", "--reflink=auto", str(settings.data / name), str(settings.pristine))
    (settings.pristine / "fingerprint").write_text(fingerprint(settings))
    server.start()
    server.wait()


def fill(settings: Settings, server: Unit, keystone: Unit, reporter: Reporter) -> None:
    """Create all tables, keys, users and endpoints, and keep a copy of them.

    ``server`` is the running database, ``keystone`` its API, which is started on the way.
    """
    mariadb.create_databases(settings)

    def _identity(settings: Settings) -> None:
        _keystone(settings)
        keystone.start()
        keystone.wait()
        identity.register(settings)

    chains = (_identity, _nova, _neutron, _glance, _placement)
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        jobs = {pool.submit(chain, settings): chain.__name__[1:] for chain in chains}
        for number, job in enumerate(as_completed(jobs), 1):
            job.result()
            reporter.count(number, len(chains), jobs[job])
    _keep(settings, server)
    (settings.data / "databases-ready").touch()


def _tool(settings: Settings, program: str, *configs: str) -> Callable[..., str]:
    files = [f"--config-file={settings.etc / name}" for name in configs]
    env = {"PATH": settings.path, "HOME": str(settings.data)}

    def call(*args: str) -> str:
        return run(settings.program(program), *files, *args, env=env, timeout=900)

    return call


def _keystone(settings: Settings) -> None:
    (settings.data / "keystone").mkdir(mode=0o700, parents=True, exist_ok=True)
    manage = _tool(settings, "keystone-manage", "keystone/keystone.conf")
    owner = ("--keystone-user", "root", "--keystone-group", "root")
    manage("db_sync")
    manage("fernet_setup", *owner)
    manage("credential_setup", *owner)
    url = settings.url("keystone") + "/v3"
    urls = (
        part
        for kind in ("admin", "internal", "public")
        for part in (f"--bootstrap-{kind}-url", url)
    )
    password = ("--bootstrap-password", settings.passwords["admin"])
    manage("bootstrap", *password, *urls, "--bootstrap-region-id", settings.region)


def _glance(settings: Settings) -> None:
    manage = _tool(settings, "glance-manage", "glance/glance-api.conf")
    manage("db", "sync")
    manage("db", "load_metadefs", str(settings.venv / "etc" / "glance" / "metadefs"))


def _placement(settings: Settings) -> None:
    _tool(settings, "placement-manage", "placement/placement.conf")("db", "sync")


def _nova(settings: Settings) -> None:
    manage = _tool(settings, "nova-manage", "nova/nova.conf")
    manage("api_db", "sync")
    cell0 = database_url(settings, "nova_cell0")
    manage("cell_v2", "map_cell0", "--database_connection", cell0)
    manage("db", "sync")
    database = ("--database_connection", database_url(settings, "nova"))
    transport = ("--transport-url", transport_url(settings))
    manage("cell_v2", "create_cell", "--name", "cell1", *database, *transport)


def _neutron(settings: Settings) -> None:
    configs = ("neutron/neutron.conf", "neutron/ml2_conf.ini")
    _tool(settings, "neutron-db-manage", *configs)("upgrade", "heads")
