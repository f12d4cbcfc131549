"""``aio test``: runs the rings of tests one after the other and counts."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from aio import choices, machine, teardown
from aio.cloud import Cloud
from aio.errors import AioError
from aio.report import Reporter
from aio.settings import REPOSITORY, Settings
from aio.stages import run_stages

_NOTHING_COLLECTED = 5  # pytest's exit status
CLOUD = "tests/cloud"
_CLEANING = 120  # seconds an interrupted pytest gets to tear its fixtures down


@dataclass(frozen=True)
class Ring:
    """Tests that need the same things; ``seconds`` is how long all of them may take.

    ``workers`` is among how many processes pytest deals them out, each test to one that is free.
    ``lanes`` is into how many their files are split beforehand, each with daemons of its own.
    ``up`` are the options of ``aio up`` for the cloud in which they run.
    """

    name: str
    folder: str
    needs_root: bool
    seconds: int
    workers: int = 0
    lanes: int = 1
    up: str = ""


RINGS = (
    Ring("unit", "tests/unit", needs_root=False, seconds=1500, workers=2),
    Ring("functional", "tests/functional", needs_root=True, seconds=3000, lanes=2),
    Ring("cloud", CLOUD, needs_root=True, seconds=1500),
    Ring(
        "cloud-nova",
        CLOUD,
        needs_root=True,
        seconds=1500,
        up="--user nova --firewall openvswitch",
    ),
)
HEAVY = {
    "test_delete.py": 2,
    "test_fault_table.py": 2,
    "test_hostile.py": 4,
    "test_ports.py": 2,
}
"""Files that take longer than others of their size, and how much."""
CHECKS = ("lint", "mypy")
EXTRAS = "test,lint"


@dataclass(frozen=True)
class Count:
    """Tests that ran; a skipped one did not."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed"


def parse(argv: Sequence[str]) -> tuple[list[Ring], list[str], bool]:
    """Split the command line into rings, pytest's arguments, and whether to check style too.

    Without a ring all of them run, in order, and the style checks before them.
    """
    words, rest = _split(argv)
    parser = argparse.ArgumentParser(prog="python3 aio test", description=__doc__)
    names = [ring.name for ring in RINGS]
    parser.add_argument("rings", nargs="*", metavar="RING", help=f"of {', '.join(names)}")
    chosen = parser.parse_args(words).rings
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"no such ring: {', '.join(unknown)} (there are {', '.join(names)})")
    return [ring for ring in RINGS if ring.name in (chosen or names)], rest, not chosen


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    at = list(argv).index("--") if "--" in argv else len(argv)
    return list(argv[:at]), list(argv[at + 1 :])


def require_root(rings: Sequence[Ring], uid: int) -> None:
    """Refuse rings that need root when we are not."""
    names = [ring.name for ring in rings if ring.needs_root]
    if names and uid != 0:
        raise AioError(
            f"the tests of {' and '.join(names)} start LXD and Open vSwitch and need root",
            hint="run it as root, or only: python3 aio test unit",
        )


def require_choices(rings: Sequence[Ring], cloud: Cloud) -> None:
    """Refuse a ring whose cloud is another one than that which is up."""
    settings = cloud.settings
    if not cloud.any_running():
        return
    for ring in rings:
        wanted = choices.merge(settings.choices, choices.parse(shlex.split(ring.up)))
        if wanted != settings.choices:
            others = " ".join(other.name for other in rings if not other.up)
            raise AioError(
                f"the ring {ring.name} is for a cloud with {ring.up}; {settings.choices} is up",
                hint=f"python3 aio down; or only: python3 aio test {others}".rstrip(": "),
            )


def remove_remains(cloud: Cloud) -> None:
    """Take down a cloud of which no process runs, as a killed test run leaves it.

    The rings want a cloud with nothing in it, and of their own choice.
    """
    if cloud.settings.data.exists() and not cloud.any_running():
        print("\n== what a cloud that no longer runs has left", flush=True)
        run_stages(teardown.DOWN, cloud, Reporter())


