"""What the rules compare: what Nova expects and what was found.  Frozen, typed, no behaviour
beyond names that follow from other names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nova_lxd.virt.instance import rescue_name
from nova_lxd.virt.model import IdRange


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that does not hold for one object."""

    rule: str
    """``I1`` to ``I16``."""
    subject: str
    """The object: ``instance instance-00000001``, ``link tap9e0c6af1-30`` ..."""
    problem: str
    mend: str
    """A command, or where there is none a sentence, that puts it right."""
    server: str = ""
    """Nova's id of the server whose it is or was, where the object tells."""

    def __str__(self) -> str:
        return f"{self.rule} {self.subject}: {self.problem}; mend with: {self.mend}"


@dataclass(frozen=True, slots=True)
class ExpectedPort:
    """One Neutron port bound to this host."""

    port_id: str
    mac: str
    mtu: int | None = None
    hybrid: bool = True
    """Whether a Linux bridge sits between the container and Open vSwitch."""
    bridge: str = ""
    """The Open vSwitch bridge when it is not the integration bridge but a trunk's own."""

    @property
    def suffix(self) -> str:
        """What the host-side names end with."""
        return self.port_id[:11]

    @property
    def tap(self) -> str:
        """The container's host-side end."""
        return f"tap{self.suffix}"

    @property
    def tin(self) -> str:
        """The container's own end of a port that is not hybrid, while it is on the host."""
        return f"tin{self.suffix}"

    @property
    def ovs_port(self) -> str:
        """The port on the integration bridge."""
        return f"qvo{self.suffix}" if self.hybrid else self.tap


@dataclass(frozen=True, slots=True)
class ExpectedServer:
    """One Nova server of this host."""

    name: str
    """Nova's ``instance.name``."""
    uuid: str
    memory_mb: int
    vcpus: int
    root_gb: int = 0
    status: str = ""
    """LXD's word for Nova's power state; empty when Nova does not claim any (ERROR, a task)."""
    built: bool = True
    """False for a server that never came up: it may or may not have an instance."""
    privileged: bool = False
    """Whether the flavor allows a privileged container."""
    ports: tuple[ExpectedPort, ...] = ()
    rescued: bool = False
    """Whether its power and its ports are those of a rescue container; its own one is stopped."""
    settled: bool = True
    """False while Nova works on it, and in ERROR: it may have more than it needs."""
    snapshots: frozenset[str] = frozenset()
    """The snapshots that it needs."""

    @property
    def current(self) -> str:
        """Name the container that the tenant sees."""
        return rescue_name(self.name) if self.rescued else self.name

    @property
    def containers(self) -> Mapping[str, str]:
        """Status of every container that it has, by name; empty when none is claimed."""
        own = {self.name: "Stopped" if self.rescued else self.status}
        return own | {self.current: self.status}

    def has(self, container: str) -> bool:
        """Whether a container of this name can be its."""
        own = container in self.containers
        return own or (not self.settled and container == rescue_name(self.name))


@dataclass(frozen=True, slots=True)
class Expected:
    """What Nova, Neutron and the operator say of this host."""

    project: str
    servers: tuple[ExpectedServer, ...] = ()
    integration_bridge: str = "br-int"
    id_range: IdRange | None = None
    """Host ids that containers may use; ``None`` asks only that the maps are disjoint."""
    enforces_disk_size: bool = True
    """Whether the storage pool can hold a root disk to its size."""
    other_links: frozenset[str] = frozenset()
    """Host devices that are somebody else's, whatever their names."""
    attached: frozenset[str] = frozenset()
    """Host paths and devices of present volume attachments."""
    foreign: Mapping[str, str] = field(default_factory=dict)
    """Digest of every instance outside our project, by ``project/name``."""
    log_allowed: tuple[str, ...] = ()
    """Regular expressions of the error lines that are expected."""
    makes_images: bool = False
    """Whether one may be in LXD that has no name yet: a server is being made an image of."""
    naming_seconds: float = 0
    """How old an image may be that was fetched and has no name yet."""
    image_folders: str = ""
    """What the names of the folders begin with in which this host keeps an image on its way."""
    lxc: str = "lxc"
    """How LXD's client is called on this host."""
    ovs_vsctl: str = "ovs-vsctl"
    """How Open vSwitch's client is called on this host."""

    @property
    def client(self) -> str:
        """LXD's client in our project."""
        return f"{self.lxc} --project {self.project}"

    def server(self, name: str) -> ExpectedServer | None:
        """Return the server that has a container of that name."""
        return next((server for server in self.servers if server.has(name)), None)

    @property
    def ports(self) -> tuple[ExpectedPort, ...]:
        """The ports of all servers."""
        return tuple(port for server in self.servers for port in server.ports)


