"""``aio demo``: one story, told with the commands that a user would type and what they answer."""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from aio.errors import AioError
from aio.process import wait_until
from aio.settings import DEFAULT_STATE, Settings
from aio.tenant import SECONDS, Tenant
from aio.terminal import Terminal
from aio.traces import Traces, difference, traces

SERVERS = ("demo-1", "demo-2", "demo-3")
ADDRESS = "demo-address"  # a floating IP has no name, only a description
NETWORK, SUBNET, ROUTER, GROUP, KEY = (
    "demo-net",
    "demo-subnet",
    "demo-router",
    "demo-ssh",
    "demo-key",
)
FLAVOR = "m1.micro"
READY = "boot finished, ssh is ready"
USER_DATA = """\
#!/bin/sh
echo "This line was written by user data on $(hostname)." > /etc/motd
"""


class Story:
    """The chapters, in order; each takes what the earlier ones made from the object."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.state / "demo"
        self.terminal = Terminal(settings, self.folder)
        self.tenant = Tenant(settings)
        self.address = ""
        self.seconds: dict[str, float] = {}

    def prepare(self) -> None:
        """Remove what an earlier run left, and write the files that the story uses."""
        sweep(self.tenant)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        (self.folder / KEY).unlink(missing_ok=True)
        (self.folder / "user-data").write_text(USER_DATA)

    def hypervisor(self) -> None:
        """Nova's view of the host."""
        self.terminal.say("Nova knows one hypervisor. Its type is lxd.")
        self.terminal.type(
            "openstack hypervisor list -c ID -c 'Hypervisor Hostname' -c 'Hypervisor Type' -c State"
        )
        self.terminal.type("openstack image list --long -c Name -c 'Disk Format' -c Size -c Status")

    def network(self) -> None:
        """A tenant network behind a router."""
        self.terminal.say(
            "A tenant makes a network, and a router between it and the external network 'public'."
        )
        self.terminal.type("openstack network list --external")
        self.terminal.type(f"openstack network create {NETWORK} -c name -c mtu -c status")
        self.terminal.type(
            f"openstack subnet create {SUBNET} --network {NETWORK} --subnet-range 10.20.0.0/24 "
            "-c cidr -c gateway_ip -c allocation_pools"
        )
        self.terminal.type(
            f"openstack router create {ROUTER} --external-gateway public -c name -c status"
        )
        self.terminal.type(f"openstack router add subnet {ROUTER} {SUBNET}")

    def access(self) -> None:
        """Security group and key."""
        self.terminal.say(
            "A security group, so far without a rule that lets anything in; and a key."
        )
        self.terminal.type(f"openstack security group create {GROUP} -c name -c stateful")
        self.terminal.type(
            f"openstack keypair create --private-key {KEY} {KEY} -c name -c fingerprint && "
            f"chmod 600 {KEY}"
        )

    def boot(self) -> None:
        """Three servers at once."""
        self.terminal.say("Three servers with one request.")
        self.terminal.type(
            f"openstack server create --image busybox --flavor {FLAVOR} --network {NETWORK} "
            f"--security-group {GROUP} --key-name {KEY} --user-data user-data "
            "--min 3 --max 3 demo -c name -c status"
        )
        began = time.monotonic()
        for name in SERVERS:
            self.tenant.wait(self._id(name))
        self.seconds["three servers ACTIVE after the request"] = time.monotonic() - began
        for name in SERVERS:
            self._wait_for_console(name)
        self.seconds["three servers ready for ssh"] = time.monotonic() - began
        self.terminal.type(
            "openstack server list --name demo -c Name -c Status -c Networks -c Flavor"
        )

    def containers(self) -> None:
        """LXD's view of the same servers."""
        self.terminal.say(
            "On the host they are LXD containers, in the LXD project 'nova' and unprivileged. The "
            "flavor became a profile, which servers of the same flavor share."
        )
        self.terminal.type("lxc list --project nova -c ns4tm")
        self.terminal.type("lxc profile list --project nova")

    def wiring(self) -> None:
        """From the container's eth0 to Open vSwitch."""
        self.terminal.say(
            "The way of a packet: eth0 of the container is tapX on the host; tapX and qvbX are "
            "ports of the bridge qbrX, where the security group filters; qvbX-qvoX is a veth pair, "
            "and qvoX is a port of br-int, where Neutron's agent gave it the network's tag."
        )
        port = self.tenant.ports(self._id(SERVERS[0]))[0]["id"][:11]
        self.terminal.type(f"bridge link show | grep {port}")
        self.terminal.type(f"ovs-vsctl show | grep -A 2 qvo{port}")
        self.terminal.type(f"ovs-vsctl --columns=external_ids list Interface qvo{port}")

    def reach(self) -> None:
        """A floating IP: closed, then open."""
        self.terminal.say("A floating IP for the first server.")
        create = f"openstack floating ip create public --description {ADDRESS}"
        self.address = self.terminal.value(f"{create} -c floating_ip_address -f value")
        self.terminal.type(f"openstack server add floating ip {SERVERS[0]} {self.address}")
        self.terminal.say("The security group lets nothing in, so this must fail:")
        self.terminal.type(f"ping -c 2 -W 2 {self.address}", fails=True)
        self.terminal.say("Now the rules, and the same again:")
        for rule in ("--protocol icmp", "--protocol tcp --dst-port 22"):
            self.terminal.type(
                f"openstack security group rule create {rule} {GROUP} -c protocol -c port_range_min"
            )
        self._wait_until_open()
        self.terminal.type(f"ping -c 3 {self.address}")

    def login(self) -> None:
        """SSH with the key."""
        self.terminal.say("SSH with the key that the server read from Nova's metadata service:")
        self.terminal.type(
            f"{self.ssh()} 'hostname; cat /etc/motd; . /etc/os-release; echo $PRETTY_NAME; "
            "ip -4 -o address show eth0; ip route; id'"
        )

    def console(self) -> None:
        """What the server said while it booted."""
        self.terminal.type(f"openstack console log show {SERVERS[0]}")

    def delete(self, before: Traces) -> None:
        """Everything goes, and nothing stays."""
        self.terminal.say("Everything that was made is deleted.")
        began = time.monotonic()
        self.terminal.type(f"openstack server delete --wait {' '.join(SERVERS)}")
        self.seconds["three servers deleted"] = time.monotonic() - began
        self.terminal.type("lxc list --project nova")
        self.terminal.say("Floating IP, router, network, group and key go through the API.")
        sweep(self.tenant)
        self.terminal.say(
            "The host before and after: containers, profiles, network devices and namespaces, Open "
            "vSwitch ports, files of instances, firewall chains."
        )
        prove_clean(self.settings, before)

    def ssh(self, key: str | Path = KEY) -> str:
        """Return the command that reaches the first server."""
        options = "-q -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        return f"ssh -i {key} {options} root@{self.address}"

    def _id(self, name: str) -> str:
        found = self.tenant.api.find("nova", "/servers", name)
        if not found:
            raise AioError(f"there is no server {name}")
        return str(found["id"])

    def _wait_for_console(self, name: str) -> None:
        server = self._id(name)
        wait_until(
            lambda: READY in self.tenant.console(server),
            SECONDS,
            f"'{READY}' on the console of {name}",
            interval=0.5,
            log=lambda: self.tenant.console(server),
        )

    def _wait_until_open(self) -> None:
        def answers() -> bool:
            ping = ["ping", "-c", "1", "-W", "1", self.address]
            return not subprocess.run(ping, capture_output=True, check=False).returncode

        wait_until(answers, SECONDS, f"{self.address} to answer a ping")


