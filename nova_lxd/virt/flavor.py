"""Flavor and extra specs -> the LXD profile's config keys and root disk.

An extra spec is honoured, or known to mean nothing to a container, or refused: none is ignored by
accident, because a flavor is a promise that somebody pays for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nova_lxd.exception import FlavorRefused
from nova_lxd.virt.model import Config, Device, Flavor, HostFacts

TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
FALSE = frozenset({"0", "f", "false", "off", "n", "no"})
"""What Nova's API takes for a boolean, in any case and with blanks around it."""

PROCESS_LIMIT = 4096
"""Processes and threads of a server whose flavor does not say."""

MAX_PROCESSES = 4194304
"""The most that a Linux kernel can count."""


@dataclass(frozen=True, slots=True)
class LxdSpec:
    """One ``lxd:*`` extra spec: a boolean, or a count from 1 to ``maximum``."""

    name: str
    description: str
    maximum: int | None = None


PRIVILEGED = LxdSpec(
    "lxd:privileged_allowed",
    "Run the server as a privileged container: root inside is root outside for many purposes. "
    "A host can forbid it with [lxd] allow_privileged.",
)
NESTED = LxdSpec(
    "lxd:nested_allowed",
    "Let containers run inside the server. A host can forbid it with [lxd] allow_nested.",
)
ISOLATED = LxdSpec(
    "lxd:isolated",
    "Kept for old flavors. Every unprivileged server has an id map of its own, so only true is "
    "accepted, and only false for a privileged one.",
)
PROCESSES = LxdSpec(
    "lxd:process_limit",
    f"How many processes and threads the server may have; {PROCESS_LIMIT} when absent.",
    maximum=MAX_PROCESSES,
)
LXD_SPECS = (PRIVILEGED, NESTED, ISOLATED, PROCESSES)
"""All ``lxd:*`` extra specs there are; the API's validators are made from the same table."""

_MAX_RATE = 2**63 - 1
_ANY_CPU_QUOTA = -(2**63)
_CPU_SHARES = (2, 262144)
_CPU_PERIOD_US = (1000, 1000000)
_DEFAULT_CPU_PERIOD_US = 100000
"""The kernel's bounds and default."""

_DISK_DIRECTIONS = {"read": "limits.read", "write": "limits.write", "total": "limits.max"}
_DISK_UNITS = {"bytes": "B", "iops": "iops"}
_ONE_RATE = (
    "LXD takes one limit for a direction: either bytes or iops, either total or read and write; "
    "remove it or the others"
)

_HONOURED = frozenset(
    {spec.name for spec in LXD_SPECS}
    | {"quota:cpu_shares", "quota:cpu_period", "quota:cpu_quota"}
    | {f"quota:disk_{way}_{unit}_sec" for way in _DISK_DIRECTIONS for unit in _DISK_UNITS}
    # nova_lxd/virt/bandwidth.py
    | {
        f"quota:vif_{way}_{kind}"
        for way in ("inbound", "outbound")
        for kind in ("average", "peak", "burst")
    }
)

# Virtual hardware that a container has no use for; leaving it out breaks no promise.
_MEANINGLESS = frozenset(
    "hw:" + name
    for name in (
        "boot_menu",
        "cpu_cores",
        "cpu_max_cores",
        "cpu_max_sockets",
        "cpu_max_threads",
        "cpu_sockets",
        "cpu_threads",
        "emulator_threads_policy",
        "hide_hypervisor_id",
        "input_bus",
        "maxphysaddr_bits",
        "maxphysaddr_mode",
        "pci_numa_affinity_policy",
        "pmu",
        "pointer_model",
        "redirected_usb_ports",
        "serial_port_count",
        "sound_model",
        "usb_model",
        "vif_multiqueue_enabled",
        "viommu_model",
        "virtio_packed_ring",
    )
)

# Values that ask for no more than a container has anyway.
_ASKS_FOR_NOTHING: Mapping[str, frozenset[str]] = {
    "hw:cpu_policy": frozenset({"shared"}),
    "hw:cpu_realtime": FALSE,
    "hw:ephemeral_encryption": FALSE,
    "hw:locked_memory": FALSE,
    "hw:mem_encryption": FALSE,
    "hw:mem_page_size": frozenset({"small", "any"}),
    "hw:watchdog_action": frozenset({"disabled"}),
    "os:secure_boot": frozenset({"disabled", "optional"}),
}

