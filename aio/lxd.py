"""A LXD of our own: its daemon, pools and everything in it live in one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aio import kernel
from aio.errors import AioError
from aio.lxcfs import Lxcfs
from aio.process import Process, all_pids, command_line, kill, owned_by, parent, wait_until
from aio.run import run
from aio.unixhttp import RequestFailed, UnixClient

_LONGEST_SOCKET = "seccomp.socket"
_SOCKET_PATH_LIMIT = 107
_LXC_CONFIG = Path("/usr/share/lxc/config")
_LXCFS_CONFIG = "00-lxcfs.conf"
_DEADLINE = 120.0  # seconds for one operation of the purge


class LxdDaemon:
    """A lxd whose LXD_DIR is ``folder``; another LXD on the machine is not touched.

    Raises AioError when ``folder`` is so long that a socket below it could not be bound.
    """

    def __init__(self, folder: Path, *, group: str | None = "lxd") -> None:
        self.folder = folder
        self.group = group
        if len(os.fsencode(folder / _LONGEST_SOCKET)) > _SOCKET_PATH_LIMIT:
            most = _SOCKET_PATH_LIMIT - len(_LONGEST_SOCKET) - 1
            raise AioError(
                f"{folder} is too long for LXD's unix sockets: at most {most} bytes",
                hint="choose a shorter folder",
            )
        self._own = folder / "daemon"  # what LXD does not know of
        self.process = Process("lxd", self._own, self._own, owner=str(folder))
        self.lxcfs = Lxcfs(self._own / "lxcfs", owner=str(folder))

    @property
    def socket(self) -> Path:
        """Path of the unix socket on which LXD answers."""
        return self.folder / "unix.socket"

    @property
    def client_config(self) -> Path:
        """The lxc client's private configuration folder (LXD_CONF)."""
        return self._own / "client"

    @property
    def env(self) -> dict[str, str]:
        """What makes the lxc client find this LXD."""
        return {"LXD_DIR": str(self.folder), "LXD_CONF": str(self.client_config)}

    def start(self, seconds: float = 60) -> None:
        """Start the daemon and wait until it answers; harmless when it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        self.lxcfs.start()
        if not self.process.pid:
            self.client_config.mkdir(parents=True, exist_ok=True)
            argv = ["lxd", "--logfile", str(self.process.log_file)]
            argv += ["--group", self.group] if self.group else []
            self.process.start(argv, env=self._environment())
        self.process.wait_ready(self._answers, seconds)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LXD_DIR": str(self.folder),
            "LXD_LXC_TEMPLATE_CONFIG": str(self._lxc_config()),
        }

    def _lxc_config(self) -> Path:
        """Copy LXC's defaults, with our lxcfs for the machine's.

        Its reboot hook stays out: it sleeps 0.5 s at every stop of a container.
        """
        target = self._own / "lxc-config"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(_LXC_CONFIG, target)
        hook = self.lxcfs.hook
        mount = f"lxc.hook.mount = {hook}\n" if hook.exists() else ""
        (target / "common.conf.d" / _LXCFS_CONFIG).write_text(mount)
        return target

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, RequestFailed):
            return bool(self._client(timeout=10).get("/1.0/projects"))
        return False

    def healthy(self) -> bool:
        """Tell whether the daemon runs and answers."""
        return bool(self.process.pid) and self._answers()

    def _client(self, timeout: float = _DEADLINE) -> UnixClient:
        return UnixClient(self.socket, timeout=timeout)

    def create_pool(self, name: str, driver: str = "btrfs", size: str = "20GiB") -> None:
        """Make a storage pool unless it exists: ``btrfs`` in a sparse loop file, or ``dir``."""
        client = self._client()
        if f"/1.0/storage-pools/{name}" in client.get("/1.0/storage-pools"):
            return
        config = {} if driver == "dir" else {"size": size}
        client.post("/1.0/storage-pools", {"name": name, "driver": driver, "config": config})

    def lxc(self, *args: str, timeout: float = 120) -> str:
        """Run the lxc client against this LXD and return its output."""
        return run("lxc", *args, env=self.env, timeout=timeout)

    def stop(self, seconds: float = 30) -> None:
        """Stop the daemon; its containers go on running."""
        self.process.stop(seconds)

    def purge(self) -> list[str]:
        """Remove everything: guests, images, pools, mounts, loop devices, daemon and folder.

        Works with a dead daemon too. Returns what LXD could not remove by itself, as text for a
        log; the harder means that follow removed it nevertheless.
        """
        problems: list[str] = []
        if self.healthy():
            problems = _Emptier(self._client()).run()
        networks = self._networks()
        self.stop(seconds=10)
        self._kill_leftovers()
        for network in networks:
            kernel.delete_link(network)
        kernel.remove_tree(self.folder)
        return problems

    def _networks(self) -> list[str]:
        folder = self.folder / "networks"
        return os.listdir(folder) if folder.is_dir() else []

    def _kill_leftovers(self) -> None:
        """End the guests and helpers of a daemon that is gone."""
        monitors = [pid for pid in all_pids() if self._is_monitor(pid)]
        guests = [pid for pid in all_pids() if parent(pid) in monitors]
        for pid in guests:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(AioError):
            wait_until(lambda: not any(map(self._is_monitor, monitors)), 10, "guests to end")
        kill([*filter(self._is_monitor, monitors), *owned_by(str(self.folder))])

    def _is_monitor(self, pid: int) -> bool:
        return command_line(pid).startswith(b"[lxc monitor] " + os.fsencode(self.folder) + b"/")


class _Emptier:
    """Removes through LXD's API all that users made in a LXD; collects what fails."""

    def __init__(self, client: UnixClient) -> None:
        self._client = client
        self._problems: list[str] = []

    def run(self) -> list[str]:
        projects = [path.split("/")[-1].split("?")[0] for path in self._list("/1.0/projects")]
        for project in projects:
            self._empty_project(project)
        for pool in self._list("/1.0/storage-pools"):
            for project in projects:
                self._delete_all(f"{pool}/volumes/custom", project)
        for project in projects:
            self._delete_all("/1.0/networks", project, keep=_is_unmanaged)
            self._reset_profiles(project)
        self._delete_all("/1.0/storage-pools")
        self._delete_all("/1.0/projects", keep=_is_default)
        return self._problems

    def _list(self, path: str) -> list[str]:
        return [url.split("?")[0] for url in self._client.get(path)]

    def _empty_project(self, project: str) -> None:
        instances = self._client.get(f"/1.0/instances?project={project}&recursion=1")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: self._delete_instance(item, project), instances))
        for path in self._list(f"/1.0/images?project={project}"):
            self._try("DELETE", f"{path}?project={project}")

    def _delete_instance(self, instance: dict[str, Any], project: str) -> None:
        path = f"/1.0/instances/{instance['name']}"
        if instance["status"] != "Stopped":
            stop = {"action": "stop", "force": True, "timeout": 10}
            self._try("PUT", f"{path}/state?project={project}", stop)
        self._try("DELETE", f"{path}?project={project}")

    def _reset_profiles(self, project: str) -> None:
        empty: dict[str, Any] = {"config": {}, "devices": {}, "description": ""}
        self._try("PUT", f"/1.0/profiles/default?project={project}", empty)
        self._delete_all("/1.0/profiles", project, keep=_is_default)

    def _delete_all(self, path: str, project: str = "default", keep: Any = None) -> None:
        for item in self._client.get(f"{path}?project={project}&recursion=1"):
            if not (keep and keep(item)):
                self._try("DELETE", f"{path}/{item['name']}?project={project}")

    def _try(self, method: str, path: str, body: object = None) -> None:
        try:
            self._client.request(method, path, body)
        except (OSError, RequestFailed) as error:
            self._problems.append(f"{method} {path}: {error}")


def _is_default(item: dict[str, Any]) -> bool:
    return bool(item["name"] == "default")


def _is_unmanaged(network: dict[str, Any]) -> bool:
    return not network["managed"]