def sweep(tenant: Tenant) -> None:
    """Delete all that the story makes, by name; what is not there is no error."""
    api = tenant.api
    group = api.find("neutron", "/security-groups", GROUP)
    servers = [item for item in api.get("nova", "/servers")["servers"] if item["name"] in SERVERS]
    network = api.find("neutron", "/networks", NETWORK)
    router = api.find("neutron", "/routers", ROUTER)
    for address in api.get("neutron", f"/floatingips?description={ADDRESS}")["floatingips"]:
        tenant.delete("neutron", "/floatingips", address["id"])
    for server in servers:
        tenant.delete("nova", "/servers", server["id"])
    for server in servers:
        tenant.remove(server["id"])
    if router:
        _detach(tenant, router["id"])
        tenant.delete("neutron", "/routers", router["id"])
    if network:
        tenant.delete("neutron", "/networks", network["id"])
    if group:
        tenant.delete("neutron", "/security-groups", group["id"])
    tenant.delete("nova", "/os-keypairs", KEY)


def _detach(tenant: Tenant, router: str) -> None:
    """Pull every leg of a router but the one in the public network."""
    path = f"/ports?device_id={router}&device_owner=network:router_interface"
    for port in tenant.api.get("neutron", path)["ports"]:
        body = {"port_id": port["id"]}
        tenant.api.request("PUT", "neutron", f"/routers/{router}/remove_router_interface", body)


