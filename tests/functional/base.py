"""The base of the functional tests: Nova's services around our driver.

After every test it proves that the host holds exactly what Nova's servers need.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import fixtures
import futurist._thread
import nova.conf
import nova.exception
import pytest
from nova import objects, test
from nova import privsep as nova_privsep
from nova.compute import power_state
from nova.context import get_admin_context
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional import fixtures as functional_fixtures
from nova.tests.functional import integrated_helpers
from nova.tests.functional.api import client as api_client
from oslo_messaging import opts as messaging_opts
from vif_plug_ovs import privsep as vif_privsep

from aio.errors import AioError
from nova_lxd import invariants, privsep
from nova_lxd.invariants import gather
from nova_lxd.virt.model import IdRange
from tests.functional.glance import GlanceFixture
from tests.functional.machine import BRIDGE, POOL
from tests.functional.neutron import Agent, NeutronFixture, plugged

CONF = nova.conf.CONF
HOST = "compute1"
DEADLINE = 180
"""Seconds for a server to get anywhere; a healthy machine needs three."""

POWER = {
    power_state.RUNNING: "Running",
    power_state.PAUSED: "Frozen",
    power_state.SHUTDOWN: "Stopped",
}
"""LXD's word for each of Nova's power states."""
_POISONS = ("GenericPoisonFixture", "SysFsPoisonFixture", "PrivsepNoHelperFixture")
_ERROR_LINE = re.compile(r"\S+ \S+ (ERROR|CRITICAL) ")
_EXPECTED_LOG = (
    r"\[stevedore\.extension\] Could not load",
    r"services table record for the nova-\w+ service on host \w+ is gone",
)
"""What Nova's own fixtures log as errors in this environment: of what is not installed, and of
services of the test before, whose database is gone."""


def wait_for(condition: Callable, what: str, seconds: float = DEADLINE):
    """Return the first true answer of ``condition``; fail after ``seconds``, naming ``what``."""
    deadline = time.monotonic() + seconds
    pause = 0.05
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(pause)
        pause = min(1.5 * pause, 0.4)
    return answer


def _idle_workers_look_every(seconds: float) -> None:
    """Set how often a thread of Nova's that has nothing to do looks whether it may end.

    Nova's base of all tests sets 0.01, so that they end soon; the ninety threads that a long test
    comes to have then take most of a core.
    """
    futurist._thread.ThreadWorker.MAX_IDLE_FOR = seconds


class ServerTestCase(test.TestCase, integrated_helpers.PlacementInstanceHelperMixin):
    """One nova-compute on the machine's LXD, in a LXD project of the test's own."""

    REQUIRES_LOCKING = True
    microversion = "latest"
    starts_compute = True
    """False for tests in which nova-compute is to refuse."""
    glance_fixture = GlanceFixture
    hybrid = True
    """Whether Neutron asks for a bridge between a server and Open vSwitch."""

    @pytest.fixture(autouse=True)
    def _session_fixtures(self, machine, images):
        self._machine = machine
        self._images = images

    def setUp(self):
        """Start Nova; the compute service last."""
        self._lift_poison()
        # Before anything of ours, so that it runs after everything else is gone.
        self._project = f"t-{uuid.uuid4().hex[:8]}"
        super().setUp()
        _idle_workers_look_every(0.5)
        self.addCleanup(self._machine.clean, self._project)
        self._foreign = gather.foreign(self._machine.get, self._project)
        self._allowed_log: list[str] = []
        self._configure()
        self._start_nova()
        self._start_agent()
        self._proven = False
        if self.starts_compute:
            self.start_compute()

    def _clear_attrs(self):
        # Nova forgets everything; pytest still needs the method that it set.
        method = self.__dict__.get(self._testMethodName)
        super()._clear_attrs()
        if method:
            setattr(self, self._testMethodName, method)

    # -- what tests say

    def start_compute(self) -> None:
        """Start nova-compute; before it ends, the test proves that the host is clean."""
        self.compute = self._start_compute(HOST)
        # After the proof Nova's services stop, which wait for their workers.
        self.addCleanup(_idle_workers_look_every, 0.01)
        self.addCleanup(self._prove_clean)

    def restart_compute(self) -> None:
        """Stop nova-compute and start a new one with a driver of its own."""
        self.compute = self.restart_compute_service(self.compute, keep_hypervisor_state=False)
        self.addCleanup(self._prove_clean)

    def boot(self, *, status: str = "ACTIVE", **request) -> dict:
        """Create a server and wait for ``status``; see ``request_server`` for the rest."""
        server = self.request_server(**request)
        return self.wait_status(server, status)

    def request_server(
        self, *, image: str = "", flavor: str = "", networks=None, name: str = "web", **more
    ) -> dict:
        """Ask Nova's API for a server; by default a small one with one port."""
        request = {
            "name": name,
            "imageRef": image or self.busybox_image(),
            "flavorRef": flavor or self.flavor(),
            "networks": [{"uuid": self.neutron.network_1["id"]}] if networks is None else networks,
            **more,
        }
        server = self.api.post_server({"server": request})
        self._servers.append(server["id"])
        return server

    def wait_status(self, server: dict, status: str) -> dict:
        """Wait until the server has ``status`` and no task; in ERROR, until its fault is there."""

        def settled():
            if self.is_busy(server["id"]):
                return None
            now = self.api.get_server(server["id"])
            done = now["status"] == status and not now["OS-EXT-STS:task_state"]
            if now["status"] == "ERROR" and status != "ERROR" and "fault" in now:
                raise AssertionError(f"the server is in ERROR: {now['fault']}")
            return now if done and (status != "ERROR" or "fault" in now) else None

        return wait_for(settled, f"server {server['id']} to be {status}")

    def act(self, server: dict, action: dict, status: str) -> dict:
        """Send a server action and wait for ``status``."""
        self.api.post_server_action(server["id"], action)
        return self.wait_status(server, status)

    def delete(self, *servers: dict) -> None:
        """Delete servers and wait until Nova knows them no more."""
        for server in servers:
            self.api.delete_server(server["id"])
        for server in servers:
            self.wait_gone(server["id"])

    def wait_gone(self, server_id: str) -> None:
        """Wait until Nova knows the server no more."""

        def gone():
            return not self.is_busy(server_id) and not self._exists(server_id)

        wait_for(gone, f"server {server_id} to be gone")

    def wait_idle(self, server: dict) -> None:
        """Wait until a server has no task."""
        wait_for(lambda: not self.is_busy(server["id"]), "the server to have no task")

    def is_busy(self, server_id: str) -> bool:
        """Whether Nova does something with a server, by its own record of it.

        An answer of its API takes ten times the CPU time, which those who do it need too.
        """
        try:
            instance = objects.Instance.get_by_uuid(
                get_admin_context(), server_id, expected_attrs=[]
            )
        except nova.exception.InstanceNotFound:
            return False
        return bool(instance.task_state)

    def flavor(self, *, memory_mb=64, vcpus=1, disk=1, extra_specs=None) -> str:
        """Make a flavor and return its id."""
        return self._create_flavor(
            memory_mb=memory_mb,
            vcpu=vcpus,
            disk=disk,
            ephemeral=0,
            swap=0,
            extra_spec=extra_specs,
        )

    def busybox_image(self) -> str:
        """Upload the image that boots, once, and return its id."""
        if not self._busybox:
            self._busybox = self.image(self._images.busybox)
        return self._busybox

    def image(self, content: bytes, **metadata) -> str:
        """Upload ``content`` to Glance and return the image's id."""
        properties = metadata.pop("properties", {})
        image = {
            "id": str(uuid.uuid4()),
            "name": "busybox",
            "disk_format": "raw",
            "container_format": "bare",
            "visibility": "public",
            "is_public": True,
            "deleted": False,
            "deleted_at": None,
            "protected": False,
            "tags": [],
            "min_disk": 0,
            "min_ram": 0,
            "size": len(content),
            "checksum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "properties": properties,
            **metadata,
        }
        return self.glance.create(None, image, data=io.BytesIO(content))["id"]

    def expect_log(self, *patterns: str) -> None:
        """Allow error lines that match one of these regular expressions."""
        self._allowed_log.extend(patterns)

    def name_of(self, server: dict) -> str:
        """Return Nova's instance name, which is LXD's."""
        return server["OS-EXT-SRV-ATTR:instance_name"]

    def lxd_instance(self, server: dict):
        """Return the server's container as LXD shows it."""
        path = f"/1.0/instances/{self.name_of(server)}?project={self._project}"
        return self._machine.get(path)

    def lxd_names(self, kind: str) -> list[str]:
        """Return the names of the ``instances``, ``profiles`` or ``images`` of our project."""
        urls = self._machine.get(f"/1.0/{kind}?project={self._project}")
        return [url.split("?")[0].rsplit("/", 1)[-1] for url in urls]

    def guest(self, server: dict, *command: str) -> str:
        """Run a command inside the server and return what it says."""
        return self._machine.lxd.lxc(
            "exec", "--project", self._project, self.name_of(server), "--", *command
        ).strip()

    def boot_time(self, server: dict) -> int:
        """Return when the server's first process started, in clock ticks of the host."""
        state = self._machine.get(
            f"/1.0/instances/{self.name_of(server)}/state?project={self._project}"
        )
        stat = Path(f"/proc/{state['pid']}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])

    def reaches(self, server: dict, address: str) -> bool:
        """Send a ping from inside the server and tell whether it is answered."""
        ping = f"ping -c 1 -W 2 {address} >&2; echo $?"
        # On a busy machine LXD 5.0.2 loses, now and then, what a command said.
        return wait_for(lambda: self.guest(server, "sh", "-c", ping), "the end of a ping") == "0"

    def boots_from_inside(self, server: dict) -> None:
        """Let the guest reboot itself, and wait until it has."""
        before = self.boot_time(server)
        with contextlib.suppress(AioError):
            # It can end the session that asks for it, too.
            self.guest(server, "reboot")

        def rebooted() -> bool:
            with contextlib.suppress(OSError):
                return self.boot_time(server) != before
            return False

        wait_for(rebooted, "the guest to reboot")

    def assert_nothing_on_host(self, *, promised: Sequence[str] = ()) -> None:
        """Check that no trace of any server is left, but profiles that a build was promised."""
        assert self.lxd_names("instances") == []
        assert {"default", *promised} >= set(self.lxd_names("profiles"))
        assert self._machine.our_links() == ()
        assert [p.name for p in self._ovs_ports() if p.name != BRIDGE] == []

    # -- the proof

    def violations(self) -> list[invariants.Violation]:
        """Compare the host with what Nova's API says now."""
        return invariants.check(self._expected(), self._facts())

    def assert_clean(self) -> None:
        """Check the invariants; power states and wires get a moment to settle."""
        deadline = time.monotonic() + 20
        while found := self.violations():
            if time.monotonic() > deadline:
                raise AssertionError(
                    "\n".join(["the host is not as it should be:", *map(str, found)])
                )
            time.sleep(0.2)

    def _prove_clean(self) -> None:
        """What every test ends with: the host is right with its servers, and without them."""
        if self._proven:
            return
        self._proven = True
        self.assert_clean()
        present = [id_ for id_ in self._servers if self._exists(id_)]
        for id_ in present:
            self.api.delete_server(id_)
        for id_ in present:
            self.wait_gone(id_)
        self.assert_clean()
        self.assert_nothing_on_host()

    def _exists(self, server_id: str) -> bool:
        return bool(self._find(server_id))

    def _present(self) -> list[dict]:
        """Read the servers that there are; one that is soft-deleted is in no list of the API."""
        return [server for id_ in self._servers if (server := self._find(id_))]

    def _find(self, server_id: str) -> dict | None:
        try:
            return self.api.get_server(server_id)
        except api_client.OpenStackApiNotFoundException:
            return None

    def _expected(self) -> invariants.Expected:
        pool = CONF.lxd.pool
        return invariants.Expected(
            project=self._project,
            servers=tuple(self._expected_server(server) for server in self._present()),
            integration_bridge=BRIDGE,
            id_range=_host_ids(),
            enforces_disk_size=self._machine.get(f"/1.0/storage-pools/{pool}")["driver"] != "dir",
            foreign=self._foreign,
            log_allowed=(*_EXPECTED_LOG, *self._allowed_log),
        )

    def _expected_server(self, server: dict) -> invariants.ExpectedServer:
        flavor = server["flavor"]
        power = server["OS-EXT-STS:power_state"]
        built = server["status"] not in ("ERROR", "BUILD", "SHELVED_OFFLOADED")
        ports = self.neutron.ports_of(server["id"]) if built else []
        return invariants.ExpectedServer(
            name=self.name_of(server),
            uuid=server["id"],
            memory_mb=flavor["ram"],
            vcpus=flavor["vcpus"],
            root_gb=flavor["disk"],
            status=POWER.get(power, "") if built else "",
            built=built,
            privileged=flavor["extra_specs"].get("lxd:privileged_allowed") == "true",
            ports=tuple(self._expected_port(port) for port in ports),
            rescued=server["status"] == "RESCUE",
        )

    def _expected_port(self, port: dict) -> invariants.ExpectedPort:
        mtu = self.neutron.network_1["mtu"]
        hybrid = port["binding:vif_details"].get("ovs_hybrid_plug", False)
        return invariants.ExpectedPort(port["id"], port["mac_address"], mtu, hybrid)

    def _facts(self) -> invariants.Facts:
        get = self._machine.get
        instances_path = Path(CONF.instances_path)
        return invariants.Facts(
            instances=gather.instances(get, self._project),
            objects=gather.objects(get, self._project),
            images=gather.images(get, self._project),
            links=self._machine.our_links(),
            ovs_ports=self._ovs_ports(),
            mounts=gather.mounts([instances_path]),
            loops=gather.loops([instances_path]),
            files=gather.files(instances_path),
            instances_path=str(instances_path),
            placement=self._placement_facts(),
            log_errors=self._log_errors(),
            foreign=gather.foreign(get, self._project),
        )

    def _ovs_ports(self):
        return gather.ovs_ports(self._machine.ovs.db)

    def _placement_facts(self):
        provider = self._get_provider_uuid_by_host(HOST)
        inventory = self._get_provider_inventory(provider)
        held = self._get_allocations_by_provider_uuid(provider)
        resources = self._machine.get("/1.0/resources")
        space = self._machine.get(f"/1.0/storage-pools/{CONF.lxd.pool}/resources")["space"]
        return invariants.PlacementFacts(
            inventory={name: values["total"] for name, values in inventory.items()},
            allocations={consumer: each["resources"] for consumer, each in held.items()},
            host=invariants.HostSize(
                cpus=resources["cpu"]["total"],
                memory_mb=resources["memory"]["total"] // 2**20,
                pool_gb=space["total"] // 2**30,
            ),
        )

    def _log_errors(self) -> tuple[str, ...]:
        lines = self.stdlog.logger.output.splitlines()
        return tuple(line for line in lines if _ERROR_LINE.match(line))

    # -- setting up

    def _lift_poison(self) -> None:
        """Let the code under test look at the real host: that is what this ring is for."""
        for name in _POISONS:
            self.useFixture(fixtures.MonkeyPatch(f"nova.tests.fixtures.{name}", fixtures.Fixture))
        ours = (privsep.net_admin, privsep.console)
        contexts = (*ours, vif_privsep.vif_plug, nova_privsep.sys_admin_pctxt)
        for context in contexts:
            self.useFixture(fixtures.MockPatchObject(context, "client_mode", False))

    def _configure(self) -> None:
        folder = self.useFixture(fixtures.TempDir()).path
        paste = Path(sys.prefix) / "etc/nova/api-paste.ini"
        self.flags(
            compute_driver="lxd.LXDDriver",
            instances_path=str(Path(folder) / "instances"),
            state_path=folder,
            shutdown_timeout=3,
        )
        # Nova's 64 threads for each service are a herd that a busy machine spends its time on.
        CONF.register_opts(dict(messaging_opts.list_opts())[None])
        self.flags(executor_thread_pool_size=16)
        self.flags(api_paste_config=str(paste), group="wsgi")
        self.flags(ovs_bridge=BRIDGE, group="neutron")
        self._flags_lxd()

    def _flags_lxd(self) -> None:
        import nova_lxd.virt.driver  # noqa: F401  registers the options

        socket = str(self._machine.lxd.socket)
        self.flags(endpoint=socket, project=self._project, pool=POOL, group="lxd")

    def _start_nova(self) -> None:
        self._servers: list[str] = []
        self._busybox = ""
        self.policy = self.useFixture(nova_fixtures.RealPolicyFixture())
        self.neutron = self.useFixture(self._make_neutron())
        self.flags(vif_plugging_timeout=DEADLINE, vif_plugging_is_fatal=True)
        self.glance = self.useFixture(self.glance_fixture(self))
        self.useFixture(nova_fixtures.CinderFixture(self))
        self.placement = self.useFixture(functional_fixtures.PlacementFixture()).api
        self.useFixture(nova_fixtures.AllServicesCurrent())
        self.notifier = self.useFixture(nova_fixtures.NotificationFixture(self))
        self.api_fixture = self.useFixture(nova_fixtures.OSAPIFixture(api_version="v2.1"))
        self.api = self.admin_api = self.api_fixture.admin_api
        self.api.microversion = self.microversion
        self.start_service("conductor")
        self.start_service("scheduler")

    def _make_neutron(self) -> NeutronFixture:
        neutron = NeutronFixture(self)
        neutron.vif_details["ovs_hybrid_plug"] = self.hybrid
        neutron.vif_details["datapath_type"] = self._machine.ovs.datapath
        return neutron

    def _start_agent(self) -> None:
        send = self.admin_api.create_server_external_events
        self.agent = Agent(self._wired_ports, self.neutron, send)
        self.agent.start()
        self.addCleanup(self.agent.stop)

    def _wired_ports(self) -> set[str]:
        return plugged(self._machine.ovs.db)


def _host_ids() -> IdRange:
    """Return the ids that the host gives to root's containers."""
    for line in Path("/etc/subuid").read_text().splitlines():
        name, base, size = line.split(":")
        if name == "root":
            return IdRange(int(base), int(size))
    raise AssertionError("/etc/subuid has no line for root")
