"""The daemons under the functional tests, and what they may leave in the kernel."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import time
from pathlib import Path

from aio import kernel
from aio.lxd import LxdDaemon
from aio.ovs import OvsDaemon
from nova_lxd.invariants import Link, gather
from tests.functional.ovn import OvnDaemons

POOL = "default"
BRIDGE = "br-nlt"
_LOCK_DEADLINE = 1800
_FOLDER = Path(
    os.environ.get("NOVA_LXD_TEST_FOLDER", "/var/tmp/nova-lxd-functional")
    + os.environ.get("NOVA_LXD_TEST_LANE", "")
)

PORT_PREFIX = hashlib.sha256(bytes(_FOLDER)).hexdigest()[:4]
"""What the ids of all our ports begin with: their host devices tell whose they are."""

_OUR_LINK = re.compile(rf"(tap|tin|qbr|qvb|qvo){PORT_PREFIX}.*")


class Machine:
    """A LXD and an Open vSwitch of our own, beside whatever else runs on this computer."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self.folder = folder
        self.lxd = LxdDaemon(folder / "lxd")
        self.ovs = OvsDaemon(folder / "ovs", manager_port=_free_port(), datapath="dummy")
        self.ovn = OvnDaemons(folder / "ovn", self.ovs, BRIDGE)

    @contextlib.contextmanager
    def running(self):
        """Start both daemons; remove everything at both ends, a crashed run's remains as well."""
        with _locked(self.folder):
            self._purge()
            try:
                self.lxd.start(120)
                self.lxd.create_pool(POOL, "btrfs", "10GiB")
                self.ovs.start(120)
                self.ovs.add_bridge(BRIDGE)
                yield self
            finally:
                self._purge()

    def get(self, path: str):
        """Ask LXD directly; see ``gather.lxd``."""
        return gather.lxd(str(self.lxd.socket))(path)

    def our_links(self) -> tuple[Link, ...]:
        """Return the host devices of ports of ours; a cloud beside us has its own."""
        return tuple(link for link in gather.links() if _OUR_LINK.fullmatch(link.name))

    def clean(self, project: str) -> None:
        """Remove a project with all that is in it, and every device and OVS port of ours."""
        # Killing a test in the middle must not stop the next ones.
        self.lxd.start(120)
        self.ovs.start(120)
        self._empty(project)
        for port in gather.ovs_ports(self.ovs.db):
            if _OUR_LINK.fullmatch(port.name):
                self.ovs.vsctl("--if-exists", "del-port", port.name)
        for link in self.our_links():
            kernel.delete_link(link.name)

    def _empty(self, project: str) -> None:
        names = {url.rsplit("/", 1)[-1] for url in self.get("/1.0/projects")}
        if project not in names:
            return
        for path in self.get(f"/1.0/instances?project={project}"):
            name = path.split("?")[0].rsplit("/", 1)[-1]
            self.lxd.lxc("delete", "--force", "--project", project, name)
        for image in self.get(f"/1.0/images?project={project}"):
            fingerprint = image.split("?")[0].rsplit("/", 1)[-1]
            self.lxd.lxc("image", "delete", "--project", project, fingerprint)
        for path in self.get(f"/1.0/profiles?project={project}"):
            name = path.split("?")[0].rsplit("/", 1)[-1]
            if name != "default":
                self.lxd.lxc("profile", "delete", "--project", project, name)
        self.lxd.lxc("project", "delete", project)

    def _purge(self) -> None:
        self.lxd.purge()
        self.ovn.purge()
        self.ovs.purge()
        for link in self.our_links():
            kernel.delete_link(link.name)
        kernel.remove_tree(self.folder)


@contextlib.contextmanager
def _locked(folder: Path):
    """Let one functional session at a time use the folder.

    The lock is a socket name of the kernel's: it goes with the process and leaves no file.
    """
    deadline = time.monotonic() + _LOCK_DEADLINE
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                lock.bind(f"\0{folder}")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
