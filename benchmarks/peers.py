"""One busybox system up and down: our driver beside other ways to the same on this machine.

Run as root from the repository root with the cloud's virtual environment::

    eval "$(python3 aio env)"; python benchmarks/peers.py [-n 30] [--kernel VMLINUZ]

The contestants take turns in one process, one system at a time, all with the files of the busybox
image, which each has at hand, and none with a NIC:

nova-lxd
    ``spawn()`` and ``destroy()`` of our driver: profile and instance from the cached image
    (copy-on-write on btrfs), a disk quota, an id map of the server's own, limits.
raw LXD
    The requests that create, start, stop (by force) and delete the same container: the floor.
lxc client
    ``lxc launch`` and ``lxc delete --force`` with the same settings: the floor, a process for each
    command, and what the client asks besides.
libvirt-lxc by Nova
    ``spawn()`` and ``destroy()`` of Nova's own libvirt driver with ``[libvirt] virt_type = lxc``
    and ``images_type = raw``: it copies the cached image, an ext4 file system, grows the copy to
    the flavor's disk, mounts it by a loop device and defines and starts a domain. There is no id
    map: the guest's root is the host's, for this Nova fails when ``[libvirt] uid_maps`` is set
    ("cannot unpack non-iterable LibvirtConfigGuestUIDMap object"). There is no network namespace
    either without a NIC (libvirtd itself is put into an empty one here).
qemu TCG
    A virtual machine by libvirt, without Nova and without KVM: the processor is emulated, so
    this tells nothing about KVM. It has 256 MiB, no disk, and the files as its initramfs.

A container is up when its API says that it runs; its userspace has then only started. The virtual
machine is up when its userspace writes the first line to the serial console. It takes long, so
it takes part in five rounds only, and is compared with what ran in those.

The figures of memory are the proportional set sizes of one system's processes, with its monitor
or emulator, once they stand still. What the kernel holds for it is not counted, nor are daemons.

Debian packages for the last two: see PACKAGES in libvirtd.py, and for a kernel KERNEL_HINT in
tcg.py. What is missing is reported, also in the results (``absent``), and the others are
measured. It starts a LXD and a libvirtd of its own and removes them. Writes
benchmarks/results/peers.json.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aio.images.busybox import build_busybox
from aio.lxd import LxdDaemon
from aio.process import all_pids, command_line, memory, parent, wait_until
from benchmarks import contest as contests
from benchmarks import libvirtlxc, tcg
from benchmarks.contest import CONF, Contest, timed
from benchmarks.libvirtd import AbsentError, libvirtd
from benchmarks.stats import Cost, Row, paired, table

WARM_UPS = 5
FEW = 5
OURS, RAW, CLIENT = "nova-lxd", "raw LXD", "lxc client"
LIBVIRT, TCG = "libvirt-lxc by Nova", "qemu TCG"
RESULTS = Path(__file__).parent / "results" / "peers.json"


Costs = dict[str, dict[int, Cost]]
"""Of a peer, in a round."""


@dataclass(frozen=True)
class Peer:
    """A way to bring a system up and down; each call takes the number of the round."""

    up: Callable[[int], object]
    down: Callable[[int], object]
    mark: Callable[[int], str]
    """What the command line of the system's monitor or emulator holds."""


