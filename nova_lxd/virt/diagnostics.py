"""What running servers and their host use."""

from __future__ import annotations

import os
import time
from typing import Any

import psutil
from nova.objects import diagnostics as nova_diagnostics
from nova.virt import configdrive
from oslo_utils import timeutils, units

from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.container import Containers
from nova_lxd.virt.model import NicUsage, Usage
from nova_lxd.virt.session import Session

_NANOSECONDS = 1_000_000_000


class Diagnostics:
    """Measures servers: one request of 40 ms each, made only when somebody asks."""

    def __init__(self, session: Session, containers: Containers) -> None:
        self._session = session
        self._containers = containers

    def read(self, instance: Any) -> dict[str, Any]:
        """Measure one server: what the API shows before 2.48, in bytes, KiB and nanoseconds."""
        usage, nics = self._measure(instance)
        result = {
            "cpu0_time": usage.cpu_ns,
            "memory": instance.flavor.memory_mb * units.Ki,
            "memory-rss": usage.memory_bytes // units.Ki,
        }
        if usage.disk_bytes is not None:
            result["root_used"] = usage.disk_bytes
        for device, nic in nics.items():
            result |= {
                f"{device}_rx": nic.rx_octets,
                f"{device}_rx_packets": nic.rx_packets,
                f"{device}_rx_errors": nic.rx_errors,
                f"{device}_rx_drop": nic.rx_drop,
                f"{device}_tx": nic.tx_octets,
                f"{device}_tx_packets": nic.tx_packets,
                f"{device}_tx_errors": nic.tx_errors,
                f"{device}_tx_drop": nic.tx_drop,
            }
        return result

    def _measure(self, instance: Any) -> tuple[Usage, dict[str, NicUsage]]:
        """Measure the container that the tenant sees, and its ports' NICs by their names here.

        LXD does not tell a NIC's name on the host when it was made by somebody else.
        """
        current = self._containers.current(instance)
        usage = self._session.usage(current.name)
        by_mac = {nic.mac: nic for nic in usage.nics}
        nics = {
            device: by_mac[nic.mac] for device, nic in current.nics.items() if nic.mac in by_mac
        }
        return usage, nics

    def read_object(self, instance: Any) -> Any:
        """Measure one server, as Nova's Diagnostics.

        The API knows no driver ``lxd``: ``libvirt`` is the one of its four that shows containers
        too, and ``hypervisor`` tells the truth.  LXD counts the time of all CPUs together, so it is
        shown only for servers with one.
        """
        usage, nics = self._measure(instance)
        launched = instance.launched_at
        result = nova_diagnostics.Diagnostics(
            state=instance_translator.power(usage.status),
            driver="libvirt",
            hypervisor="lxd",
            hypervisor_os="linux",
            config_drive=configdrive.required_by(instance),
            uptime=_age(launched) if launched else None,
        )
        result.memory_details = nova_diagnostics.MemoryDiagnostics(
            maximum=instance.flavor.memory_mb, used=usage.memory_bytes // units.Mi
        )
        vcpus = instance.flavor.vcpus
        for number in range(vcpus):
            result.add_cpu(id=number, time=usage.cpu_ns if vcpus == 1 else None)
        result.add_disk()
        for nic in nics.values():
            _add_nic(result, nic)
        return result


def _add_nic(result: Any, nic: NicUsage) -> None:
    result.add_nic(
        mac_address=nic.mac,
        rx_octets=nic.rx_octets,
        rx_packets=nic.rx_packets,
        rx_errors=nic.rx_errors,
        rx_drop=nic.rx_drop,
        tx_octets=nic.tx_octets,
        tx_packets=nic.tx_packets,
        tx_errors=nic.tx_errors,
        tx_drop=nic.tx_drop,
    )


def _age(launched: Any) -> int:
    return int(timeutils.delta_seconds(timeutils.normalize_time(launched), timeutils.utcnow()))


def host_uptime() -> str:
    """Tell of the host what uptime(1) prints, which clients of Nova take apart.

    Starting that program takes longer (20 ms) than all else that Nova asks of a host every minute.
    """
    minutes = int(time.time() - psutil.boot_time()) // 60
    days, minutes = divmod(minutes, 24 * 60)
    up = (f"{days} days, " if days else "") + f"{minutes // 60:2}:{minutes % 60:02}"
    load = ", ".join(f"{average:.2f}" for average in os.getloadavg())
    now = time.strftime("%H:%M:%S")
    return f" {now} up {up},  {len(psutil.users())} users,  load average: {load}\n"


def host_cpu_stats() -> dict[str, int]:
    """Measure the host's CPUs since its boot: nanoseconds, and the frequency in MHz."""
    times = psutil.cpu_times()
    frequency = psutil.cpu_freq()
    return {
        "kernel": int(times.system * _NANOSECONDS),
        "idle": int(times.idle * _NANOSECONDS),
        "user": int((times.user + times.nice) * _NANOSECONDS),
        "iowait": int(times.iowait * _NANOSECONDS),
        "frequency": int(frequency.current) if frequency else 0,
    }
