"""A LXD 5.0.2 that holds state and speaks HTTP on a unix socket, but runs no containers.

::

    with FakeLXD(folder) as fake:
        Session(str(fake.socket), ...)
        fake.faults.fail(3, Fault.OPERATION_FAILURE)
        ...
        fake.faults.clear()
        assert not fake.state.instances

Texts, codes and JSON shapes were recorded on a real daemon; ``tests/unit/lxd_contract`` runs
against both, so that they cannot drift apart.
"""

from .faults import Call, Fault
from .server import FakeLXD
from .state import State

__all__ = ["Call", "FakeLXD", "Fault", "State"]