# First prefix that fits wins; these outside Nova's hardware and quota namespaces are refused too.
_REASONS = (
    (
        "lxd:",
        f"there is no such key; remove it or use one of {', '.join(s.name for s in LXD_SPECS)}",
    ),
    (
        "hw:cpu_",
        "CPUs cannot be dedicated to a container yet; remove it or use hw:cpu_policy=shared",
    ),
    ("hw:numa_", "containers cannot be bound to NUMA nodes yet; remove it"),
    ("hw:mem_page_size", "containers have no huge pages; remove it or use small"),
    ("hw:", "containers cannot do this; remove it or choose a flavor for virtual machines"),
    ("quota:", "containers cannot do this; remove it or choose a flavor for virtual machines"),
    ("os:secure_boot", "containers have no firmware; remove it or use disabled"),
    ("pci_passthrough:alias", "PCI devices cannot be passed to containers yet; remove it"),
    ("accel:device_profile", "accelerators cannot be passed to containers yet; remove it"),
)


def profile_config(flavor: Flavor, host: HostFacts) -> Config:
    """Return the config keys of the server's LXD profile.

    Memory is in MiB; ``limits.cpu`` is a count, so that LXD balances the server over the host's
    CPUs.  ``security.idmap.base`` is not here: it belongs to the instance, not to the flavor.

    :raises FlavorRefused: naming the first key that cannot be honoured on ``host``
    """
    _refuse_unservable(flavor)
    privileged = _permitted(flavor, PRIVILEGED, host.allow_privileged, "allow_privileged")
    nested = _permitted(flavor, NESTED, host.allow_nested, "allow_nested")
    _check_isolation(flavor, privileged)
    processes = number(flavor, PROCESSES.name, (1, MAX_PROCESSES)) or PROCESS_LIMIT
    config = {
        "boot.autostart": "false",
        "environment.product_name": "OpenStack Nova",
        "limits.cpu": str(flavor.vcpus),
        "limits.memory": f"{flavor.memory_mb}MiB",
        "limits.processes": str(processes),
        "security.devlxd": "false",
        "security.nesting": _word(nested),
        "security.privileged": _word(privileged),
    }
    if not privileged:
        config["security.idmap.isolated"] = "true"
    return config | _cpu_limits(flavor)


def root_device(flavor: Flavor, host: HostFacts) -> Device:
    """Return the server's root disk.

    There is no size for ``root_gb`` 0, which Nova means as "no limit", nor on a pool that could not
    hold the disk to it.  A ``total`` rate bounds each direction by itself: LXD has no joint limit.

    :raises FlavorRefused: two rates for one direction, or a rate that is no number
    """
    device = {"type": "disk", "path": "/", "pool": host.pool}
    if flavor.root_gb > 0 and host.enforces_disk_size:
        device["size"] = f"{flavor.root_gb}GiB"
    return device | _disk_limits(flavor)


def parse_boolean(value: str) -> bool | None:
    """Return what a boolean extra spec says, ``None`` for rubbish.

    >>> parse_boolean("False"), parse_boolean(" yes "), parse_boolean("maybe")
    (False, True, None)
    """
    word = value.strip().lower()
    if word in TRUE:
        return True
    return False if word in FALSE else None


def _refuse_unservable(flavor: Flavor) -> None:
    for key, size in (("ephemeral", flavor.ephemeral_gb), ("swap", flavor.swap_mb)):
        if size:
            raise FlavorRefused(
                f"flavor {flavor.name[:40]!r}: {key}={size}: this driver has no {key} disks yet; "
                f"choose a flavor with {key} 0"
            )
    for key, value in flavor.extra_specs.items():
        if key not in _HONOURED and not _asks_for_nothing(key, value):
            for prefix, reason in _REASONS:
                if key.startswith(prefix):
                    raise refusal(flavor, key, reason)


def _asks_for_nothing(key: str, value: str) -> bool:
    word = value.strip().lower()
    if key.startswith("quota:"):
        return word == "0"
    return key in _MEANINGLESS or word in _ASKS_FOR_NOTHING.get(key, frozenset())


def _permitted(flavor: Flavor, spec: LxdSpec, allowed: bool, option: str) -> bool:
    wanted = _boolean(flavor, spec)
    if wanted and not allowed:
        reason = f"this host forbids it ([lxd] {option} = false); use another host or flavor"
        raise refusal(flavor, spec.name, reason)
    return bool(wanted)


