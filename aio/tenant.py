"""A tenant of the cloud: what it makes is remembered and taken away in reverse order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aio.api import Api, ApiError
from aio.errors import AioError
from aio.process import wait_until
from aio.settings import Settings

PUBLIC = "public"
IMAGE = "busybox"
SECONDS = 300.0  # most that anything may take, on a slow machine
GONE = 404
BUSY = 409

Json = dict[str, Any]


class Tenant:
    """Servers, networks and what belongs to them, through the APIs.

    ``take_down`` removes everything that was made through this object, and works on after the
    failure of one removal.
    """

    def __init__(self, settings: Settings, api: Api | None = None) -> None:
        self.settings = settings
        self.api = api or Api(settings)
        self._undo: list[tuple[str, Callable[[], object]]] = []

    # -- making and removing

    def make(self, service: str, path: str, kind: str, body: Json) -> Json:
        """Create one thing of ``kind`` and return it; ``take_down`` deletes it."""
        made: Json = self.api.post(service, path, {kind: body})[kind]
        name = made.get("id") or made["name"]
        self.later(f"{kind} {made.get('name', name)}", lambda: self.delete(service, path, name))
        return made

    def later(self, what: str, undo: Callable[[], object]) -> None:
        """Let ``take_down`` call ``undo``, before those that were given earlier."""
        self._undo.append((what, undo))

    def delete(self, service: str, path: str, name: str) -> None:
        """Delete one thing; being gone is success, being in use is asked again until it is not."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self.api.request("DELETE", service, f"{path}/{name}")
                return
            except ApiError as error:
                if error.status == GONE:
                    return
                if error.status != BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def take_down(self) -> list[str]:
        """Remove everything, the youngest first; return what could not be removed and why."""
        problems = []
        while self._undo:
            what, undo = self._undo.pop()
            try:
                undo()
            except AioError as error:
                problems.append(f"{what}: {error}")
        return problems

    # -- network

    def network(self, name: str, cidr: str, mtu: int | None = None) -> Json:
        """Make a network with one subnet; its answer has the subnet's id in ``subnets``."""
        wanted = {"name": name} | ({"mtu": mtu} if mtu else {})
        network = self.make("neutron", "/networks", "network", wanted)
        subnet = {"network_id": network["id"], "name": name, "ip_version": 4, "cidr": cidr}
        made = self.make("neutron", "/subnets", "subnet", subnet)
        return {**network, "subnets": [made["id"]]}

    def router(self, name: str, subnets: Sequence[str]) -> Json:
        """Make a router between ``subnets`` and the public network."""
        gateway = {"network_id": self.public()["id"]}
        wanted = {"name": name, "external_gateway_info": gateway}
        router = self.make("neutron", "/routers", "router", wanted)
        for subnet in subnets:
            self.attach_router(router["id"], subnet)
        return router

    def attach_router(self, router: str, subnet: str) -> None:
        """Give ``router`` a leg in ``subnet``."""
        body = {"subnet_id": subnet}
        path = f"/routers/{router}/%s_router_interface"
        self.api.request("PUT", "neutron", path % "add", body)

        def detach() -> None:
            with suppress_gone():
                self.api.request("PUT", "neutron", path % "remove", body)

        self.later(f"interface of router {router}", detach)

    def public(self) -> Json:
        """Return the public network that the cloud came up with."""
        found = self.api.find("neutron", "/networks", PUBLIC)
        if not found:
            raise AioError(f"the cloud has no network {PUBLIC!r}", hint="python3 aio up")
        return found

    def group(self, name: str) -> Json:
        """Make a security group that lets everything out and nothing in."""
        return self.make("neutron", "/security-groups", "security_group", {"name": name})

    def allow(self, group: str, protocol: str, port: int | None = None) -> Json:
        """Let ``protocol`` (``tcp``, ``icmp`` ...) in, from anywhere, on ``port`` if given."""
        rule = {
            "security_group_id": group,
            "direction": "ingress",
            "ethertype": "IPv4",
            "protocol": protocol,
            "port_range_min": port,
            "port_range_max": port,
        }
        return self.make("neutron", "/security-group-rules", "security_group_rule", rule)

    def ports(self, server: str) -> list[Json]:
        """Return the Neutron ports of a server."""
        ports: list[Json] = self.api.get("neutron", f"/ports?device_id={server}")["ports"]
        return ports

    def floating_ip(self, port: str) -> str:
        """Give a port an address of the public network and return it when it is in effect."""
        wanted = {"floating_network_id": self.public()["id"], "port_id": port}
        made = self.make("neutron", "/floatingips", "floatingip", wanted)
        path = f"/floatingips/{made['id']}"

        def active() -> bool:
            state = self.api.get("neutron", path)["floatingip"]["status"]
            return bool(state == "ACTIVE")

        wait_until(active, SECONDS, f"floating IP {made['floating_ip_address']} to be ACTIVE")
        return str(made["floating_ip_address"])

    # -- servers

    def flavor(self, name: str, extra_specs: Json | None = None, **size: Any) -> Json:
        """Make a flavor; by default one CPU, 128 MiB and 1 GiB of disk."""
        wanted = {"name": name, "vcpus": 1, "ram": 128, "disk": 1} | size
        flavor = self.make("nova", "/flavors", "flavor", wanted)
        if extra_specs:
            path = f"/flavors/{flavor['id']}/os-extra_specs"
            self.api.post("nova", path, {"extra_specs": extra_specs})
        return flavor

    def image(self, name: str = IMAGE) -> Json:
        """Return the image called ``name``."""
        found = self.api.find("glance", f"/images?name={name}", name)
        if not found:
            raise AioError(f"the cloud has no image {name!r}", hint=f"python3 aio image {name}")
        return found

    def keypair(self, name: str, public_key: str) -> Json:
        """Upload a public key."""
        wanted = {"name": name, "public_key": public_key, "type": "ssh"}
        made: Json = self.api.post("nova", "/os-keypairs", {"keypair": wanted})["keypair"]
        self.later(f"keypair {name}", lambda: self.delete("nova", "/os-keypairs", name))
        return made

    def boot(self, name: str, flavor: str, networks: Sequence[Json], **more: Any) -> Json:
        """Ask for a server, without waiting; ``networks`` as ``[{"uuid": ...}]``.

        ``more`` goes into the request: ``key_name``, ``user_data``, ``security_groups`` ... The
        image is busybox unless ``imageRef`` says otherwise. ``take_down`` deletes the server and
        waits until it is gone.
        """
        image = more.pop("imageRef", None) or self.image()["id"]
        wanted = {"name": name, "flavorRef": flavor, "imageRef": image, "networks": networks}
        server: Json = self.api.post("nova", "/servers", {"server": {**wanted, **more}})["server"]
        self.later(f"server {name}", lambda: self.remove(server["id"]))
        return server

    def server(self, server: str) -> Json:
        """Return a server as the API shows it."""
        found: Json = self.api.get("nova", f"/servers/{server}")["server"]
        return found

    def wait(self, server: str, status: str = "ACTIVE", seconds: float = SECONDS) -> Json:
        """Wait until a server is in ``status`` and idle; an unexpected ERROR raises its fault."""
        shown: Json = {}

        def there() -> bool:
            shown.update(self.server(server))
            if shown["status"] == "ERROR" != status:
                fault = shown.get("fault", {}).get("message", "no fault recorded")
                raise AioError(f"server {shown['name']} went to ERROR: {fault}")
            return shown["status"] == status and not shown["OS-EXT-STS:task_state"]

        wait_until(there, seconds, f"server {server} to be {status}", interval=0.3)
        return shown

    def act(self, server: str, action: str, argument: Any = None) -> Any:
        """Call a server's action: ``os-stop``, ``reboot``, ``pause`` ..."""
        return self.api.post("nova", f"/servers/{server}/action", {action: argument})

    def console(self, server: str) -> str:
        """Return what the server wrote to its console."""
        return str(self.act(server, "os-getConsoleOutput", {})["output"])

    def serial_url(self, server: str) -> str:
        """Return the address of a websocket that is the server's serial console."""
        wanted = {"remote_console": {"protocol": "serial", "type": "serial"}}
        made = self.api.post("nova", f"/servers/{server}/remote-consoles", wanted)
        return str(made["remote_console"]["url"])

    def remove(self, server: str, seconds: float = SECONDS) -> None:
        """Delete a server and wait until Nova and Neutron have forgotten it."""
        self.delete("nova", "/servers", server)
        wait_until(lambda: self._forgotten(server), seconds, f"server {server} to be deleted")

    def _forgotten(self, server: str) -> bool:
        with suppress_gone():
            self.server(server)
            return False
        return not self.ports(server)


@contextmanager
def suppress_gone() -> Iterator[None]:
    """Ignore the ApiError that says that the thing is not there, and nothing else."""
    try:
        yield
    except ApiError as error:
        if error.status != GONE:
            raise
