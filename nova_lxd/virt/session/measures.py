"""What instances use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nova_lxd.virt.model import NicUsage, Usage
from nova_lxd.virt.session.transport import Transport


class Measures(Transport):
    """Reads what LXD counts."""

    def usage(self, name: str) -> Usage:
        """Measure a running instance; LXD starts a process for it (40 ms)."""
        return _usage(self.get("instances", name, "state"))


def _usage(state: Mapping[str, Any]) -> Usage:
    root = (state.get("disk") or {}).get("root") or {}
    nics = (state.get("network") or {}).values()
    return Usage(
        status=state["status"],
        cpu_ns=int(state["cpu"]["usage"]),
        memory_bytes=int(state["memory"]["usage"]),
        disk_bytes=int(root["usage"]) if "usage" in root else None,
        nics=tuple(_nic_usage(nic) for nic in nics if nic.get("hwaddr")),
    )


def _nic_usage(nic: Mapping[str, Any]) -> NicUsage:
    counters = nic["counters"]
    return NicUsage(
        mac=nic["hwaddr"],
        rx_octets=counters["bytes_received"],
        rx_packets=counters["packets_received"],
        rx_errors=counters.get("errors_received", 0),
        rx_drop=counters.get("packets_dropped_inbound", 0),
        tx_octets=counters["bytes_sent"],
        tx_packets=counters["packets_sent"],
        tx_errors=counters.get("errors_sent", 0),
        tx_drop=counters.get("packets_dropped_outbound", 0),
    )
