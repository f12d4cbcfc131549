"""An Open vSwitch of our own: database, daemon and bridges apart from the machine's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

from aio import kernel
from aio.errors import AioError
from aio.process import Process
from aio.run import run

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
#: The kernel device of the userspace datapath; the name is fixed in Open vSwitch.
DATAPATH = "ovs-netdev"


class OvsDaemon:
    """ovsdb-server and ovs-vswitchd with all their files in ``folder``.

    ``datapath`` is ``netdev``, the userspace datapath: it needs no kernel module and cannot touch
    the kernel datapath of another Open vSwitch, and a network namespace has room for one. Or it is
    ``dummy``, which forwards between existing links in the same way, but makes no links of its own
    (no ``br-int``, no internal ports): any number of those work side by side, enough for tests
    without Neutron's agents.
    """

    def __init__(self, folder: Path, *, manager_port: int = 6640, datapath: str = "netdev") -> None:
        self.folder = folder
        self.datapath = datapath
        self.rundir = folder / "run"
        self.manager_port = manager_port
        self._socket = self.rundir / "db.sock"
        self._file = folder / "conf.db"
        owner = str(folder)
        self._database = Process("ovsdb-server", self.rundir / "pids", folder / "log", owner=owner)
        self._switch = Process("ovs-vswitchd", self.rundir / "pids", folder / "log", owner=owner)

    @property
    def db(self) -> str:
        """Connection string of the database's unix socket."""
        return f"unix:{self._socket}"

    @property
    def tcp(self) -> str:
        """Connection string of the database's TCP port on loopback."""
        return f"tcp:127.0.0.1:{self.manager_port}"

    @property
    def env(self) -> dict[str, str]:
        """What makes the ovs-* commands find this Open vSwitch."""
        return {
            "OVS_RUNDIR": str(self.rundir),
            "OVS_DBDIR": str(self.folder),
            "OVS_LOGDIR": str(self.folder / "log"),
            "OVS_SYSCONFDIR": str(self.folder),
        }

    @property
    def processes(self) -> tuple[Process, Process]:
        """The two daemons, in the order in which they start."""
        return self._database, self._switch

    def start(self, seconds: float = 60) -> None:
        """Start both daemons and wait until they answer; harmless when they run.

        Raises AioError when the port is taken or another userspace Open vSwitch is in the way.
        """
        self.rundir.mkdir(parents=True, exist_ok=True)
        if not self._file.exists():
            run("ovsdb-tool", "create", str(self._file), str(SCHEMA))
        if not self._database.pid:
            self._refuse_taken_port()
            self._start_database(seconds)
        if not self._switch.pid:
            self._refuse_second_datapath()
            self._start_switch(seconds)

    def _refuse_taken_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.manager_port))
            except OSError as error:
                raise AioError(
                    f"port {self.manager_port} for Open vSwitch's database: {error.strerror}",
                    hint=f"ss -ltnp 'sport = :{self.manager_port}' shows who has it",
                ) from None

    def _refuse_second_datapath(self) -> None:
        if self.datapath == "netdev" and kernel.tap_is_busy(DATAPATH):
            raise AioError(
                f"the link {DATAPATH} exists: another Open vSwitch with the userspace datapath runs"
                " in this network namespace, and there is room for one only",
                hint="stop the other one, or use another network namespace",
            )

    def _start_database(self, seconds: float) -> None:
        self._socket.unlink(missing_ok=True)
        argv = [
            "ovsdb-server",
            str(self._file),
            f"--remote=punix:{self._socket}",
            "--remote=db:Open_vSwitch,Open_vSwitch,manager_options",
            f"--unixctl={self.rundir / 'ovsdb-server.ctl'}",
            "-vconsole:info",
            "-vsyslog:off",
        ]
        self._database.start(argv, env=self._environment())
        self._database.wait_ready(self._socket.exists, seconds)
        self.vsctl("--no-wait", "init")
        self.vsctl("--no-wait", "set-manager", f"ptcp:{self.manager_port}:127.0.0.1")

    def _start_switch(self, seconds: float) -> None:
        argv = [
            "ovs-vswitchd",
            self.db,
            "--disable-system",
            *(["--enable-dummy"] if self.datapath == "dummy" else []),
            f"--unixctl={self.rundir / 'ovs-vswitchd.ctl'}",
            "-vconsole:info",
            "-vsyslog:off",
        ]
        self._switch.start(argv, env=self._environment())
        self._switch.wait_ready(self._configured, seconds)

    def _configured(self) -> bool:
        wanted, done = (
            self.vsctl("--no-wait", "get", "Open_vSwitch", ".", column).strip()
            for column in ("next_cfg", "cur_cfg")
        )
        return self._answers() and done == wanted

    def _answers(self) -> bool:
        with contextlib.suppress(AioError):
            control = str(self.rundir / "ovs-vswitchd.ctl")
            return bool(run("ovs-appctl", "-t", control, "version", timeout=5))
        return False

    def healthy(self) -> bool:
        """Tell whether both daemons run and answer."""
        return bool(self._database.pid and self._switch.pid) and self._answers()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    def vsctl(self, *args: str, timeout: float = 30) -> str:
        """Run ovs-vsctl and return its output."""
        return run("ovs-vsctl", f"--db={self.db}", f"--timeout={timeout:.0f}", *args, env=self.env)

    def ofctl(self, *args: str) -> str:
        """Run ovs-ofctl (OpenFlow 1.0 to 1.4) and return its output."""
        return run("ovs-ofctl", "-O", "OpenFlow10,OpenFlow13,OpenFlow14", *args, env=self.env)

    def add_bridge(self, name: str) -> None:
        """Make a bridge; on the userspace datapath it appears as a link of the same name.

        Raises AioError when a link of that name belongs to somebody else, or Open vSwitch fails.
        """
        if name in self.bridges():
            return
        if self.datapath == "netdev" and name in kernel.links():
            raise AioError(
                f"the link {name} exists on this machine and is not ours",
                hint=f"is another cloud running here? 'ip link show {name}' tells more",
            )
        self.vsctl("add-br", name, "--", "set", "bridge", name, f"datapath_type={self.datapath}")
        if "could not" in (error := self.vsctl("get", "interface", name, "error")):
            raise AioError(f"Open vSwitch cannot make {name}: {error}", log=self._switch.tail())

    def bridges(self) -> list[str]:
        """Return the names of the bridges."""
        return self.vsctl("list-br").split()

    def ports(self, kind: str = "") -> list[str]:
        """Return the names of all interfaces, or of those of one type.

        They are read from the file: the daemons need not run.
        """
        if not self._file.exists():
            return []
        where = [["type", "==", kind]] if kind else []
        select = {"op": "select", "table": "Interface", "where": where, "columns": ["name"]}
        query = json.dumps(["Open_vSwitch", select])
        answer = run("ovsdb-tool", "query", str(self._file), query, check=False)
        return [row["name"] for row in json.loads(answer)[0]["rows"]] if answer else []

    def stop(self, seconds: float = 10) -> None:
        """Stop both daemons; the database and the links of the bridges stay for the next start."""
        self._switch.stop(seconds)
        self._database.stop(seconds)

    def purge(self) -> None:
        """Delete the bridges with their links, stop the daemons and remove the folder.

        Works with dead daemons too.
        """
        if self.healthy():
            for name in self.bridges():
                self.vsctl("del-br", name)
        internal = self.ports("internal")
        self.stop()
        for name in {*internal, DATAPATH} if self.datapath == "netdev" else ():
            if not kernel.tap_is_busy(name):
                kernel.delete_link(name)
        kernel.remove_tree(self.folder)
