"""Prepares the machine: refuses what cannot work, installs packages and the environment."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from aio import kernel, report
from aio.errors import AioError
from aio.run import failure, run
from aio.settings import REPOSITORY, Settings

PACKAGES = (
    "btrfs-progs",
    "busybox-static",
    "ca-certificates",
    "conntrack",
    "dnsmasq-base",
    "dnsmasq-utils",
    "dropbear-bin",
    "ethtool",
    "haproxy",
    "iproute2",
    "ipset",
    "iptables",
    "iputils-arping",
    "iputils-ping",
    "lxd",
    "lxd-client",
    "mariadb-server",
    "mmdebstrap",
    "openssh-client",
    "openvswitch-switch",
    "procps",
    "python3-venv",
    "qemu-utils",
    "rabbitmq-server",
    "radvd",
    "squashfs-tools",
    "zstd",
)
#: What the functional tests need besides.
TEST_PACKAGES = ("ovn-central", "ovn-host")
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
#: Of the Python that Debian packages are made for.
SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")
GIB = 1024**3
MEMORY_NEEDED = 5 * GIB
DISK_NEEDED = 8 * GIB
POLICY = Path("/usr/sbin/policy-rc.d")
_SPARE_POLICY = Path("/usr/sbin/policy-rc.d.before-nova-lxd-aio")


def require_root() -> None:
    """Raise AioError unless we are root."""
    if os.geteuid():
        raise AioError("this must run as root", hint="sudo python3 aio ...")


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Hold the cloud's lock; AioError when another ``up`` or ``down`` has it."""
    settings.state.mkdir(parents=True, exist_ok=True)
    folder = os.open(settings.state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(folder, settings)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, settings: Settings) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AioError(
            f"another 'aio up' or 'aio down' is at work in {settings.state}",
            hint="wait until it has ended",
        ) from None