@dataclass(frozen=True, slots=True)
class LxdInstance:
    """An instance of our project, with its profiles' keys expanded."""

    name: str
    status: str
    config: Mapping[str, str]
    devices: Mapping[str, Mapping[str, str]]
    snapshots: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LxdObject:
    """A profile, a custom volume or an operation of our project."""

    kind: str
    """``profile``, ``volume`` or ``operation``."""
    name: str
    """For a volume ``POOL VOLUME``, as the lxc command wants it."""
    config: Mapping[str, str] = field(default_factory=dict)
    instances: tuple[str, ...] = ()
    """The instances it concerns or is used by."""


@dataclass(frozen=True, slots=True)
class LxdImage:
    """An image in the store of our project."""

    fingerprint: str
    aliases: tuple[str, ...]
    properties: Mapping[str, str] = field(default_factory=dict)
    age: float = math.inf
    """Seconds since it came into the store."""


@dataclass(frozen=True, slots=True)
class Link:
    """A network device of the host."""

    name: str
    mtu: int
    mac: str = ""
    master: str = ""
    kind: str = ""
    """``veth``, ``bridge`` ..."""
    ipv6: bool = False
    """Whether the kernel speaks IPv6 on it."""
    in_container: bool = False
    """Whether its other end is in another network namespace."""
    promiscuous: bool = False
    """Whether a switch or somebody else gets all that it carries."""


@dataclass(frozen=True, slots=True)
class OvsPort:
    """A port of an Open vSwitch bridge with its first interface."""

    name: str
    bridge: str
    external_ids: Mapping[str, str] = field(default_factory=dict)
    mtu: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class HostSize:
    """What the host really has."""

    cpus: int
    memory_mb: int
    pool_gb: int


@dataclass(frozen=True, slots=True)
class PlacementFacts:
    """What Placement holds of this host's provider."""

    inventory: Mapping[str, int]
    """Total by resource class."""
    allocations: Mapping[str, Mapping[str, int]]
    """Amount by resource class, by consumer."""
    host: HostSize | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found.  A field that is ``None`` was not asked, and its rules hold."""

    instances: tuple[LxdInstance, ...] = ()
    objects: tuple[LxdObject, ...] = ()
    images: tuple[LxdImage, ...] = ()
    links: tuple[Link, ...] = ()
    ovs_ports: tuple[OvsPort, ...] = ()
    filtered_taps: frozenset[str] | None = None
    """Devices that the firewall has rules for."""
    mounts: tuple[str, ...] = ()
    """Mount points below Nova's folders."""
    loops: Mapping[str, str] = field(default_factory=dict)
    """Backing file below Nova's folders by loop device."""
    files: tuple[str, ...] = ()
    """Paths below ``instances_path``, relative to it; folders of servers are not entered."""
    instances_path: str = ""
    placement: PlacementFacts | None = None
    log_errors: tuple[str, ...] = ()
    foreign: Mapping[str, str] | None = None


def mapping(value: Any) -> Mapping[str, str]:
    """Return a JSON object as a mapping of strings; LXD sends ``null`` for an empty one."""
    return dict(value or {})
