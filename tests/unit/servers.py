"""Servers as Nova would order them, without Nova's database."""

from __future__ import annotations

import gzip
import itertools
import random
import threading
import uuid
from dataclasses import dataclass, field

import nova.conf
from nova import context, objects
from nova.compute import vm_states
from nova.network import model as network_model

from . import archives

CONF = nova.conf.CONF
objects.register_all()

_numbers = itertools.count(1)
_lock = threading.Lock()

_NOISE = random.Random(0).randbytes(20_000)
ROOTFS = gzip.compress(
    archives.tar([*archives.system(), archives.entry("./noise", content=_NOISE)])
)
"""Small, since hundreds of tests send it, and large enough to be cut off in the middle."""


def new_id() -> str:
    """Make an id as Nova's, Glance's and Neutron's are."""
    return str(uuid.uuid4())


@dataclass
class Order:
    """One server that Nova asks for; every one is different."""

    number: int
    uuid: str = field(default_factory=new_id)
    image_id: str = field(default_factory=new_id)
    port_ids: list[str] = field(default_factory=lambda: [new_id()])

    def __post_init__(self) -> None:
        self.context = context.get_admin_context()
        self.instance = objects.Instance(
            self.context,
            id=self.number,
            uuid=self.uuid,
            project_id="project",
            user_id="user",
            host=CONF.host,
            image_ref=self.image_id,
            kernel_id="",
            ramdisk_id="",
            display_name="web",
            hostname="web",
            config_drive="",
            trusted_certs=None,
            system_metadata={},
            metadata={},
            vm_state=vm_states.ACTIVE,
            task_state=None,
            info_cache=objects.InstanceInfoCache(network_info=self.network_info),
            flavor=self._flavor(),
        )
        self.image_meta = objects.ImageMeta.from_dict(
            {
                "id": self.image_id,
                "name": "tiny",
                "status": "active",
                "disk_format": "raw",
                "container_format": "bare",
                "size": len(ROOTFS),
                "min_disk": 0,
                "min_ram": 0,
                "properties": {},
            }
        )

    @property
    def name(self) -> str:
        """What Nova and LXD call it."""
        return self.instance.name

    @property
    def network_info(self) -> network_model.NetworkInfo:
        """Its ports, bound by ML2/OVS with hybrid plugging."""
        return network_model.NetworkInfo([self._vif(port_id) for port_id in self.port_ids])

    def _flavor(self) -> objects.Flavor:
        sizes = {"vcpus": 1, "memory_mb": 64, "root_gb": 1, "ephemeral_gb": 0, "swap": 0}
        names = {"id": 1, "name": "tiny", "flavorid": "1"}
        return objects.Flavor(self.context, extra_specs={}, **names, **sizes)

    def _vif(self, port_id: str) -> network_model.VIF:
        network = network_model.Network(id=str(uuid.uuid4()), bridge="br-int", subnets=[], mtu=1450)
        return network_model.VIF(
            id=port_id,
            address="fa:16:3e:00:00:01",
            network=network,
            type=network_model.VIF_TYPE_OVS,
            devname=f"tap{port_id[:11]}",
            ovs_interfaceid=port_id,
            details={network_model.VIF_DETAILS_OVS_HYBRID_PLUG: True},
            active=False,
        )


def order(**values) -> Order:
    """Order a server."""
    with _lock:
        return Order(next(_numbers), **values)
