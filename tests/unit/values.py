"""Values for the translators' tests: each an ordinary one, changed by keyword."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from nova_lxd.virt.model import Flavor, HostFacts, IdRange, ImageSource, Vif

IMAGE_ID = "5f1c1f5e-96e4-4f2f-a0a5-9f2b9a3f1f6b"
PORT_ID = "9e0c6af1-3093-4b3b-8b7e-5a2c3b1d4e5f"

FAULT_ROOM = 255 - len("Build of instance 00000000-0000-0000-0000-000000000000 aborted: ")
"""Characters of ours that a tenant gets to see of a fault."""


def flavor(**changes: Any) -> Flavor:
    values: dict[str, Any] = {"name": "m1.small", "vcpus": 2, "memory_mb": 512, "root_gb": 10}
    return Flavor(**(values | changes))


def flavor_with(extra_specs: dict[str, str], **changes: Any) -> Flavor:
    return flavor(extra_specs=extra_specs, **changes)


def host(**changes: Any) -> HostFacts:
    values: dict[str, Any] = {
        "name": "compute1",
        "architectures": ("x86_64", "i686"),
        "server_version": "5.0.2",
        "api_extensions": frozenset(),
        "pool": "default",
        "pool_driver": "btrfs",
        "id_range": IdRange(100000, 10000001),
    }
    return HostFacts(**(values | changes))


def image(**changes: Any) -> ImageSource:
    values: dict[str, Any] = {
        "id": IMAGE_ID,
        "name": "debian-12",
        "disk_format": "raw",
        "container_format": "bare",
        "architecture": "x86_64",
        "size": 100 * 1024**2,
        "created_at": 1700000000,
    }
    return ImageSource(**(values | changes))


def vif(**changes: Any) -> Vif:
    values: dict[str, Any] = {
        "port_id": PORT_ID,
        "devname": "tap" + PORT_ID[:11],
        "mac": "fa:16:3e:00:00:01",
        "vif_type": "ovs",
        "mtu": 1450,
        "hybrid_plug": True,
    }
    return Vif(**(values | changes))


def rude_text() -> st.SearchStrategy[str]:
    """Text as nobody should write it: control characters, other scripts, quotes."""
    return st.text(st.one_of(st.characters(), st.sampled_from("\n\r\0\"'\\{}: #\x85\u2028")))


def is_one_line(value: str) -> bool:
    """Whether LXD may be given the value."""
    return bool(value) and not set(value) & set("\n\r\0")
