"""What befalls a host, and for how long one server does not reach another.

Run as root against a running cloud that nobody else uses::

    eval "$(python3 aio env)"; python benchmarks/outages.py

One server pings another five times a second while a daemon is restarted, the other server reboots
itself, or the host goes down: its servers, daemons and network devices end, and come back as they
do at a boot with ``resume_guests_state_on_host_boot``.  Nobody helps.  Prints how long no answer
came and what Neutron says of the ports then, writes benchmarks/results/outages-FIREWALL.json and
ends with status 1 when connectivity did not come back or a port is not ACTIVE.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aio import host, kernel
from aio.cloud import Cloud
from aio.process import SERVICE, environment, kill, owned_by, wait_until
from aio.services import neutron, nova
from aio.services.base import Service
from aio.settings import DEFAULT_STATE, Settings
from aio.tenant import Tenant
from nova_lxd.invariants import gather

NAME = "bench-outage"
DEADLINE = 300.0
"""Seconds until a server that does not answer is given up."""
STEADY = 3.0
"""Seconds of answers after which it is taken to be back."""
INTERVAL = 0.2
_ANSWER = re.compile(r"^\[(\d+\.\d+)\] \d+ bytes from ", re.MULTILINE)
_DEVICE = re.compile(r"(qbr|qvb|qvo|tap|tin)[0-9a-f]{8}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Pair:
    """Two servers: LXD's names, and the address and port of the second one."""

    first: str
    second: str
    address: str
    ports: tuple[str, str]


class Pinger:
    """Asks the second server from within the first one's network."""

    def __init__(self, pid: int, address: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- stop closes it
        ping = ["ping", "-n", "-D", "-i", str(INTERVAL), address]
        command = ["nsenter", "--target", str(pid), "--net", *ping]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.DEVNULL)

    def answers(self) -> list[float]:
        """Return when answers came, in seconds since the epoch."""
        self._log.seek(0)
        return [float(found) for found in _ANSWER.findall(self._log.read())]

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


class Outages:
    """Lets things happen to a host."""

    def __init__(self, settings: Settings) -> None:
        self.cloud = Cloud(settings)
        self.tenant = Tenant(settings)

    def build(self) -> Pair:
        """Make two servers that may ping each other."""
        tenant = self.tenant
        flavor, network = tenant.flavor(NAME)["id"], tenant.network(NAME, "10.97.0.0/24")["id"]
        group = tenant.group(NAME)["id"]
        tenant.allow(group, "icmp")
        names, ports = [], []
        for _ in range(2):
            groups = [{"name": group}]
            made = tenant.boot(NAME, flavor, [{"uuid": network}], security_groups=groups)
            server = tenant.wait(made["id"])
            names.append(server["OS-EXT-SRV-ATTR:instance_name"])
            (port,) = tenant.ports(made["id"])
            ports.append(port)
        address = ports[1]["fixed_ips"][0]["ip_address"]
        return Pair(names[0], names[1], address, (ports[0]["id"], ports[1]["id"]))

    def pid(self, name: str) -> int:
        """Return the host's id of a server's first process."""
        path = f"/1.0/instances/{name}/state?project={self.cloud.settings.lxd_project}"
        get = gather.lxd(str(self.cloud.settings.lxd / "unix.socket"))
        return int(get(path)["pid"])

    def port_states(self, pair: Pair) -> list[str]:
        """Return what Neutron says of both ports."""
        api = self.tenant.api
        return [api.get("neutron", f"/ports/{port}")["port"]["status"] for port in pair.ports]

    def restart(self, *services: Service) -> None:
        """Stop and start services."""
        units = [self.cloud.unit(service) for service in services]
        for unit in units:
            unit.stop()
        for unit in units:
            unit.start()
        for unit in units:
            unit.wait()

    def restart_lxd(self) -> None:
        """Stop and start LXD; containers go on."""
        self.cloud.lxd.stop()
        self.cloud.lxd.start()

    def restart_ovs(self) -> None:
        """Stop and start Open vSwitch."""
        self.cloud.ovs.stop()
        self.cloud.ovs.start()

    def reboot_guest(self, pair: Pair) -> None:
        """Let the second server reboot itself."""
        project = self.cloud.settings.lxd_project
        self.cloud.lxd.lxc("exec", "--project", project, pair.second, "--", "reboot")

    def reboot_host(self, pair: Pair) -> None:
        """Take away what a reboot takes away, and start the daemons again."""
        agents = (neutron.OPENVSWITCH, neutron.DHCP, neutron.L3)
        project = self.cloud.settings.lxd_project
        self.resume_guests()
        for service in (nova.COMPUTE, *agents):
            self.cloud.unit(service).stop()
        self.cloud.lxd.lxc("stop", "--force", "--project", project, pair.first, pair.second)
        self.cloud.lxd.stop()
        self.cloud.ovs.stop()
        kill(self.servants(agents))
        host.remove_namespaces()
        for link in gather.links():
            if _DEVICE.fullmatch(link.name):
                kernel.delete_link(link.name)
        self.cloud.ovs.start()
        self.cloud.lxd.start()
        self.restart(*agents, nova.COMPUTE)

    def servants(self, agents: tuple[Service, ...]) -> list[int]:
        """Find what agents started that outlives them: dnsmasq, proxies."""
        names = {agent.name for agent in agents}
        ours = owned_by(str(self.cloud.settings.state))
        return [pid for pid in ours if environment(pid).get(SERVICE) in names]

    def resume_guests(self) -> None:
        """Let nova-compute start the servers that ran."""
        path = self.cloud.settings.etc / "compute" / "nova-compute.conf"
        text = path.read_text()
        wanted = "[DEFAULT]\nresume_guests_state_on_host_boot = true\n"
        if wanted not in text:
            path.write_text(text.replace("[DEFAULT]\n", wanted, 1))


