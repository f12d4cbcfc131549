"""Neutron for the tests with OVN: Nova's fixture, with ports that are OVN's too."""

from __future__ import annotations

from tests.functional.neutron import NeutronFixture
from tests.functional.ovn import OvnDaemons

SWITCH = "neutron-test"
ALL, OPEN = "neutron_pg_drop", "pg_ping"
"""Port groups: all ports have port security."""
_RULES = (
    (ALL, "from-lport", "1000", f"inport == @{ALL} && ip", "drop"),
    (ALL, "to-lport", "1000", f"outport == @{ALL} && ip", "drop"),
    (ALL, "from-lport", "1002", f"inport == @{ALL} && ip4", "allow-related"),
    (OPEN, "to-lport", "1002", f"outport == @{OPEN} && ip4 && icmp4", "allow-related"),
)
"""As neutron/common/ovn/acl.py makes them of security groups: the greater priority wins."""


class OvnNeutron(NeutronFixture):
    """Writes its ports into OVN's northbound database, as Neutron's OVN client does.

    One security group lets all ports out and nobody in, and :meth:`let_ping` opens some for ICMP.
    """

    def __init__(self, test, ovn: OvnDaemons) -> None:
        super().__init__(test)
        self._ovn = ovn
        self.vif_details = ovn.vif_details()
        ovn.nbctl("ls-add", SWITCH)
        dhcp = ("create", "DHCP_Options", "cidr=192.168.1.0/24", *self._dhcp())
        self._dhcp_id = ovn.nbctl(*dhcp)
        for group in (ALL, OPEN):
            ovn.nbctl("pg-add", group)
        for rule in _RULES:
            ovn.nbctl("--type=port-group", "acl-add", *rule)

    def _dhcp(self) -> list[str]:
        gateway = self.subnet_1["gateway_ip"]
        options = {
            "server_id": gateway,
            "server_mac": '"fa:16:3e:00:00:01"',
            "router": gateway,
            "lease_time": "43200",
            "mtu": str(self.network_1["mtu"]),
        }
        return [f"options:{key}={value}" for key, value in options.items()]

    def create_port(self, body=None):
        """Create a port and let OVN know it."""
        answer = super().create_port(body)
        port = answer["port"]
        port_id, addresses = port["id"], f"{port['mac_address']} {address_of(port)}"
        commands = (
            ("lsp-add", SWITCH, port_id),
            ("lsp-set-addresses", port_id, addresses),
            ("lsp-set-port-security", port_id, addresses),
            ("lsp-set-dhcpv4-options", port_id, self._dhcp_id),
        )
        self._ovn.nbctl(*(word for command in commands for word in ("--", *command)))
        self._ovn.nbctl("pg-set-ports", ALL, *self._ports)
        return answer

    def update_port(self, port_id, body=None):
        """Update a port; OVN wires it on the host that it is bound to, and nowhere else."""
        answer = super().update_port(port_id, body)
        port = "Logical_Switch_Port", port_id, "options"
        if host := answer["port"].get("binding:host_id"):
            self._ovn.nbctl("set", *port[:2], f"options:requested-chassis={host}")
        else:
            self._ovn.nbctl("remove", *port, "requested-chassis")
        return answer

    def delete_port(self, port_id, **params):
        """Delete a port, also in OVN."""
        super().delete_port(port_id, **params)
        self._ovn.nbctl("--if-exists", "lsp-del", port_id)

    def let_ping(self, *port_ids: str) -> None:
        """Open these ports, and no others, for ICMP from outside."""
        self._ovn.nbctl("clear", "Port_Group", OPEN, "ports")
        if port_ids:
            self._ovn.nbctl("pg-set-ports", OPEN, *port_ids)


def address_of(port: dict) -> str:
    """Return the one address of a port."""
    (fixed_ip,) = port["fixed_ips"]
    return fixed_ip["ip_address"]
