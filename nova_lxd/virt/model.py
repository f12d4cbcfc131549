"""The values that travel between the layers: frozen, typed, without behaviour of their own.

Nova's objects are copied into these at the services' edge, so that the translators need no Nova.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

Config = dict[str, str]
"""LXD config keys and values; LXD takes strings only."""

Device = dict[str, str]
"""One LXD device."""

Devices = dict[str, Device]
"""LXD devices by name."""

ROLE_KEY = "user.nova.role"
"""Where an instance's role is kept."""


REVERTING_KEY = "user.nova.reverting"
"""What an instance's config has while it is to become what its snapshot is."""

IMAGE_ID_KEY = "nova.image_id"
"""The property of an image that holds its Glance id."""

USED_AT_KEY = "nova.used_at"
"""The property of an image that holds when it was last seen in use: ISO 8601, UTC."""

UNPACKED_KEY = "nova.unpacked_bytes"
"""The property of an image that holds the room that its root file system needs."""


@dataclass(frozen=True, slots=True)
class Flavor:
    """What the flavor promises.  Sizes are binary: MiB and GiB, as Nova means them."""

    name: str
    vcpus: int
    memory_mb: int
    root_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    extra_specs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """Who the server is: written to the instance as ``user.nova.*``."""

    name: str
    """Nova's ``instance.name``, which is the LXD instance's and the profile's name."""
    uuid: str
    project_id: str
    user_id: str
    image_id: str
    flavor_name: str
    request_id: str = ""
    config_drive: bool = False


@dataclass(frozen=True, slots=True)
class Rate:
    """How much may go one way: kilobytes (1000 bytes) a second, a burst in KiB; 0 is unset."""

    average_kb: int
    peak_kb: int = 0
    burst_kb: int = 0


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """What a NIC may receive and send; None is no limit."""

    inbound: Rate | None = None
    outbound: Rate | None = None


@dataclass(frozen=True, slots=True)
class Vif:
    """One Neutron port as bound to this host."""

    port_id: str
    devname: str
    """Host-side name, ``tap`` and the first eleven characters of the port id."""
    mac: str
    vif_type: str
    vnic_type: str = "normal"
    mtu: int | None = None
    hybrid_plug: bool = False
    datapath_type: str = "system"
    active: bool = True
    bandwidth: Bandwidth = Bandwidth()


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A Glance image as its metadata describes it."""

    id: str
    name: str
    disk_format: str
    container_format: str
    architecture: str = ""
    """Glance property ``architecture`` (hw_architecture), empty when unset."""
    size: int = 0
    """Bytes of the stored file."""
    min_disk_gb: int = 0
    min_ram_mb: int = 0
    created_at: int = 0
    """Seconds since the epoch."""
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An image in LXD's store."""

    fingerprint: str
    unpacked_bytes: int
    """Room its root file system needs, counted when it was inspected."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A Glance image in LXD's store, as it stands there."""

    fingerprint: str
    image_id: str
    used_at: datetime
    """When it came, when LXD last made an instance of it, or the time that was noted at it: the
    latest of these, with its time zone."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """A range of host uids and gids."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """First id behind the range."""
        return self.base + self.size

    def overlaps(self, other: IdRange) -> bool:
        """Whether some id lies in both ranges."""
        return self.base < other.end and other.base < self.end


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the translators need to know of this host's LXD."""

    name: str
    architectures: tuple[str, ...]
    """LXD's names, the native one first: ``("x86_64", "i686")``."""
    server_version: str
    api_extensions: frozenset[str]
    pool: str
    pool_driver: str
    id_range: IdRange
    """All the host ids that containers may use."""
    allow_privileged: bool = True
    allow_nested: bool = True

    @property
    def enforces_disk_size(self) -> bool:
        """Whether the pool can hold a root disk to its size; a ``dir`` pool cannot (measured)."""
        return self.pool_driver != "dir"


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """All that LXD must be given to make one server."""

    name: str
    image_fingerprint: str
    profile: str
    """The profile's name, which tells its content."""
    profile_config: Config
    profile_devices: Devices
    config: Config
    devices: Devices


@dataclass(frozen=True, slots=True)
class Nic:
    """A NIC of an LXD instance."""

    name: str
    """What the guest calls it."""
    mac: str
    hybrid: bool
    """Whether a bridge of its own is between it and Open vSwitch."""


@dataclass(frozen=True, slots=True)
class InstanceState:
    """One LXD instance of our project as it stands."""

    name: str
    uuid: str
    """Nova's id, empty for an instance that is not Nova's."""
    status: str
    """LXD's word: ``Running``, ``Stopped``, ``Frozen``, ``Error``, or a passing one."""
    id_base: int | None = None
    role: str = ""
    """What it is to the server: empty for its own container, ``rescued`` for its own while it lacks
    its NICs, ``rescue`` for its rescue container."""
    pool: str = ""
    """The storage pool of its root disk."""
    profiles: tuple[str, ...] = ()
    """The names of its profiles."""
    reverting: bool = False
    """Whether a resize of it is being reverted, and its disk is not yet what it was."""
    nics: Mapping[str, Nic] = field(default_factory=dict)
    """Its own NICs by their names on the host."""


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """Something that happened to an LXD instance."""

    name: str
    action: str
    """LXD's word, such as ``instance-started``."""


@dataclass(frozen=True, slots=True)
class NicUsage:
    """What went through a NIC, as the guest counts: ``rx`` is what it received."""

    mac: str
    rx_octets: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_drop: int = 0
    tx_octets: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_drop: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one instance uses."""

    status: str
    """LXD's word, as in :class:`InstanceState`."""
    cpu_ns: int
    """CPU time since its start, of all CPUs together, in nanoseconds."""
    memory_bytes: int
    disk_bytes: int | None
    """Bytes of the root disk in use; None where the storage pool cannot tell."""
    nics: tuple[NicUsage, ...] = ()
    """All that it sees, its own as well as those that it made."""