def outage(pinger: Pinger, event: Callable[[], None]) -> float:
    """Let it happen, and return for how many seconds no answer came."""
    wait_until(pinger.answers, DEADLINE, "the first answer")
    began = time.time()
    event()
    happened = time.time()

    def back() -> bool:
        recent = [at for at in pinger.answers() if at > max(happened, time.time() - STEADY)]
        return len(recent) >= 0.8 * STEADY / INTERVAL

    wait_until(back, DEADLINE, "the server to answer again", interval=INTERVAL)
    times = [at for at in pinger.answers() if at > began - 2 * INTERVAL]
    return max(later - earlier for earlier, later in itertools.pairwise(times)) - INTERVAL


def main() -> int:
    """Measure one outage after the other."""
    settings = Settings(state=Path(os.environ.get("NOVA_LXD_AIO_STATE", DEFAULT_STATE)))
    outages = Outages(settings)
    rows: dict[str, dict[str, Any]] = {}
    try:
        pair = outages.build()
        events: dict[str, Callable[[], None]] = {
            "nothing": lambda: time.sleep(5),
            "reboot from inside": lambda: outages.reboot_guest(pair),
            "nova-compute restarts": lambda: outages.restart(nova.COMPUTE),
            "LXD restarts": outages.restart_lxd,
            "the L2 agent restarts": lambda: outages.restart(neutron.OPENVSWITCH),
            "Open vSwitch restarts": outages.restart_ovs,
        }
        for name, event in events.items():
            pinger = Pinger(outages.pid(pair.first), pair.address)
            try:
                seconds = round(max(0.0, outage(pinger, event)), 1)
            finally:
                pinger.stop()
            rows[name] = {"seconds": seconds, "ports": outages.port_states(pair)}
            print(f"{name:25} {seconds:6.1f} s  {rows[name]['ports']}", flush=True)
        rows["the host reboots"] = _host_reboot(outages, pair)
        print("the host reboots", rows["the host reboots"], flush=True)
    finally:
        problems = outages.tenant.take_down()
    firewall = settings.choices.firewall
    report = {"firewall": firewall, "outages": rows, "problems": problems}
    results = Path(__file__).parent / "results" / f"outages-{firewall}.json"
    results.write_text(json.dumps(report, indent=1) + "\n")
    wrong = [name for name, row in rows.items() if set(row["ports"]) != {"ACTIVE"}]
    return 1 if wrong or problems else 0


def _host_reboot(outages: Outages, pair: Pair) -> dict[str, Any]:
    """Measure from when nova-compute is up again: what the daemons before it take is theirs."""
    outages.reboot_host(pair)
    began = time.monotonic()

    def runs() -> bool:
        return outages.pid(pair.first) > 0 and outages.pid(pair.second) > 0

    wait_until(runs, DEADLINE, "both servers to run")
    pinger = Pinger(outages.pid(pair.first), pair.address)
    try:
        wait_until(pinger.answers, DEADLINE, "the first answer", interval=INTERVAL)
    finally:
        pinger.stop()
    seconds = round(time.monotonic() - began, 1)
    wait_until(lambda: set(outages.port_states(pair)) == {"ACTIVE"}, DEADLINE, "ACTIVE ports")
    return {"seconds": seconds, "ports": outages.port_states(pair)}


if __name__ == "__main__":
    sys.exit(main())
