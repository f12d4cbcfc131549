"""Neutron's agent keeps a QoS policy on a server's port, whatever the driver does to it."""

from __future__ import annotations

import subprocess

from aio.process import wait_until
from aio.tenant import SECONDS

KBIT = 3000


def classes(settings, port):
    """Return the traffic classes of the port's device in Open vSwitch."""
    prefix = "tap" if settings.choices.firewall == "openvswitch" else "qvo"
    show = ["tc", "class", "show", "dev", f"{prefix}{port['id'][:11]}"]
    return subprocess.run(show, capture_output=True, text=True, check=True).stdout


def test_what_a_server_may_receive(settings, world, web, tenant):
    """The kernel here has no policer, which the agent needs for what a server may send."""
    policy = tenant.make("neutron", "/qos/policies", "policy", {"name": "ring-slow"})
    rules = f"/qos/policies/{policy['id']}/bandwidth_limit_rules"
    rule = {"max_kbps": KBIT, "max_burst_kbps": KBIT, "direction": "ingress"}
    tenant.api.post("neutron", rules, {"bandwidth_limit_rule": rule})
    front = world.front["id"]
    port = next(port for port in tenant.ports(web.server) if port["network_id"] == front)
    path = f"/ports/{port['id']}"
    tenant.api.request("PUT", "neutron", path, {"port": {"qos_policy_id": policy["id"]}})
    try:
        limit = f"ceil {KBIT // 1000}Mbit"
        wait_until(lambda: limit in classes(settings, port), SECONDS, "the limit")
        tenant.act(web.server, "reboot", {"type": "SOFT"})
        tenant.wait(web.server)
        web.wait_for_ssh()
        wait_until(lambda: limit in classes(settings, port), SECONDS, "the limit after a reboot")
    finally:
        tenant.api.request("PUT", "neutron", path, {"port": {"qos_policy_id": None}})
    wait_until(lambda: limit not in classes(settings, port), SECONDS, "the limit to go")