def main() -> None:
    """Run the benchmark and write benchmarks/results/peers.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=30, help="counted rounds")
    parser.add_argument("--kernel", type=Path, help="of the virtual machine [/boot/vmlinuz-*]")
    options = parser.parse_args()
    absent: dict[str, str] = {}
    with contests.contest() as contest, contextlib.ExitStack() as stack:
        peers = _of_lxd(contest) | _of_libvirt(stack, options.kernel, absent)
        up, down = _measure(peers, options.n)
        sizes = {name: _memory(peer, WARM_UPS + options.n) for name, peer in peers.items()}
    rows = _rows("spawn", up) + _rows("destroy", down)
    print(table(rows))
    for name, size in sizes.items():
        print(f"memory of {name}: {size} MiB")
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    contests.write(rows, RESULTS, more={"memory_mib": sizes, "absent": absent})


def _of_lxd(contest: Contest) -> dict[str, Peer]:
    server = functools.cache(contests.server)
    lxd = LxdDaemon(Path(CONF.lxd.endpoint).parent, group=None)
    project = f"--project={contests.PROJECT['project']}"
    launch = ["launch", contest.fingerprint, "launched", project, *_launch_options()]
    return {
        OURS: Peer(
            lambda number: contests.spawn(contest.driver, server(number)),
            lambda number: contest.driver.destroy(None, server(number), None),
            lambda number: _monitor(server(number).name),
        ),
        RAW: Peer(
            lambda _: contests.raw_spawn(contest),
            lambda _: contests.raw_destroy(contest),
            lambda _: _monitor(contests.RAW),
        ),
        CLIENT: Peer(
            lambda _: lxd.lxc(*launch),
            lambda _: lxd.lxc("delete", "--force", "launched", project),
            lambda _: _monitor("launched"),
        ),
    }


def _launch_options() -> list[str]:
    config = [f"--config={key}={value}" for key, value in contests.CONFIG.items()]
    root = contests.ROOT
    disk = [f"--storage={root['pool']}", f"--device=root,size={root['size']}"]
    return ["--no-profiles", *config, *disk]


def _monitor(name: str) -> str:
    return f"[lxc monitor] {Path(CONF.lxd.endpoint).parent}/containers nova_{name}"


def _of_libvirt(
    stack: contextlib.ExitStack, kernel: Path | None, absent: dict[str, str]
) -> dict[str, Peer]:
    """Start what libvirt can do here; why it cannot do the rest goes into ``absent``."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nlb", dir="/var/tmp")))
    try:
        daemon = stack.enter_context(libvirtd(folder / "libvirt"))
    except AbsentError as error:
        absent[LIBVIRT] = absent[TCG] = str(error)
        return {}
    rootfs = _rootfs(folder)
    server = functools.cache(libvirtlxc.server)
    driver = stack.enter_context(libvirtlxc.libvirt_lxc(daemon, rootfs))
    peers = {
        LIBVIRT: Peer(
            lambda number: libvirtlxc.spawn(driver, server(number)),
            lambda number: libvirtlxc.destroy(driver, server(number)),
            lambda number: f"libvirt_lxc\0--name\0{server(number).name}",
        )
    }
    try:
        machines = stack.enter_context(tcg.machines(daemon, rootfs, kernel))
    except AbsentError as error:
        absent[TCG] = str(error)
        return peers
    mark = f"guest={tcg.NAME}"
    return peers | {TCG: Peer(lambda _: machines.up(), lambda _: machines.down(), lambda _: mark)}


def _rootfs(folder: Path) -> Path:
    """Unpack the image, for a file system and for an initramfs."""
    archive, rootfs = build_busybox(folder / "busybox.tar.gz"), folder / "rootfs"
    rootfs.mkdir()
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(rootfs)], check=True)
    return rootfs


def _measure(peers: dict[str, Peer], rounds: int) -> tuple[Costs, Costs]:
    """Let all take turns, each time another one first; the warm-ups are not told."""
    up: Costs = {name: {} for name in peers}
    down: Costs = {name: {} for name in peers}
    names = list(peers)
    for number in range(WARM_UPS + rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if name == TCG and not _takes_part(number - WARM_UPS, rounds):
                continue
            peer = peers[name]
            cost = timed(functools.partial(peer.up, number))
            after = timed(functools.partial(peer.down, number))
            if number >= WARM_UPS:
                up[name][number], down[name][number] = cost, after
    return up, down


def _takes_part(number: int, rounds: int) -> bool:
    """Tell whether a slow one takes part in a counted round; also in one warm-up, the last."""
    return number == -1 or (number >= 0 and number % -(-rounds // FEW) == 0)


def _rows(what: str, costs: Costs) -> list[Row]:
    rows = []
    for name, theirs in costs.items():
        if name != OURS:
            ours = [costs[OURS][number] for number in theirs]
            target = 1.10 if name == RAW else None
            rows.append(paired(what, ours, name, list(theirs.values()), target))
    return rows


def _memory(peer: Peer, number: int) -> float:
    """Return the MiB of one system, once two looks at it agree."""
    peer.up(number)
    looks = [0, 0]

    def rests() -> bool:
        looks.append(sum(map(memory, _family(peer.mark(number)))))
        return looks[-1] > 0 and abs(looks[-1] - looks[-2]) < 0.01 * looks[-1]

    try:
        wait_until(rests, 30, f"{peer.mark(number)} to stand still", interval=1)
    finally:
        peer.down(number)
    return round(looks[-1] / 1024**2, 1)


def _family(mark: str) -> list[int]:
    """Return the process whose command line holds ``mark``, and all that it started."""
    pids = all_pids()
    family = [pid for pid in pids if mark.encode() in command_line(pid)]
    for pid in family:  # grows while it is walked
        family += [child for child in pids if parent(child) == pid and child not in family]
    return family


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # Nova's libvirt driver has threads that never end
