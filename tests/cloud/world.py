"""What the servers of this ring share: made once, taken away at the end."""

from __future__ import annotations

import base64
import subprocess
import uuid
from pathlib import Path

from aio.process import wait_until
from aio.settings import Settings
from aio.tenant import SECONDS, Json, Tenant
from tests.cloud.guest import Guest

READY = "boot finished, ssh is ready"
MTU = 1400  # not the default, so that a test can tell that it arrived
USER_DATA = """\
#!/bin/sh
echo "ran on $(hostname)" >> /root/user-data-ran
"""


class World:
    """Two networks behind a router, a key, a flavor, and the server most tests look at."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.tenant = Tenant(settings)
        self.key = folder / "key"
        self.other_key = folder / "other"
        # These names are unique in a cloud, and a killed run leaves its own behind.
        self.name = f"ring-{uuid.uuid4().hex[:8]}"
        self._web: Guest | None = None

    def build(self) -> None:
        """Make what all servers need."""
        for key in (self.key, self.other_key):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
            subprocess.run(command, check=True)
        tenant = self.tenant
        self.front = tenant.network("ring-front", "10.30.0.0/24", mtu=MTU)
        self.back = tenant.network("ring-back", "10.31.0.0/24")
        tenant.router(self.name, [*self.front["subnets"], *self.back["subnets"]])
        self.flavor = tenant.flavor(self.name)["id"]
        tenant.keypair(self.name, self.key.with_suffix(".pub").read_text().strip())
        self.open_group = tenant.group("ring-open")
        tenant.allow(self.open_group["id"], "icmp")
        tenant.allow(self.open_group["id"], "tcp", 22)

    def take_down(self) -> list[str]:
        """Remove it all; return what could not be removed."""
        return self.tenant.take_down()

    def tenant_of_one_test(self) -> Tenant:
        """Return a tenant with an undo of its own, for what one test makes."""
        return Tenant(self.settings, self.tenant.api)

    def web(self) -> Guest:
        """Return the shared server, booted anew when it cannot be reached."""
        if self._web and not self._web.lets_in():
            self.tenant.remove(self._web.server)
            self._web = None
        if not self._web:
            group = self.open_group
            self._web = self.guest(self.tenant, self.boot(self.tenant, "ring-web", group=group))
            self._web.wait_for_ssh()
        return self._web

    def boot(
        self, tenant: Tenant, name: str, *, group: Json, nets: list[Json] | None = None
    ) -> Json:
        """Boot a server with the key and user data, wait until it has booted, and return it."""
        networks = [{"uuid": network["id"]} for network in nets or [self.front]]
        made = tenant.boot(
            name,
            self.flavor,
            networks,
            key_name=self.name,
            security_groups=[{"name": group["id"]}],
            user_data=base64.b64encode(USER_DATA.encode()).decode(),
        )
        server = tenant.wait(made["id"])
        self.wait_booted(tenant, made["id"])
        return server

    def wait_booted(self, tenant: Tenant, server: str) -> None:
        """Wait until the console says that the guest is ready."""
        wait_until(
            lambda: READY in tenant.console(server),
            SECONDS,
            f"server {server} to say '{READY}' on its console",
            interval=0.5,
            log=lambda: tenant.console(server),
        )

    def guest(self, tenant: Tenant, server: Json) -> Guest:
        """Give a server a floating IP on its port in the front network, and the way in."""
        front = self.front["id"]
        port = next(p for p in tenant.ports(server["id"]) if p["network_id"] == front)
        return Guest(server["id"], tenant.floating_ip(port["id"]), self.key)
