"""What must hold on the host after every test: the invariants, fed by the cloud's own APIs."""

from __future__ import annotations

from pathlib import Path

from aio.api import Api
from aio.errors import AioError
from aio.ovs import OvsDaemon
from aio.process import wait_until
from aio.settings import Settings
from aio.tenant import Json
from aio.traces import difference, traces
from nova_lxd import invariants
from nova_lxd.invariants import gather
from nova_lxd.virt.model import IdRange

_POWER = {1: "Running", 3: "Frozen", 4: "Stopped"}  # Nova's power state -> LXD's word
_SETTLE = 60.0  # seconds that asynchronous cleaning may take on a slow machine


class Proof:
    """Compares the host with what Nova, Neutron and Placement say of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.api = Api(settings)
        self._get = gather.lxd(str(settings.lxd / "unix.socket"))
        self._traces = traces(settings)
        self._foreign = gather.foreign(self._get, settings.lxd_project)
        self._links = frozenset(link.name for link in gather.links())

    def assert_host_as_before(self) -> None:
        """Wait until nothing is on the host that was not there at the beginning."""
        left: list[str] = []

        def clean() -> bool:
            left[:] = difference(self._traces, traces(self.settings))
            return not left

        wait_until(clean, _SETTLE, "the host to be as before", log=lambda: "\n".join(left))

    def assert_invariants(self) -> None:
        """Wait until every invariant holds; what was violated to the end is in the error."""
        found: list[invariants.Violation] = []

        def holds() -> bool:
            found[:] = self.violations()
            return not found

        try:
            wait_until(holds, _SETTLE, "the invariants", interval=0.5)
        except AioError:
            lines = "\n".join(map(str, found))
            raise AssertionError(f"the host is not as it should be:\n{lines}") from None

    def violations(self) -> list[invariants.Violation]:
        """Return what does not hold now."""
        return invariants.check(self._expected(), self._facts())

    # -- what Nova says

    def _expected(self) -> invariants.Expected:
        path = f"/servers/detail?all_tenants=1&host={self.settings.host}"
        servers = self.api.get("nova", path)["servers"]
        return invariants.Expected(
            project=self.settings.lxd_project,
            servers=tuple(map(self._server, servers)),
            id_range=_host_ids(),
            other_links=self._links,
            foreign=self._foreign,
        )

    def _server(self, server: Json) -> invariants.ExpectedServer:
        flavor = server["flavor"]
        idle = not server["OS-EXT-STS:task_state"]
        built = server["status"] not in ("ERROR", "BUILD")
        power = _POWER.get(server["OS-EXT-STS:power_state"], "")
        return invariants.ExpectedServer(
            name=server["OS-EXT-SRV-ATTR:instance_name"],
            uuid=server["id"],
            memory_mb=flavor["ram"],
            vcpus=flavor["vcpus"],
            root_gb=flavor["disk"],
            status=power if built and idle else "",
            built=built,
            ports=tuple(self._ports(server["id"])) if built else (),
            rescued=server["status"] == "RESCUE",
        )

    def _ports(self, server: str) -> list[invariants.ExpectedPort]:
        ports = self.api.get("neutron", f"/ports?device_id={server}")["ports"]
        return [
            invariants.ExpectedPort(
                port_id=port["id"],
                mac=port["mac_address"],
                mtu=self._mtu(port["network_id"]),
                hybrid=port["binding:vif_details"]["ovs_hybrid_plug"],
                bridge=_trunk(port),
            )
            for port in ports
        ]

    def _mtu(self, network: str) -> int:
        return int(self.api.get("neutron", f"/networks/{network}")["network"]["mtu"])

    # -- what is there

    def _facts(self) -> invariants.Facts:
        project = self.settings.lxd_project
        folder = self.settings.data / "nova" / "instances"
        ovs = OvsDaemon(self.settings.ovs, manager_port=self.settings.ports.ovsdb)
        return invariants.Facts(
            instances=gather.instances(self._get, project),
            objects=gather.objects(self._get, project),
            images=gather.images(self._get, project),
            links=gather.links(),
            ovs_ports=gather.ovs_ports(ovs.db),
            filtered_taps=gather.filtered_taps(),
            mounts=gather.mounts([folder]),
            loops=gather.loops([folder]),
            files=gather.files(folder),
            instances_path=str(folder),
            placement=self._placement(),
            foreign=gather.foreign(self._get, project),
        )

    def _placement(self) -> invariants.PlacementFacts | None:
        providers = self.api.get("placement", "/resource_providers")["resource_providers"]
        provider = next(item["uuid"] for item in providers if item["name"] == self._node())
        path = f"/resource_providers/{provider}"
        inventory = self.api.get("placement", f"{path}/inventories")["inventories"]
        held = self.api.get("placement", f"{path}/allocations")["allocations"]
        resources = self._get("/1.0/resources")
        space = self._get(f"/1.0/storage-pools/{self.settings.lxd_pool}/resources")["space"]
        return invariants.PlacementFacts(
            inventory={name: each["total"] for name, each in inventory.items()},
            allocations={consumer: each["resources"] for consumer, each in held.items()},
            host=invariants.HostSize(
                cpus=resources["cpu"]["total"],
                memory_mb=resources["memory"]["total"] // 2**20,
                pool_gb=space["total"] // 2**30,
            ),
        )

    def _node(self) -> str:
        (hypervisor,) = self.api.get("nova", "/os-hypervisors")["hypervisors"]
        return str(hypervisor["hypervisor_hostname"])


def _trunk(port: Json) -> str:
    """Return the bridge of the trunk whose parent the port is."""
    bridge = str(port["binding:vif_details"].get("bridge_name", ""))
    return bridge if bridge.startswith("tbr-") else ""


def _host_ids() -> IdRange:
    """Return the ids that the host lets root hand to containers."""
    for line in Path("/etc/subuid").read_text().splitlines():
        user, base, size = line.split(":")
        if user == "root":
            return IdRange(int(base), int(size))
    raise AssertionError("/etc/subuid has no range for root")