def require_room(settings: Settings) -> None:
    """Raise AioError when memory or disk will not do."""
    available = memory_available()
    if available < MEMORY_NEEDED:
        raise AioError(
            f"{available / GIB:.1f} GiB of memory are available, {MEMORY_NEEDED // GIB} are needed",
            hint="stop something large (free -h), or use a machine with at least 6 GiB",
        )
    folder = next(path for path in (settings.state, *settings.state.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < DISK_NEEDED:
        raise AioError(
            f"{free / GIB:.1f} GiB are free at {folder}, {DISK_NEEDED // GIB} are needed",
            hint="choose another place with --state DIR",
        )


def memory_available() -> int:
    """Return how many bytes new processes may take without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_ports(ports: Mapping[str, int]) -> None:
    """Raise AioError when somebody listens on one of ``ports`` (name -> port)."""
    taken = {name: port for name, port in ports.items() if not _is_free(port)}
    if taken:
        names = ", ".join(f"{port} ({name})" for name, port in taken.items())
        first = next(iter(taken.values()))
        raise AioError(
            f"in use by a process that is not of this cloud: port {names}",
            hint=f"'ss -ltnp sport = :{first}' shows which; what an earlier cloud left, "
            "'python3 aio down' ends",
        )


def missing_packages(wanted: Sequence[str] = PACKAGES) -> list[str]:
    """Return the Debian packages that are not installed."""
    query = ("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted)
    lines = run(*query, check=False).splitlines()
    installed = {line.split()[0] for line in lines if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def install_packages(reporter: report.Reporter, more: Sequence[str] = ()) -> None:
    """Install the Debian packages that are missing, starting no daemon of theirs, now or at boot.

    The cloud has its own; a second RabbitMQ after the next boot would be in its way.
    """
    missing = missing_packages((*PACKAGES, *more))
    if not missing:
        return
    hint = "is the machine's apt set up? 'apt-get update' must work"
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    lock = ("-o", "DPkg::Lock::Timeout=300")
    reporter.progress("apt-get update")
    run("apt-get", *lock, "-qq", "update", env=env, timeout=600, hint=hint)
    install = ("install", "--yes", "--no-install-recommends", *missing)
    enabled = _enabled_units()
    with daemons_forbidden():
        lines = stream(["apt-get", *lock, "-o", "APT::Status-Fd=1", *install], env, hint)
        for line in lines:
            if line.startswith(("pmstatus:", "dlstatus:")):
                kind, _, percent, text = line.split(":", 3)
                base = 0.0 if kind == "dlstatus" else 50.0
                reporter.count(round(base + float(percent) / 2), 100, f"% {text[:50]}")
    if (new := _enabled_units() - enabled) and kernel.have("systemctl"):
        run("systemctl", "disable", *sorted(new), check=False)


def _enabled_units(folder: Path = Path("/etc/systemd/system")) -> set[str]:
    return {link.name for link in folder.glob("*.wants/*")}


@contextmanager
def daemons_forbidden(policy: Path = POLICY, spare: Path = _SPARE_POLICY) -> Iterator[None]:
    """Keep packages from starting their daemons, leaving the machine's own policy as it was."""
    if policy.exists() and not spare.exists():
        policy.rename(spare)
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)
        if spare.exists():
            spare.rename(policy)


def stream(argv: Sequence[str], env: dict[str, str], hint: str = "") -> Iterator[str]:
    """Run a command and yield its output's lines as they come; AioError when it fails."""
    last: list[str] = []
    with subprocess.Popen(
        argv,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        for line in process.stdout:
            last = [*last[-29:], line.rstrip()]
            yield line.rstrip()
    if process.returncode:
        raise failure(argv, process.returncode, "\n".join(last), hint)


def environment_fingerprint() -> str:
    """Return a digest of what the virtual environment is made from."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {REPOSITORY}".encode())
    for file in (CONSTRAINTS, REQUIREMENTS, REPOSITORY / "pyproject.toml"):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def environment_is_complete(settings: Settings) -> bool:
    """Tell whether the virtual environment was made from what is pinned now."""
    mark = settings.venv / "complete"
    return mark.exists() and mark.read_text() == environment_fingerprint()


def _make_environment(settings: Settings, reporter: report.Reporter) -> None:
    """Make the virtual environment, or bring it to what is pinned; with nova-lxd, editable."""
    hint = "can pip reach its package index? 'pip download pbr' must work"
    if not (settings.venv / "bin" / "pip").exists():
        shutil.rmtree(settings.venv, ignore_errors=True)
        # Not sys.executable: in a shell with our environment that is the one to be replaced.
        python = str(Path(sys.executable).resolve())
        run(python, "-m", "venv", str(settings.venv), timeout=300)
    requirements = ["--requirement", str(REQUIREMENTS), "--editable", str(REPOSITORY)]
    install = [settings.program("pip"), "install", "--no-input", *requirements]
    env = {"PIP_CONSTRAINT": str(CONSTRAINTS), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    count = _counter(reporter)
    for line in stream(install, env, hint):
        count(line)
    (settings.venv / "complete").write_text(environment_fingerprint())


def ensure_environment(settings: Settings, reporter: report.Reporter) -> None:
    """Make the virtual environment unless it is complete."""
    try:
        settings.state.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise AioError(str(error), hint="choose a folder of yours with --state DIR") from error
    if not environment_is_complete(settings):
        _make_environment(settings, reporter)
    _lend_parser(settings)


def _lend_parser(settings: Settings) -> None:
    """Give the environment the C parser of Debian's python3-openvswitch, where that is installed.

    pip leaves it out of the package ovs, since it needs a shared library of Open vSwitch's that
    Debian does not have; what that parses with instead takes ten times as long.
    """
    theirs = SYSTEM_PACKAGES / "ovs" / f"_json{sysconfig.get_config_var('EXT_SUFFIX')}"
    for package in settings.venv.glob("lib/python3.*/site-packages/ovs"):
        ours = package / theirs.name
        if theirs.exists() and not ours.exists():
            ours.unlink(missing_ok=True)
            ours.symlink_to(theirs)


def install_extras(settings: Settings, extras: str, reporter: report.Reporter) -> None:
    """Add the packages of pyproject.toml's ``extras`` (comma-separated); quick when done."""
    mark = settings.venv / f"extras-{extras}"
    fingerprint = environment_fingerprint()
    if mark.exists() and mark.read_text() == fingerprint:
        return
    package = f"{REPOSITORY}[{extras}]"
    install = [settings.program("pip"), "install", "--no-input", "--editable", package]
    env = {"PIP_CONSTRAINT": str(CONSTRAINTS), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for line in stream(install, env):
        reporter.progress(line)
    mark.write_text(fingerprint)


def _counter(reporter: report.Reporter) -> Callable[[str], None]:
    collected = 0

    def count(line: str) -> None:
        nonlocal collected
        if line.startswith("Collecting "):
            collected += 1
            reporter.progress(f"{collected} packages collected")
        elif line.startswith("Installing collected"):
            reporter.progress(f"installing {collected} packages")

    return count
