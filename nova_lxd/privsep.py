"""The few root actions that neither LXD nor os-vif takes for us.

They run in privsep daemons that hold one capability each: CAP_NET_ADMIN, and for serial consoles
CAP_SYS_PTRACE.  ``[nova_lxd_privileged]helper_command`` and the same of
``[nova_lxd_console_privileged]`` say how they are started.
"""

from __future__ import annotations

import os.path

from oslo_concurrency import processutils
from oslo_privsep import capabilities, comm, daemon, priv_context

from nova_lxd import exception, monitor

net_admin = priv_context.PrivContext(
    "nova_lxd",
    cfg_section="nova_lxd_privileged",
    pypath=__name__ + ".net_admin",
    capabilities=[capabilities.CAP_NET_ADMIN],
)

console = priv_context.PrivContext(
    "nova_lxd",
    cfg_section="nova_lxd_console_privileged",
    pypath=__name__ + ".console",
    capabilities=[capabilities.CAP_SYS_PTRACE],
)

ERRORS = (comm.PrivsepTimeout, daemon.FailedToDropPrivileges, OSError)
"""What a helper fails with that does not start, or has no answer."""


def start(context: priv_context.PrivContext) -> None:
    """Start a helper now, so that no tenant waits for it (1-2 s).

    :raises ConfigurationError: it does not start
    """
    if not context.client_mode or context.channel is not None:
        return
    try:
        context.start()
    except (daemon.FailedToDropPrivileges, OSError) as error:
        raise exception.ConfigurationError(
            f"[{context.cfg_section}]helper_command: the privileged helper does not start "
            f"({error}); see etc/nova/rootwrap.d/lxd.filters and the installation guide"
        ) from error


@net_admin.entrypoint  # type: ignore[untyped-decorator]
def disable_ipv6(devices: list[str]) -> None:
    """Keep the host's IPv6 stack off these devices.

    A link-local address of the host on a server's wire would let the server reach the host past
    every security group (OSSN-0069).
    """
    _disable_ipv6(devices)


def _disable_ipv6(devices: list[str]) -> None:
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
def create_veth(host_end: str, guest_end: str, mtu: int | None, tx_checksum: bool) -> None:
    """Make a pair of devices; the host's end is up, and speaks no IPv6 from the beginning.

    :param mtu: of both ends in bytes; None leaves it to the kernel
    :param tx_checksum: whether the guest may leave checksums to the next who can reckon them; see
        :func:`disable_tx_checksum`
    :raises ProcessExecutionError: a device of this name exists, or a tool failed
    """
    size = ["mtu", str(mtu)] if mtu else []
    peer = ["type", "veth", "peer", "name", guest_end, *size]
    processutils.execute("ip", "link", "add", "dev", host_end, *size, *peer)
    try:
        _disable_ipv6([host_end, guest_end])
        if not tx_checksum:
            processutils.execute("ethtool", "-K", guest_end, "tx", "off")
        processutils.execute("ip", "link", "set", "dev", host_end, "up")
    except (processutils.ProcessExecutionError, OSError):
        processutils.execute("ip", "link", "delete", "dev", host_end)
        raise


@net_admin.entrypoint  # type: ignore[untyped-decorator]
def shape(device: str, discipline: list[str]) -> None:
    """Limit what leaves through ``device``; a limit that it has is replaced.

    :param discipline: a queueing discipline as tc takes it: ``["tbf", "rate", "8000kbit", ...]``
    :raises ProcessExecutionError: the kernel does not know it; OSError: iproute2 is not installed
    """
    processutils.execute("tc", "qdisc", "replace", "dev", device, "root", *discipline)


@net_admin.entrypoint  # type: ignore[untyped-decorator]
def delete_link(device: str) -> None:
    """Delete a network device; the other end of a veth pair goes with it.

    :raises ProcessExecutionError: it cannot be deleted; OSError: iproute2 is not installed
    """
    processutils.execute("ip", "link", "delete", "dev", device)


@console.entrypoint  # type: ignore[untyped-decorator]
def unblock_console(init: int) -> bool:
    """See :func:`nova_lxd.monitor.unblock`."""
    return monitor.unblock(init)


@console.entrypoint  # type: ignore[untyped-decorator]
def wake_console(init: int) -> None:
    """See :func:`nova_lxd.monitor.wake`."""
    monitor.wake(init)
