"""An OVN of our own: its databases and daemons, on an Open vSwitch that runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from aio import kernel
from aio.ovs import OvsDaemon
from aio.process import Process
from aio.run import run

PROGRAMS = {"ovn-northd": "ovn-central", "ovn-controller": "ovn-host"}
"""The daemons and the Debian packages that they are in."""
CHASSIS = "nlt"
_SCHEMAS = Path("/usr/share/ovn")


def missing_packages() -> list[str]:
    """Return the Debian packages without which there is no OVN."""
    return [package for program, package in PROGRAMS.items() if not shutil.which(program)]


class OvnDaemons:
    """Both databases, ovn-northd and ovn-controller, with all their files in ``folder``."""

    def __init__(self, folder: Path, ovs: OvsDaemon, bridge: str) -> None:
        self.folder = folder
        self._ovs = ovs
        self._bridge = bridge
        self._processes = {
            name: Process(name, folder / "pids", folder / "log", owner=str(folder))
            for name in ("nb", "sb", "northd", "controller")
        }

    def start(self, host: str, seconds: float = 60) -> None:
        """Start all daemons on the running Open vSwitch, and wait until the bridge is OVN's.

        :param host: what Neutron calls this host when it binds ports
        """
        self.folder.mkdir(parents=True)
        for name in ("nb", "sb"):
            self._start_database(name, seconds)
        databases = [f"--ovn{name}-db={self._db(name)}" for name in ("nb", "sb")]
        self._start("northd", "ovn-northd", *databases)
        ids = [f"external_ids:{key}={value}" for key, value in self._settings(host).items()]
        self._ovs.vsctl("set", "Open_vSwitch", ".", *ids)
        self._start("controller", "ovn-controller", self._ovs.db)
        self._processes["controller"].wait_ready(
            lambda: self.sbctl("--bare", "list", "Chassis"), seconds
        )

    def _start_database(self, name: str, seconds: float) -> None:
        file, socket = self.folder / f"{name}.db", self.folder / f"{name}.sock"
        run("ovsdb-tool", "create", str(file), str(_SCHEMAS / f"ovn-{name}.ovsschema"))
        control = f"--unixctl={self.folder / name}.ctl"
        self._start(name, "ovsdb-server", str(file), f"--remote=punix:{socket}", control)
        self._processes[name].wait_ready(socket.exists, seconds)

    def _start(self, name: str, *command: str) -> None:
        argv = [*command, "-vconsole:info", "-vsyslog:off"]
        env = {**os.environ, **self._ovs.env, "OVN_RUNDIR": str(self.folder)}
        self._processes[name].start(argv, env=env)

    def _settings(self, host: str = "") -> dict[str, str]:
        return {
            "system-id": CHASSIS,
            "hostname": host,
            "ovn-bridge": self._bridge,
            "ovn-remote": self._db("sb"),
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": "127.0.0.1",
        }

    def stop(self) -> None:
        """Stop all daemons and make the bridge anew, as it was before them."""
        self.purge()
        self._ovs.start()
        self._ovs.vsctl("remove", "Open_vSwitch", ".", "external_ids", *self._settings())
        self._ovs.vsctl("del-br", self._bridge)
        self._ovs.add_bridge(self._bridge)

    def purge(self) -> None:
        """Stop what runs, a crashed test's as well, and remove the folder."""
        for process in reversed(self._processes.values()):
            process.stop()
        kernel.remove_tree(self.folder)

    def _db(self, name: str) -> str:
        return f"unix:{self.folder / name}.sock"

    def nbctl(self, *args: str) -> str:
        """Change or read the northbound database, as Neutron does."""
        return run("ovn-nbctl", f"--db={self._db('nb')}", "--timeout=60", *args).strip()

    def sbctl(self, *args: str) -> str:
        """Read the southbound database, in which ovn-controller reports."""
        return run("ovn-sbctl", f"--db={self._db('sb')}", "--timeout=60", *args).strip()

    def ports_up(self) -> set[str]:
        """Return the ids of the ports that OVN calls up, which is when Neutron reports them."""
        query = ("--bare", "--columns=name", "find", "Logical_Switch_Port", "up=true")
        return set(self.nbctl(*query).split())

    def binding(self, port_id: str) -> tuple[bool, bool]:
        """Tell whether this host claims a port, and whether it has wired it."""
        row = ("find", "Port_Binding", f"logical_port={port_id}")
        return bool(self.sbctl(*row, "chassis!=[]")), bool(self.sbctl(*row, "up=true"))

    def vif_details(self) -> dict:
        """Return what Neutron's mechanism driver ``ovn`` says of a bound port.

        See ``bind_port`` in neutron/plugins/ml2/drivers/ovn/mech_driver/mech_driver.py.
        """
        return {
            "port_filter": True,
            "connectivity": "l2",
            "ovs_create_tap": True,
            "bridge_name": self._bridge,
            "datapath_type": self.sbctl("get", "Chassis", CHASSIS, "other_config:datapath-type"),
            "bound_drivers": {"0": "ovn"},
        }
