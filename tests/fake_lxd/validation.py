"""Which configuration keys, values and devices LXD 5.0.2 takes for a container."""

from __future__ import annotations

import re

from .answers import Refusal

_BOOLEANS = {
    "boot.autostart",
    "limits.memory.swap",
    "nvidia.runtime",
    "security.devlxd",
    "security.devlxd.images",
    "security.idmap.isolated",
    "security.nesting",
    "security.privileged",
    "security.protection.delete",
    "security.protection.shift",
    "security.syscalls.deny_compat",
    "security.syscalls.deny_default",
    "security.syscalls.intercept.mknod",
    "security.syscalls.intercept.mount",
    "security.syscalls.intercept.setxattr",
}
_NUMBERS = {"boot.autostart.delay", "boot.autostart.priority", "boot.stop.priority"}
_NUMBERS |= {"boot.host_shutdown_timeout", "limits.processes", "limits.memory.swap.priority"}
_IDS = {"security.idmap.base", "security.idmap.size"}
_FREE = {
    "cloud-init.network-config",
    "cloud-init.user-data",
    "cloud-init.vendor-data",
    "limits.disk.priority",
    "limits.memory.enforce",
    "limits.network.priority",
    "linux.kernel_modules",
    "raw.idmap",
    "raw.lxc",
    "raw.seccomp",
}
_PREFIXES = ("image.", "user.", "limits.kernel.", "linux.sysctl.", "snapshots.")
_VOLATILE = re.compile(
    r"volatile\.(apply_template|base_image|cloud-init\.instance-id|uuid"
    r"|idmap\.(base|current|next)|last_state\.(idmap|power)"
    r"|.+\.(hwaddr|name|host_name|last_state\..+|apply_quota))"
)
_TRUTH = {"true", "false", "1", "0", "yes", "no", "on", "off", ""}
_SIZE = re.compile(r"\d+(\.\d+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?|\d+%")
_CPUS = re.compile(r"\d+|\d+-\d+(,\d+(-\d+)?)*|\d+(,\d+(-\d+)?)+")
_ALLOWANCE = re.compile(r"\d+%|\d+ms/\d+ms")

_NIC_OPTIONS = {"type", "nictype", "parent", "network", "name", "host_name", "hwaddr", "mtu"}
_NIC_OPTIONS |= {"boot.priority", "vlan", "queue.tx.length", "ipv4.address", "ipv6.address"}
_NIC_PREFIXES = ("limits.", "security.", "ipv4.", "ipv6.")
_DEVICE_TYPES = {"nic", "disk", "none", "unix-block", "unix-char", "gpu", "usb", "proxy", "pci"}


def check_config(config: dict[str, str], status: int, prefix: str = "") -> None:
    """Refuse unknown keys and values of the wrong form."""
    for key, value in config.items():
        fault = _config_fault(key, value)
        if fault:
            raise Refusal(status, prefix + fault)


def _config_fault(key: str, value: str) -> str | None:
    if key.startswith("environment."):
        broken = "\n" in value
        return "Environment variables cannot contain line breaks" if broken else None
    if key in _BOOLEANS:
        return None if value.lower() in _TRUTH else f'Invalid value for a boolean "{value}"'
    if key in _NUMBERS:
        good = re.fullmatch(r"-?\d*", value)
        return None if good else f'Invalid value for an integer "{value}"'
    if key in _IDS:
        text = f'Invalid value for uint32 "{value}": strconv.ParseUint: parsing "{value}"'
        text += ": invalid syntax"
        return None if value.isdigit() or not value else text
    return _limit_fault(key, value)


def _limit_fault(key: str, value: str) -> str | None:
    if key == "limits.cpu":
        return None if not value or _CPUS.fullmatch(value) else "Invalid CPU limit syntax"
    if key == "limits.cpu.allowance":
        return None if not value or _ALLOWANCE.fullmatch(value) else f"Invalid allowance: {value}"
    if key == "limits.cpu.priority":
        text = f'Invalid value for a limit "{value}". Must be between 0 and 10'
        return None if value.isdigit() and int(value) <= 10 else text
    if key == "limits.memory":
        return None if not value or _SIZE.fullmatch(value) else f"Invalid value: {value}"
    if key in _FREE or key.startswith(_PREFIXES) or _VOLATILE.fullmatch(key):
        return None
    return f"Unknown configuration key: {key}"


def check_devices(devices: dict[str, dict[str, str]], status: int, prefix: str = "") -> None:
    """Refuse devices that LXD would not validate."""
    for name, device in devices.items():
        fault = _device_fault(device)
        if fault:
            text = f'Device validation failed for "{name}": '
            raise Refusal(status, prefix + text + fault.format(name=name))
    roots = [name for name, device in devices.items() if device.get("path") == "/"]
    if len(roots) > 1:
        text = f'Device validation failed for "{min(roots)}": '
        raise Refusal(status, prefix + text + 'More than one disk device uses the same path "/"')


def _device_fault(device: dict[str, str] | None) -> str | None:
    kind = (device or {}).get("type")
    if device is None or not kind:
        return 'Failed loading device "{name}": Missing device type in config'
    if kind not in _DEVICE_TYPES:
        return 'Failed loading device "{name}": Unsupported device type'
    if kind == "nic":
        return _nic_fault(device)
    if kind == "disk":
        return _disk_fault(device)
    return None


def _nic_fault(nic: dict[str, str]) -> str | None:
    kind = nic.get("nictype")
    if kind not in {"bridged", "p2p", "physical", "macvlan", "routed"} and "network" not in nic:
        return 'Failed loading device "{name}": Unsupported device type'
    if kind in {"bridged", "physical", "macvlan"} and not nic.get("parent"):
        return 'Invalid value for device option "parent": Required value'
    for key in nic:
        if key not in _NIC_OPTIONS and not key.startswith(_NIC_PREFIXES):
            return f'Invalid device option "{key}"'
    if not re.fullmatch(
        r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", nic.get("hwaddr") or "00:" * 5 + "00"
    ):
        text = "Invalid MAC address, must be 6 bytes of hex separated by colons"
        return f'Invalid value for device option "hwaddr": {text}'
    if not nic.get("mtu", "1500").isdigit():
        return f'Invalid value for device option "mtu": Invalid MTU "{nic["mtu"]}"'
    return None


def _disk_fault(disk: dict[str, str]) -> str | None:
    if not disk.get("path") or (disk["path"] != "/" and not disk.get("source")):
        return 'Disk entry is missing the required "source" or "path" property'
    if not _SIZE.fullmatch(disk.get("size") or "0"):
        return f'Invalid value for device option "size": Invalid value: {disk["size"]}'
    return None
