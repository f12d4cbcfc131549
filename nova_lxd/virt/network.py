"""Ports: plugged by os-vif, hardened by us, awaited as Nova's options say."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nova.conf
import os_vif
from nova import exception as nova_exception
from nova.network import os_vif_util
from os_vif import exception as osvif_exception
from oslo_concurrency import processutils
from oslo_log import log as logging
from oslo_privsep import comm, daemon
from vif_plug_ovs import linux_net
from vif_plug_ovs import privsep as osvif_privsep

from nova_lxd import exception, privsep
from nova_lxd.virt import bandwidth as bandwidth_translator
from nova_lxd.virt import copies
from nova_lxd.virt import vif as vif_translator
from nova_lxd.virt.model import Vif

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_PLUG_ERRORS = (
    osvif_exception.ExceptionBase,
    nova_exception.NovaException,
    processutils.ProcessExecutionError,
    daemon.FailedToDropPrivileges,
    comm.PrivsepTimeout,
    OSError,
)


def start_helpers() -> None:
    """Start the privsep daemons that wire ports.

    :raises ConfigurationError: one of them does not start
    """
    for context in (privsep.net_admin, osvif_privsep.vif_plug):
        privsep.start(context)


def plug(instance: Any, network_info: Any) -> None:
    """Wire every port to the integration bridge; one that is wired already stays as it is.

    :raises VifRefused: the port's binding is of an unsupported kind
    :raises VifPlugFailed: os-vif, the helper or one of its tools failed
    """
    info = os_vif_util.nova_to_osvif_instance(instance)
    for nova_vif in network_info or []:
        try:
            (vif,) = copies.vifs_of(instance, [nova_vif])
            vif_translator.check(vif)
            if not vif.hybrid_plug and not _has_link(vif.devname):
                _create_veth(vif)
            os_vif.plug(_osvif_vif(nova_vif), info)
            _harden(vif)
            _limit(vif)
        except (exception.VifRefused, exception.VifPlugFailed):
            raise
        except Exception as error:
            # Nova plugs every server's ports at its start, and any other error would end it there.
            raise exception.VifPlugFailed(
                f"port {nova_vif.get('id')} could not be plugged: {error!s}"
            ) from error


def _osvif_vif(nova_vif: Any) -> Any:
    vif = os_vif_util.nova_to_osvif_vif(nova_vif)
    if "create_tap" in vif.port_profile.fields:
        # Neutron can ask for a tap, which is for virtual machines and takes the name of ours.
        vif.port_profile.create_tap = False
    return vif


def _create_veth(vif: Vif) -> None:
    checksum = vif.datapath_type == "system"
    privsep.create_veth(vif.devname, vif_translator.guest_end(vif), vif.mtu, checksum)


def _harden(vif: Vif) -> None:
    privsep.disable_ipv6(vif_translator.host_devices(vif))
    if vif.hybrid_plug and vif.datapath_type != "system":
        privsep.disable_tx_checksum(vif_translator.bridge_end(vif))


def _limit(vif: Vif) -> None:
    """Hold a server to what it may send; LXD sees to what it may receive.

    What leaves it passes the end of a pair that is in its bridge.  Open vSwitch takes any limit off
    the devices that are its own, so there is no such place for a port without a bridge.
    """
    if not vif.bandwidth.outbound:
        return
    device = vif_translator.bridge_end(vif)
    try:
        privsep.shape(device, bandwidth_translator.shape(vif.bandwidth.outbound))
    except processutils.ProcessExecutionError as error:
        raise exception.VifPlugFailed(
            f"flavor key quota:vif_outbound_average: tc cannot limit {device}: "
            f"{error.stderr.strip()}; load the kernel module sch_tbf, or use a flavor without it"
        ) from error


def unplug(instance: Any, network_info: Any) -> None:
    """Take every port off this host; one that is gone already is no error.

    All ports are tried; the first error is raised at the end.
    """
    info = os_vif_util.nova_to_osvif_instance(instance)
    failed: exception.VifPlugFailed | None = None
    for nova_vif in network_info or []:
        try:
            vif = copies.vif_of(nova_vif)
            vif_translator.check(vif)
            os_vif.unplug(_osvif_vif(nova_vif), info)
            _remove_taps(vif)
        except exception.VifRefused as error:
            LOG.debug("Was never plugged: %s", error, instance=instance)
        except _PLUG_ERRORS as error:
            text = f"port {nova_vif['id']} could not be unplugged: {error}"
            LOG.warning(text, instance=instance)
            failed = failed or exception.VifPlugFailed(text)
    if failed:
        raise failed


def connect(vifs: list[Vif]) -> None:
    """Undo ``disconnect``; wires that are up stay as they are.

    :raises VifPlugFailed: one cannot be switched
    """
    _switch([vif for vif in vifs if not _is_up(vif_translator.wire_end(vif))], "up")


def disconnect(vifs: list[Vif]) -> None:
    """Let nothing through to servers whose processes stand still, and nothing back.

    The kernel would answer for them: pings, and connections until a socket's memory is full.

    :raises VifPlugFailed: one cannot be switched
    """
    _switch([vif for vif in vifs if _has_link(vif_translator.wire_end(vif))], "down")


def _switch(vifs: list[Vif], state: str) -> None:
    for vif in vifs:
        device = vif_translator.wire_end(vif)
        try:
            linux_net.set_interface_state(device, state)
        except Exception as error:
            # What the helper meets, it raises here as it is.
            raise exception.VifPlugFailed(f"{device} cannot be set {state}: {error}") from error


def _is_up(device: str) -> bool:
    """Whether a device is switched on; one that is not there cannot be switched."""
    try:
        return bool(int(Path("/sys/class/net", device, "flags").read_text(), 16) & 1)
    except OSError:
        return True


def remove_stale_taps(vifs: list[Vif]) -> None:
    """Remove what an earlier life of a stopped server left of its NICs, before they are plugged.

    LXD 5.0.2 leaves a NIC's host side behind when its bridge is gone at the stop (measured), and
    then cannot start the server, because the name is taken.  And a native port needs both ends of
    its pair on the host.

    :raises VifPlugFailed: one cannot be removed
    """
    for vif in vifs:
        try:
            if vif.hybrid_plug or not _is_whole(vif):
                _remove_taps(vif)
        except _PLUG_ERRORS as error:
            raise exception.VifPlugFailed(f"{vif.devname} cannot be removed: {error}") from error


def _is_whole(vif: Vif) -> bool:
    """Whether both ends of a native port are here, and belong together.

    A guest's root can give the name of its NIC to a device of its own, and LXD gives that back.
    """
    ends = [vif.devname, vif_translator.guest_end(vif)]
    try:
        indices = [socket.if_nametoindex(end) for end in ends]
        peers = [int(Path("/sys/class/net", end, "iflink").read_text()) for end in ends]
    except OSError:
        return False
    return indices == peers[::-1]


def _remove_taps(vif: Vif) -> None:
    ends = [vif.devname] if vif.hybrid_plug else [vif.devname, vif_translator.guest_end(vif)]
    for end in filter(_has_link, ends):
        try:
            privsep.delete_link(end)
        except processutils.ProcessExecutionError:
            # LXD may have taken it away meanwhile.
            if _has_link(end):
                raise


def _has_link(device: str) -> bool:
    try:
        socket.if_nametoindex(device)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def plugged_event(virtapi: Any, instance: Any, vifs: list[Vif]) -> Iterator[None]:
    """Run the block, then wait until Neutron has wired the ports that are not active yet.

    The block must plug them.  ``vif_plugging_timeout`` 0 means not to wait at all.

    :raises VifPlugFailed: Neutron reported a failure, or did not report in time, and
        ``vif_plugging_is_fatal`` is set
    """
    timeout = CONF.vif_plugging_timeout
    events = [("network-vif-plugged", vif.port_id) for vif in vifs if timeout and not vif.active]
    wait = virtapi.wait_for_instance_event(
        instance, events, timeout=timeout, error_callback=_neutron_failed
    )
    try:
        with wait:
            yield
    except nova_exception.InstanceEventTimeout as error:
        ports = ", ".join(port_id for _, port_id in events)
        text = (
            f"Neutron did not report within vif_plugging_timeout ({timeout} s) that it wired port "
            f"{ports}; is its L2 agent, or ovn-controller, alive on this host?"
        )
        if CONF.vif_plugging_is_fatal:
            raise exception.VifPlugFailed(text) from error
        LOG.warning("%s; starting the server all the same", text, instance=instance)


def _neutron_failed(event_name: str, instance: Any) -> None:
    text = f"Neutron reported a failure of {event_name}"
    if CONF.vif_plugging_is_fatal:
        raise exception.VifPlugFailed(text)
    LOG.warning("%s", text, instance=instance)