def prove_clean(settings: Settings, before: Traces) -> None:
    """Wait until the host holds no more than ``before``; print the comparison."""
    left: list[str] = []

    def clean() -> bool:
        left[:] = difference(before, traces(settings))
        return not left

    wait_until(clean, SECONDS, "the host to be as before", interval=1, log=lambda: "\n".join(left))
    for kind, names in before.items():
        print(f"    {kind:<24} {len(names):3} before, nothing added")


def tell(story: Story, keep: bool) -> None:
    """Tell the story; whatever happens, remove what it made unless ``keep``."""
    story.prepare()
    before = traces(story.settings)
    chapters: list[tuple[str, Callable[[], None]]] = [
        ("The hypervisor", story.hypervisor),
        ("A network", story.network),
        ("Security group and key", story.access),
        ("Three servers at once", story.boot),
        ("What they are on the host", story.containers),
        ("How they are wired", story.wiring),
        ("A floating IP", story.reach),
        ("Inside", story.login),
        ("The console", story.console),
    ]
    if not keep:
        chapters.append(("Deletion", lambda: story.delete(before)))
    try:
        for number, (title, chapter) in enumerate(chapters, 1):
            story.terminal.title(f"{number}. {title}")
            chapter()
    except BaseException:
        if not keep:
            print("\n# It failed; removing what was made.", flush=True)
            sweep(story.tenant)
        raise


def main(settings: Settings, argv: Sequence[str]) -> int:
    """Bring the cloud up, then show what it does."""
    from aio import cli

    parser = argparse.ArgumentParser(prog="aio demo", description=main.__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the servers running")
    keep = parser.parse_args(argv).keep
    began = time.monotonic()
    cli.up(settings)
    story = Story(settings)
    story.seconds["the cloud up"] = time.monotonic() - began
    tell(story, keep)
    story.seconds["all of it"] = time.monotonic() - began
    story.terminal.title("Summary")
    for what, seconds in story.seconds.items():
        print(f"    {what:<44} {seconds:6.1f} s")
    print(_next(story, keep))
    return 0


def _next(story: Story, keep: bool) -> str:
    state = story.settings.state
    aio = "python3 aio" if state == Path(DEFAULT_STATE) else f"python3 aio --state {state}"
    commands = [
        f'eval "$({aio} env)"',
        "openstack server list; lxc list",
        story.ssh(story.folder / KEY) if keep else f"{aio} demo --keep      # leaves the servers",
        f"{aio} status",
        f"{aio} test cloud",
        f"{aio} down",
    ]
    return "\nNext:\n" + "\n".join(f"    {command}" for command in commands)
