"""A libvirtd of a benchmark's own: what it keeps lies in one folder.

Debian's libvirtd has its paths built in. It gets a mount namespace in which our folder lies over
them, so a libvirt of the machine is neither used nor touched. And it gets a network namespace
with nothing in it: libvirt-lxc leaves a container without NIC in libvirtd's own network, where
this guest would try to bring up the host's cards.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from aio import kernel
from aio.process import Process
from aio.run import run

PACKAGES = (
    "libvirt-daemon libvirt-daemon-driver-lxc libvirt-daemon-driver-qemu"
    " python3-libvirt qemu-system-x86"
)
_BINDING = ("libvirtmod", "libvirt", "libvirtmod_qemu", "libvirt_qemu")
_BINDING_FOLDER = "/usr/lib/python3/dist-packages"
_DRIVERS = Path("/usr/lib/x86_64-linux-gnu/libvirt/connection-driver")
_PATHS = ("etc/libvirt", "run/libvirt", "var/cache/libvirt", "var/lib/libvirt", "var/log/libvirt")
_UNIFIED = "/sys/fs/cgroup/unified"
_FILES = {
    "etc/libvirt/libvirtd.conf": 'auth_unix_rw = "none"\nlog_outputs = "3:stderr"\n',
    # No virtlogd for one file of output.
    "etc/libvirt/qemu.conf": 'stdio_handler = "file"\nuser = "root"\ngroup = "root"\n',
}
# A user and group that Debian's libvirt-daemon-system makes, without which the QEMU driver fails.
_ACCOUNTS = {
    "etc/passwd": "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "libvirt-qemu:x:64055:\n",
}
# libvirt-lxc cannot start a container when a second hierarchy of cgroups lies among the first ones.
_START = """
if mountpoint -q {unified}; then umount {unified} || exit; fi
for path in {paths}; do mount --bind "$0/$path" "/$path" || exit; done
exec libvirtd --pid-file "$0/run/libvirt/libvirtd.pid"
"""


class AbsentError(Exception):
    """This machine lacks what a peer needs; the text says what, and how to get it."""


class Libvirtd:
    """The daemon, and where it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = Process("libvirtd", folder, folder, owner=str(folder))
        self._made: list[Path] = []
        self._groups = _cgroups()

    def uri(self, driver: str) -> str:
        """Name the daemon's driver, lxc or qemu, as libvirt's clients want it."""
        return f"{driver}+unix:///system?socket={self._socket}"

    @property
    def _socket(self) -> Path:
        return self.folder / "run/libvirt/libvirt-sock"

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        for path in _PATHS:
            (self.folder / path).mkdir(parents=True)
        accounts = {path: Path("/", path).read_text() + line for path, line in _ACCOUNTS.items()}
        for path, text in {**_FILES, **accounts}.items():
            (self.folder / path).write_text(text)
        # What Nova mounts below this folder later has to show up in the daemon's namespace.
        run("mount", "--bind", str(self.folder), str(self.folder))
        run("mount", "--make-shared", str(self.folder))
        self._made = [path for path in map(Path("/").joinpath, _PATHS) if not path.exists()]
        for path in self._made:
            path.mkdir(parents=True)
        script = _START.format(unified=_UNIFIED, paths=" ".join((*_PATHS, *_ACCOUNTS)))
        namespaces = ["unshare", "--net", "--mount", "--propagation", "slave"]
        self._process.start([*namespaces, "sh", "-c", script, str(self.folder)])
        self._process.wait_ready(self._socket.exists)

    def purge(self) -> None:
        """Remove the daemon with its domains and all that it made."""
        if self._process.pid and self._socket.exists():
            for driver in ("lxc", "qemu"):
                self._remove_domains(driver)
        self._process.stop()
        for path in (*self._made, *(_cgroups() - self._groups)):
            path.rmdir()
        for device in kernel.loops_below(self.folder):  # whose names go with the mount
            run("losetup", "--detach", device, check=False)
        kernel.remove_tree(self.folder)

    def _remove_domains(self, driver: str) -> None:
        import libvirt

        connection = libvirt.open(self.uri(driver))
        for domain in connection.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):  # one that is transient ends with this
                if domain.isActive():
                    domain.destroy()
                domain.undefine()
        connection.close()


@contextlib.contextmanager
def libvirtd(folder: Path) -> Iterator[Libvirtd]:
    """Run a libvirtd in ``folder``, which must not exist, and make ``import libvirt`` work.

    Raises AbsentError when a package is missing.
    """
    _need()
    daemon = Libvirtd(folder)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.purge()


def _cgroups() -> set[Path]:
    """Return the groups that hold the groups of domains; libvirt leaves them behind."""
    return {*Path("/sys/fs/cgroup").glob("machine"), *Path("/sys/fs/cgroup").glob("*/machine")}


def _need() -> None:
    there = shutil.which("libvirtd") and all(
        (_DRIVERS / f"libvirt_driver_{name}.so").exists() for name in ("lxc", "qemu")
    )
    if not (there and _load_binding()):
        raise AbsentError(
            f"libvirt is missing. Install it: apt-get install --no-install-recommends {PACKAGES}"
        )


def _load_binding() -> bool:
    """Take Debian's binding into this process alone: the virtual environment sees no others."""
    for name in _BINDING:
        spec = importlib.machinery.PathFinder.find_spec(name, [_BINDING_FOLDER])
        if not (spec and spec.loader):
            return False
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return True
