"""Everything the fake holds.  Tests read it to see what exists."""

from __future__ import annotations

import json
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .answers import Refusal
from .clock import EPOCH, now
from .operations import Operations

Devices = dict[str, dict[str, str]]

STATUS_CODES = {"Running": 103, "Stopped": 102, "Frozen": 110, "Error": 112}


@dataclass
class Pool:
    """A storage pool; sizes in bytes."""

    name: str
    driver: str
    config: dict[str, str] = field(default_factory=dict)
    total: int = 20 * 2**30
    used: int = 6062080


@dataclass
class Profile:
    """A profile of one project."""

    name: str
    config: dict[str, str] = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    description: str = ""

    def covered(self) -> list[Any]:
        """Return what the ETag covers."""
        return [self.config, self.description, self.devices]


@dataclass
class Image:
    """An image in a project's store; its files lie in the fake's folder as in LXD's."""

    fingerprint: str
    properties: dict[str, str]
    architecture: str
    created_at: str
    size: int
    filename: str = ""
    public: bool = False
    uploaded_at: str = field(default_factory=now)
    last_used_at: str = "0001-01-01T00:00:00Z"


@dataclass
class Alias:
    """An image's name."""

    name: str
    target: str
    description: str = ""


@dataclass
class Instance:
    """A container that exists but does not run."""

    name: str
    project: str
    profiles: list[str]
    config: dict[str, str]
    devices: Devices
    architecture: str = "x86_64"
    description: str = ""
    ephemeral: bool = False
    status: str = "Stopped"
    created_at: str = field(default_factory=now)
    last_used_at: str = EPOCH
    busy: str = ""
    """The operation that holds it: ``start``, ``stop``, ``create`` ..."""
    console: bytes = b""
    """What the guest wrote since the console was last read."""
    console_log: bytes | None = None
    """What was read, and all of it once the guest has stopped; None until the first start."""
    deaf: bool = False
    """Whether the guest ignores a request to shut down."""
    pid: int = 0
    files: dict[str, bytes | None] = field(default_factory=lambda: {"/": None})
    """What was put into its root: contents by path, None for a folder."""
    snapshots: dict[str, Any] = field(default_factory=dict)
    """Config and devices by the snapshot's name."""
    published: list[str] = field(default_factory=list)
    """The snapshots of which images are being made."""

    def covered(self) -> list[Any]:
        """Return what the ETag covers: not the description."""
        return [self.architecture, self.config, self.devices, self.ephemeral, self.profiles]


@dataclass
class Project:
    """An LXD project."""

    name: str
    config: dict[str, str]
    description: str = ""
    profiles: dict[str, Profile] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)

    def has(self, feature: str) -> bool:
        """Whether the project has objects of that kind of its own."""
        return self.config.get(f"features.{feature}") == "true"


class State:
    """The daemon's database.  Handlers hold ``lock`` while they read or change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.operations = Operations()
        self.server: dict[str, Any] = json.loads(
            Path(__file__).with_name("server.json").read_text()
        )
        features = ("images", "networks", "profiles", "storage.volumes")
        self.projects = {
            "default": Project(
                "default", {f"features.{name}": "true" for name in features}, "Default LXD project"
            )
        }
        self.projects["default"].profiles["default"] = Profile(
            "default", description="Default LXD profile"
        )
        self.pools = {"default": Pool("default", "btrfs")}
        self.id_range = (100000, 10000001)
        """First host id and number of ids that containers may use."""
        self.bridges: set[str] | None = None
        """The host's bridges; None means that any parent is there."""
        self.seconds: dict[str, float] = {}
        """How long an action takes: ``start``, ``stop``, ``create``, ``unpack`` ..."""
        self.busy_after_failed_start = 0.0
        """Seconds an instance stays busy after its init could not be run (1 to 10 on LXD)."""
        self.deaf_guests = False
        """Whether new guests ignore a request to shut down."""

    @property
    def instances(self) -> dict[tuple[str, str], Instance]:
        """Every instance by project and name."""
        return {
            (project.name, name): instance
            for project in self.projects.values()
            for name, instance in project.instances.items()
        }

    def project(self, name: str, prefix: str = "") -> Project:
        """Return a project; the text of the refusal depends on who asks."""
        try:
            return self.projects[name]
        except KeyError:
            raise Refusal(404, f"{prefix}Project not found") from None

    def project_for(self, feature: str, name: str, prefix: str) -> Project:
        """Return the project whose objects of that kind the named project uses."""
        project = self.project(name, prefix)
        return project if project.has(feature) else self.projects["default"]

    def add_instance(self, project: str, name: str, **values: Any) -> Instance:
        """Put an instance there, for a test that needs somebody else's."""
        config = {"volatile.uuid": str(uuid.uuid4()), **values.pop("config", {})}
        instance = Instance(name, project, ["default"], config, {}, **values)
        self.projects[project].instances[name] = instance
        return instance


def suffix(project: str) -> str:
    """Return what LXD appends to the URL of an object outside the default project."""
    return "" if project == "default" else f"?project={project}"
