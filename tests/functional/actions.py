"""What Nova's API can do to a server, as a table: how it is said, and where it leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

GONE = "gone"
Send = Callable[[Any, dict], Any]
"""Takes the test case and the server, and asks Nova's API."""


@dataclass(frozen=True)
class Action:
    """One action, from a server that runs unless ``before`` says otherwise."""

    send: Send
    to: str = "ACTIVE"
    """The server's status afterwards."""
    before: tuple[str, ...] = ()
    """Names of the actions that lead from ACTIVE to where it begins."""
    request: dict = field(default_factory=dict)
    """What the server is ordered with."""
    new_image: bool = False
    """Whether it is ordered from an image that the host does not have yet."""
    answers: bool = False
    """Whether the API waits for it, and itself tells how it went."""
    back: str = "hard reboot"
    """What mends a server that is in ERROR after it."""
    again: bool = False
    """Whether one that failed may have been done all but its end, so that it is done again."""


def _post(name: str, body: dict | None = None) -> Send:
    return lambda case, server: case.api.post_server_action(server["id"], {name: body})


def _delete(case: Any, server: dict) -> None:
    case.api.delete_server(server["id"])


def _soft_delete(case: Any, server: dict) -> None:
    case.flags(reclaim_instance_interval=3600)
    try:
        _delete(case, server)
    finally:
        case.flags(reclaim_instance_interval=0)


def _resize(case: Any, server: dict) -> None:
    flavor = case.other_flavor(server)
    case.api.post_server_action(server["id"], {"resize": {"flavorRef": flavor}})


def _rebuild(case: Any, server: dict) -> None:
    case.api.post_server_action(server["id"], {"rebuild": {"imageRef": case.busybox_image()}})


def _shelve(case: Any, server: dict) -> None:
    # Nova's own default is to take a shelved server off its host at once.
    case.flags(shelved_offload_time=-1)
    case.api.post_server_action(server["id"], {"shelve": None})


def _diagnostics(case: Any, server: dict) -> None:
    case.api.get_server_diagnostics(server["id"])


def _attach(case: Any, server: dict) -> None:
    network = case.neutron.network_1["id"]
    case.api.attach_interface(server["id"], {"interfaceAttachment": {"net_id": network}})


def _detach(case: Any, server: dict) -> None:
    case.api.detach_interface(server["id"], case.neutron.ports_of(server["id"])[-1]["id"])


def _create(case: Any, server: dict) -> None:
    """Nothing: the order of the server is the action."""


_DRIVE = {"config_drive": True}

GROUPS = {
    "creation": {
        "create": Action(_create),
        "create from a new image": Action(_create, new_image=True),
        "create with config drive": Action(_create, request=_DRIVE),
    },
    "deletion": {
        "delete": Action(_delete, GONE),
        "delete with config drive": Action(_delete, GONE, request=_DRIVE),
        "delete of a rescued server": Action(_delete, GONE, before=("rescue",)),
        "soft delete": Action(_soft_delete, "SOFT_DELETED"),
        "restore": Action(_post("restore"), before=("soft delete",)),
    },
    "power": {
        "stop": Action(_post("os-stop"), "SHUTOFF"),
        "start": Action(_post("os-start"), before=("stop",)),
        "soft reboot": Action(_post("reboot", {"type": "SOFT"})),
        "hard reboot": Action(_post("reboot", {"type": "HARD"})),
    },
    "freezing": {
        "pause": Action(_post("pause"), "PAUSED"),
        "unpause": Action(_post("unpause"), before=("pause",)),
        "suspend": Action(_post("suspend"), "SUSPENDED"),
        "resume": Action(_post("resume"), before=("suspend",)),
    },
    "another root": {
        "rebuild": Action(_rebuild, back="rebuild"),
        "rescue": Action(_post("rescue", {"adminPass": "a-password"}), "RESCUE"),
        "unrescue": Action(_post("unrescue"), before=("rescue",)),
    },
    "another flavor": {
        "resize": Action(_resize, "VERIFY_RESIZE"),
        "confirm": Action(_post("confirmResize"), before=("resize",)),
        "revert": Action(_post("revertResize"), before=("resize",)),
    },
    "images": {
        "snapshot": Action(_post("createImage", {"name": "snapshot"})),
        "shelve": Action(_shelve, "SHELVED"),
        "unshelve": Action(_post("unshelve"), before=("shelve",)),
        "offload": Action(
            _post("shelveOffload"), "SHELVED_OFFLOADED", before=("shelve",), again=True
        ),
        "unshelve elsewhere": Action(_post("unshelve"), before=("shelve", "offload")),
    },
    "interfaces": {
        "attach interface": Action(_attach, answers=True),
        "detach interface": Action(_detach, before=("attach interface",)),
    },
    "a look inside": {
        "set password": Action(_post("changePassword", {"adminPass": "x"}), answers=True),
        "console log": Action(_post("os-getConsoleOutput", {}), answers=True),
        "diagnostics": Action(_diagnostics, answers=True),
    },
}
"""The actions; a group shares one Nova, which takes its time to start."""

ACTIONS = {name: action for group in GROUPS.values() for name, action in group.items()}
CREATIONS = frozenset(name for name, action in ACTIONS.items() if action.send is _create)

WAY_BACK = {
    "RESCUE": "unrescue",
    "SHELVED": "unshelve",
    "SHELVED_OFFLOADED": "unshelve elsewhere",
    "SOFT_DELETED": "restore",
    "VERIFY_RESIZE": "revert",
}
"""What brings a server back that has a status; a hard reboot does from any other one."""