def _check_isolation(flavor: Flavor, privileged: bool) -> None:
    isolated = _boolean(flavor, ISOLATED)
    if isolated is False and not privileged:
        # Servers with one id map share the kernel's per-user quotas, across tenants.
        reason = "every server has an id map of its own; remove it or use true"
        raise refusal(flavor, ISOLATED.name, reason)
    if isolated and privileged:
        reason = f"a privileged server has no id map; remove it or {PRIVILEGED.name}"
        raise refusal(flavor, ISOLATED.name, reason)


def _cpu_limits(flavor: Flavor) -> Config:
    shares = number(flavor, "quota:cpu_shares", _CPU_SHARES)
    quota = number(flavor, "quota:cpu_quota", (_ANY_CPU_QUOTA, _MAX_RATE))
    period = number(flavor, "quota:cpu_period", _CPU_PERIOD_US) or _DEFAULT_CPU_PERIOD_US
    # A quota of a whole period or more takes nothing from the CPUs that limits.cpu gives.
    if quota is None or quota < 0 or quota >= period:
        return _weight(shares) if shares else {}
    if shares:
        reason = "LXD takes either shares or a quota; remove it or quota:cpu_quota"
        raise refusal(flavor, "quota:cpu_shares", reason)
    return {"limits.cpu.allowance": _time_slice(flavor, quota, period)}


def _time_slice(flavor: Flavor, quota_us: int, period_us: int) -> str:
    # Nova's quota is for each vCPU, LXD's for the whole container.
    total_us = quota_us * flavor.vcpus
    for key, value_us in (("quota:cpu_period", period_us), ("quota:cpu_quota", total_us)):
        if value_us % 1000:
            reason = "LXD counts whole milliseconds; use a multiple of 1000"
            raise refusal(flavor, key, reason)
    return f"{total_us // 1000}ms/{period_us // 1000}ms"


def _weight(shares: int) -> Config:
    # LXD makes int(10.24 * percent) - (10 - priority) of the two: with the smallest percentage
    # that reaches the wish, the priority takes off the rest, and the kernel gets the exact number.
    percent = -(-shares * 100 // 1024)
    surplus = percent * 1024 // 100 - shares
    return {"limits.cpu.allowance": f"{percent}%", "limits.cpu.priority": str(10 - surplus)}


def _disk_limits(flavor: Flavor) -> Device:
    limits: Device = {}
    for way, option in _DISK_DIRECTIONS.items():
        for unit, suffix in _DISK_UNITS.items():
            key = f"quota:disk_{way}_{unit}_sec"
            rate = number(flavor, key, (1, _MAX_RATE))
            if rate is None:
                continue
            if limits and (option in limits or way == "total"):
                reason = (
                    "LXD takes one limit for a direction: bytes or iops, total or read and write"
                )
                raise refusal(flavor, key, reason + "; remove all but one")
            limits[option] = f"{rate}{suffix}"
    return limits


def _boolean(flavor: Flavor, spec: LxdSpec) -> bool | None:
    if spec.name not in flavor.extra_specs:
        return None
    value = parse_boolean(flavor.extra_specs[spec.name])
    if value is None:
        raise refusal(flavor, spec.name, "not a boolean; use true or false")
    return value


def number(flavor: Flavor, key: str, bounds: tuple[int, int]) -> int | None:
    """Parse a whole number; absent and 0 are ``None``, as Nova's 0 means "no limit".

    :raises FlavorRefused: it is none, or out of bounds
    """
    text = flavor.extra_specs.get(key, "0").strip()
    if not re.fullmatch(r"-?[0-9]{1,20}", text, re.ASCII):
        raise refusal(flavor, key, "not a whole number; use decimal digits")
    low, high = bounds
    if int(text) == 0:
        return None
    if not low <= int(text) <= high:
        raise refusal(flavor, key, f"out of range; use {max(low, 1)} to {high}")
    return int(text)


def refusal(flavor: Flavor, key: str, reason: str) -> FlavorRefused:
    """Return the error that names a flavor's key, its value and what to do."""
    value = flavor.extra_specs.get(key, "")
    spec = f"extra spec {ascii(key[:64])[1:-1]}={value[:40]!r}"
    return FlavorRefused(f"flavor {flavor.name[:40]!r}: {spec}: {reason}")


def _word(truth: bool) -> str:
    return "true" if truth else "false"