def commands(environment: str) -> list[list[str]]:
    """Return what tox runs in ``environment``, so that it is said in one place."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(REPOSITORY / "tox.ini")
    lines = tox[f"testenv:{environment}"]["commands"].splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def count(junit: Path) -> Count:
    """Count the test cases of a JUnit file; one that failed twice counts once."""
    total = Count()
    if not junit.exists():
        return total
    for case in ElementTree.parse(junit).iter("testcase"):
        outcomes = {child.tag for child in case}
        failed = bool(outcomes & {"failure", "error"})
        skipped = not failed and "skipped" in outcomes
        total += Count(not (failed or skipped), failed, skipped)
    return total


def check(settings: Settings) -> list[str]:
    """Run the style checks and return those that failed."""
    failed = []
    for argv in (argv for environment in CHECKS for argv in commands(environment)):
        print(f"-- {shlex.join(argv)}", flush=True)
        if any(_run([[settings.program(argv[0]), *argv[1:]]], settings, 600)):
            failed.append(shlex.join(argv))
    return failed


def run_ring(settings: Settings, ring: Ring, arguments: Sequence[str]) -> Count:
    """Run one ring and return what it counted.

    A pytest that ends badly without a failed test counts as one failure.
    """
    print(f"\n== {ring.name}", flush=True)
    (settings.state / "test").mkdir(parents=True, exist_ok=True)
    lanes = [[ring.folder, *arguments]] if arguments else split(ring)
    names = [ring.name, *(f"{ring.name}-{number}" for number in range(2, len(lanes) + 1))]
    files = [settings.state / "test" / f"{name}.xml" for name in names]
    for junit in files:
        junit.unlink(missing_ok=True)
    pytest = [settings.program("python"), "-m", "pytest", "--no-header"]
    commands = [
        [*pytest, f"--junitxml={junit}", *lane] for junit, lane in zip(files, lanes, strict=True)
    ]
    statuses = _run(
        commands, settings, ring.seconds, {"NOVA_LXD_AIO_UP": ring.up} if ring.up else {}
    )
    results = zip(names, statuses, map(count, files), strict=True)
    return sum((_judged(*result, chosen=bool(arguments)) for result in results), Count())


def split(ring: Ring) -> list[list[str]]:
    """Deal a ring's files out to its lanes: the longest first, each to the lane that has least."""
    if ring.lanes == 1:
        workers = [f"--numprocesses={ring.workers}"] if ring.workers else []
        return [[*workers, ring.folder]]
    loads = {path: _load(path) for path in (REPOSITORY / ring.folder).rglob("test_*.py")}
    lanes: list[list[Path]] = [[] for _ in range(ring.lanes)]
    for path in sorted(loads, key=lambda path: (-loads[path], path)):
        min(lanes, key=lambda lane: sum(loads[each] for each in lane)).append(path)
    return [sorted(map(str, lane)) for lane in lanes]


def _load(path: Path) -> int:
    return path.stat().st_size * HEAVY.get(path.name, 1)


def _judged(name: str, status: int, counted: Count, *, chosen: bool) -> Count:
    if not status or counted.failed or (status == _NOTHING_COLLECTED and chosen):
        return counted
    print(f"{name}: pytest ended with status {status}", flush=True)
    return counted + Count(failed=1)


def _run(
    commands: Sequence[Sequence[str]],
    settings: Settings,
    seconds: float,
    more: Mapping[str, str] | None = None,
) -> list[int]:
    """Run commands in the repository side by side; interrupt them when their time is over.

    What all but the first say is shown when they have ended.
    """
    own = {"PATH": settings.path, "NOVA_LXD_AIO_STATE": str(settings.state)}
    env = {**os.environ, **own, **(more or {})}
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands[1:]]
        children = [
            subprocess.Popen(
                argv,
                cwd=REPOSITORY,
                env=env | {"NOVA_LXD_TEST_LANE": str(number)} if output else env,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
            )
            for number, (argv, output) in enumerate(zip(commands, [None, *said], strict=True), 1)
        ]
        statuses = _wait(children, seconds)
        for output in said:
            output.seek(0)
            shutil.copyfileobj(output, sys.stdout.buffer)
        sys.stdout.flush()
    return statuses


def _wait(children: Sequence[subprocess.Popen[bytes]], seconds: float) -> list[int]:
    try:
        return [child.wait(seconds) for child in children]
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
        for child in children:
            child.send_signal(signal.SIGINT)  # so that fixtures stop their daemons
        for child in children:
            _await_end(child)
        if isinstance(stopped, KeyboardInterrupt):
            raise
        print(f"{shlex.join(stopped.cmd)} took longer than {seconds:.0f} s", flush=True)
        return [child.returncode or 1 for child in children]


def _await_end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(_CLEANING)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def summary(counts: Count, failed_checks: Sequence[str]) -> str:
    """Return the last words: failed checks and skipped tests, then the one line that counts."""
    lines = [f"check failed: {command}" for command in failed_checks]
    if counts.skipped:
        lines.append(f"{counts.skipped} skipped")
    return "\n".join(["", *lines, str(counts)])


def prepare(settings: Settings, *, as_root: bool) -> None:
    """Install the packages (root only), the environment and the test tools; quick when done."""
    reporter = Reporter()
    steps: list[tuple[str, Callable[[Reporter], None]]] = [
        ("Install OpenStack with pip", functools.partial(machine.ensure_environment, settings)),
        (
            "Install the test tools with pip",
            functools.partial(machine.install_extras, settings, EXTRAS),
        ),
    ]
    if as_root:
        install = functools.partial(machine.install_packages, more=machine.TEST_PACKAGES)
        steps.insert(0, ("Install Debian packages", install))
    for number, (title, step) in enumerate(steps, 1):
        with reporter.stage(number, len(steps), title):
            step(reporter)


def main(settings: Settings, argv: Sequence[str]) -> int:
    """Run the tests; the exit status is 0 when all that ran passed, and some did."""
    rings, arguments, with_checks = parse(argv)
    require_root(rings, os.geteuid())
    require_choices(rings, Cloud(settings))
    prepare(settings, as_root=os.geteuid() == 0)
    if any(ring.folder == CLOUD for ring in rings):
        remove_remains(Cloud(settings))
    failed_checks = check(settings) if with_checks else []
    total = sum((run_ring(settings, ring, arguments) for ring in rings), start=Count())
    print(summary(total, failed_checks), flush=True)
    return 1 if failed_checks or total.failed or not total.passed else 0
