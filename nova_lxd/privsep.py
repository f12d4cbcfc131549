"""The few root actions that neither LXD nor os-vif takes for us.

They run in a privsep daemon that holds CAP_NET_ADMIN alone; ``[nova_lxd_privileged]helper_command``
says how it is started.
"""

from __future__ import annotations

import os.path

from oslo_concurrency import processutils
from oslo_privsep import capabilities, priv_context

net_admin = priv_context.PrivContext(
    "nova_lxd",
    cfg_section="nova_lxd_privileged",
    pypath=__name__ + ".net_admin",
    capabilities=[capabilities.CAP_NET_ADMIN],
)


@net_admin.entrypoint  # type: ignore[untyped-decorator]
def disable_ipv6(devices: list[str]) -> None:
    """Keep the host's IPv6 stack off these devices.

    A link-local address of the host on a server's wire would let the server reach the host past
    every security group (OSSN-0069).
    """
    for device in devices:
        path = f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6"
        if os.path.exists(path):
            with open(path, "w") as switch:
                switch.write("1")


@net_admin.entrypoint  # type: ignore[untyped-decorator]
def disable_tx_checksum(device: str) -> None:
    """Let the kernel finish the checksums of what leaves through ``device``.

    The userspace datapath of Open vSwitch (``datapath_type=netdev``) forwards unfinished ones: DHCP
    works and TCP hangs.

    :raises ProcessExecutionError: ethtool failed; OSError: it is not installed
    """
    processutils.execute("ethtool", "-K", device, "tx", "off")


@net_admin.entrypoint  # type: ignore[untyped-decorator]
def delete_link(device: str) -> None:
    """Delete a network device; the other end of a veth pair goes with it.

    :raises ProcessExecutionError: it cannot be deleted; OSError: iproute2 is not installed
    """
    processutils.execute("ip", "link", "delete", "dev", device)
