"""Does this host hold exactly what Nova's servers need, and nothing else?

``check`` compares what Nova says (``Expected``) with what was found in LXD, the kernel, Open
vSwitch and Placement (``Facts``) and returns one ``Violation`` for every rule that does not hold.
The rules are pure functions; ``gather`` reads the facts.

======  ==========================================================================================
rule    what must hold
======  ==========================================================================================
I1      the instances of our LXD project are this host's servers
I2      no profile, image, volume, snapshot, backup or operation without an owner
I3      every port of a running server is wired as Neutron says; no host device and no trunk bridge
        without a port
I4      the firewall knows every tap (asked only where an iptables_hybrid agent runs)
I5      no mount and no loop device below Nova's folders without an attachment
I6      id maps are isolated, disjoint and inside the host's range; privileged only by the flavor
I8      limits in LXD are the flavor's, to the byte
I9      Placement holds the flavors' allocations and no more inventory than the host has
I10     LXD's power state is Nova's
I11     no temporary file and no folder of a vanished server below ``instances_path``
I13     no error in the logs that was not expected
I14     no ``raw.*`` key, no devlxd, no shifted storage, no control character in any config
I16     instances outside our project are as they were
======  ==========================================================================================

The numbers are those of the project's list of invariants; the missing ones need parts of the
driver that do not exist yet (several attachments, config drives) or a long-running observer.
"""

from __future__ import annotations

from nova_lxd.invariants import host, instances, network, ours
from nova_lxd.invariants.facts import (
    Expected,
    ExpectedPort,
    ExpectedServer,
    Facts,
    HostSize,
    Link,
    LxdImage,
    LxdInstance,
    LxdObject,
    OvsPort,
    PlacementFacts,
    Violation,
)

RULES = (*instances.RULES, *network.RULES, *host.RULES)
LEFTOVER_RULES = (
    instances.no_instance_is_left,
    instances.everything_has_an_owner,
    network.nothing_is_left_over,
    host.mounts_are_attachments,
    host.no_file_is_left,
)
"""Those about what exists and is needed by nobody, in the order in which it can be removed."""


def check(expected: Expected, facts: Facts) -> list[Violation]:
    """Return what does not hold, in the order of the rules; an empty list is a clean host."""
    return [violation for rule in RULES for violation in rule(expected, facts)]


def leftovers(expected: Expected, facts: Facts) -> list[Violation]:
    """Return what is certainly the driver's and that no server needs, see :mod:`.ours`.

    Each has a command that removes it; in this order none removes what another one needs.
    """
    expected, facts = ours.narrowed(expected, facts)
    return [violation for rule in LEFTOVER_RULES for violation in rule(expected, facts)]


__all__ = [
    "LEFTOVER_RULES",
    "RULES",
    "Expected",
    "ExpectedPort",
    "ExpectedServer",
    "Facts",
    "HostSize",
    "Link",
    "LxdImage",
    "LxdInstance",
    "LxdObject",
    "OvsPort",
    "PlacementFacts",
    "Violation",
    "check",
    "leftovers",
]
