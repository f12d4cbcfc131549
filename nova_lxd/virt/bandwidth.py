"""Flavor -> how fast each direction of its server's NICs may be.

Nova's ``quota:vif_*`` count kilobytes (1000 bytes) a second and, for a burst, kibibytes, as libvirt
does.  ``inbound`` is what the server receives.
"""

from __future__ import annotations

from nova_lxd.virt import flavor as flavor_translator
from nova_lxd.virt.model import Bandwidth, Device, Flavor, Rate

DIRECTIONS = ("inbound", "outbound")
KEYS = frozenset(
    f"quota:vif_{way}_{kind}" for way in DIRECTIONS for kind in ("average", "peak", "burst")
)
"""The flavor keys that are honoured."""

_MOST_KB = 10**8
"""100 GB a second: more than any wire carries, and within what tc can count."""

_LEAST_BURST = 2**17
"""Bytes: two of the largest packets that a guest hands over at once.  With less, the kernel cuts
each of them into pieces."""


def bandwidth(flavor: Flavor) -> Bandwidth:
    """Return the limits of each NIC of a server.

    :raises FlavorRefused: naming the key that is no number, or that needs another one
    """
    return Bandwidth(*(_rate(flavor, f"quota:vif_{way}_") for way in DIRECTIONS))


def nic_limits(bandwidth: Bandwidth) -> Device:
    """Return the keys of the LXD nic that hold a server to what it may receive.

    LXD knows an average alone, so a burst above it is not let through.
    """
    rate = bandwidth.inbound
    return {"limits.ingress": f"{rate.average_kb * 8}kbit"} if rate else {}


def shape(rate: Rate) -> list[str]:
    """Return the arguments of tc for a token bucket that lets no more than this through."""
    burst = max(rate.burst_kb * 1024, _LEAST_BURST, rate.average_kb * 1000 // 100)
    words = ["tbf", "rate", f"{rate.average_kb * 8}kbit", "burst", f"{burst}b", "latency", "50ms"]
    if rate.peak_kb > rate.average_kb:
        words += ["peakrate", f"{rate.peak_kb * 8}kbit", "minburst", f"{_LEAST_BURST}b"]
    return words


def _rate(flavor: Flavor, prefix: str) -> Rate | None:
    average, peak, burst = (
        flavor_translator.number(flavor, f"{prefix}{kind}", (1, _MOST_KB)) or 0
        for kind in ("average", "peak", "burst")
    )
    for kind, value in (("peak", peak), ("burst", burst)):
        if value and not average:
            reason = f"it needs {prefix}average beside it; set that or remove it"
            raise flavor_translator.refusal(flavor, f"{prefix}{kind}", reason)
    if peak and peak < average:
        reason = f"it is below {prefix}average={average}; use as much at least"
        raise flavor_translator.refusal(flavor, f"{prefix}peak", reason)
    return Rate(average, peak, burst) if average else None
