"""Where the cloud lives and what it is called: paths, ports, addresses and passwords."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from aio import choices
from aio.choices import Choices

DEFAULT_STATE = "/var/lib/nova-lxd-aio"
REPOSITORY = Path(__file__).resolve().parent.parent
LXD_DRIVER = "lxd.LXDDriver"
_SECRETS = ("admin", "service", "rabbit", "metadata", "demo")


@dataclass(frozen=True)
class Ports:
    """TCP ports, all on loopback."""

    keystone: int = 5000
    glance: int = 9292
    placement: int = 8778
    nova: int = 8774
    metadata: int = 8775
    serial: int = 6083
    neutron: int = 9696
    rabbit: int = 5672
    rabbit_nodes: int = 25673
    epmd: int = 14369
    ovsdb: int = 6640
    openflow: int = 6633


@dataclass(frozen=True)
class Settings:
    """Everything about one cloud that does not change while it runs.

    ``state`` is the folder that holds all of it; ``compute_driver`` is what nova-compute loads.
    """

    state: Path = Path(DEFAULT_STATE)
    compute_driver: str = LXD_DRIVER
    host: str = "aio"
    region: str = "RegionOne"
    ports: Ports = field(default_factory=Ports)
    public_cidr: str = "172.24.4.0/24"
    public_gateway: str = "172.24.4.1"
    lxd_project: str = "nova"
    lxd_pool: str = "default"
    pool_size: str = "60GiB"

    @property
    def venv(self) -> Path:
        """The virtual environment with OpenStack in it."""
        return self.state / "venv"

    @property
    def etc(self) -> Path:
        """Configuration files, written at every ``up``."""
        return self.state / "etc"

    @property
    def data(self) -> Path:
        """What services store; gone after ``down``."""
        return self.state / "data"

    @property
    def log(self) -> Path:
        """One log for each service."""
        return self.state / "log"

    @property
    def run(self) -> Path:
        """Pid files."""
        return self.state / "run"

    @property
    def code(self) -> Path:
        """The Python environment of a nova-compute that is not root."""
        return self.state / "code"

    @property
    def pristine(self) -> Path:
        """Databases and keys as they are before the first user; kept by ``down``."""
        return self.state / "pristine"

    @property
    def bin(self) -> Path:
        """Links that come first in PATH (the iptables flavour)."""
        return self.state / "bin"

    @property
    def lxd(self) -> Path:
        """LXD_DIR."""
        return self.state / "lxd"

    @property
    def ovs(self) -> Path:
        """Open vSwitch's folder."""
        return self.state / "ovs"

    @property
    def mysql_socket(self) -> Path:
        """MariaDB's unix socket."""
        return self.data / "mysql.sock"

    @property
    def lxc_config(self) -> Path:
        """LXD_CONF of the people who use the cloud."""
        return self.etc / "lxc"

    @property
    def choices_file(self) -> Path:
        """Where ``choices`` are kept while the cloud is up."""
        return self.state / "choices.json"

    @property
    def choices(self) -> Choices:
        """What the cloud is, or will be, brought up with."""
        return choices.read(self.choices_file)

    @cached_property
    def passwords(self) -> dict[str, str]:
        """Passwords by account, made at random once and kept in the state folder."""
        file = self.state / "secrets.json"
        if file.exists():
            return dict(json.loads(file.read_text()))
        made = {name: secrets.token_hex(12) for name in _SECRETS}
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(made, out)
        return made

    def url(self, service: str) -> str:
        """Return the base URL of an API, as ``http://127.0.0.1:8774``."""
        return f"http://127.0.0.1:{getattr(self.ports, service)}"

    def program(self, name: str) -> str:
        """Return the path of a program of the virtual environment."""
        return str(self.venv / "bin" / name)

    @property
    def path(self) -> str:
        """PATH for services: our iptables, the virtual environment, the system."""
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return f"{self.bin}:{self.venv / 'bin'}:{system}"
