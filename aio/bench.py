"""``aio bench``: runs the benchmarks, one after the other, and draws what they measured."""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aio import lent, machine
from aio.cloud import Cloud
from aio.report import Reporter
from aio.settings import REPOSITORY, Settings

FOLDER = REPOSITORY / "benchmarks"
EXTRAS = "bench"


@dataclass(frozen=True)
class Bench:
    """One script of ``benchmarks/``; ``minutes`` is about how long it takes on two cores."""

    name: str
    minutes: int
    cloud: bool = False

    @property
    def script(self) -> Path:
        """Where it is."""
        return FOLDER / f"{self.name}.py"

    @property
    def what(self) -> str:
        """Return the first line of what the script says about itself."""
        return (ast.get_docstring(ast.parse(self.script.read_text())) or "").splitlines()[0]


BENCHES = (
    Bench("spawn", 1),
    Bench("peers", 5),
    Bench("threads", 5),
    Bench("ports", 4),
    Bench("actions", 8),
    Bench("images", 8),
    Bench("image_memory", 2, cloud=True),
    Bench("periodic", 12),
    Bench("throughput", 6),
    Bench("boot", 5, cloud=True),
    Bench("cycles", 5, cloud=True),
    Bench("outages", 3, cloud=True),
    Bench("scale", 40, cloud=True),
    Bench("memory", 40, cloud=True),
    Bench("idle", 40, cloud=True),
)


def main(settings: Settings, argv: Sequence[str]) -> int:
    """Run what was named, by default everything; the exit status is 0 when all of it ended well."""
    options, arguments = _parse(argv)
    if options.list:
        for bench in BENCHES:
            print(f"{bench.name:<14}{bench.minutes:>3} min  {bench.what}")
        return 0
    machine.require_root()
    _prepare(settings)
    failed = []
    if not options.report:
        chosen = [bench for bench in BENCHES if bench.name in (options.names or _names())]
        failed = _run_all(settings, chosen, arguments)
    _python(settings, FOLDER / "report.py", [])
    for name in failed:
        print(f"benchmark {name} failed")
    return 1 if failed else 0


def _prepare(settings: Settings) -> None:
    reporter = Reporter()
    with reporter.stage(1, 2, "Install OpenStack with pip"):
        machine.ensure_environment(settings, reporter)
    with reporter.stage(2, 2, "Install what draws with pip"):
        machine.install_extras(settings, EXTRAS, reporter)


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    at = list(argv).index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="python3 aio bench",
        description=__doc__,
        epilog="what stands behind -- goes to the benchmark, for example: spawn -- -n 5",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of --list; all when none is named"
    )
    parser.add_argument("--list", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--report", action="store_true", help="draw the kept results, run nothing")
    options = parser.parse_args(argv[:at])
    if unknown := sorted(set(options.names) - set(_names())):
        parser.error(f"no such benchmark: {', '.join(unknown)} (there are {', '.join(_names())})")
    return options, list(argv[at + 1 :])


def _names() -> list[str]:
    return [bench.name for bench in BENCHES]


def _run_all(settings: Settings, chosen: Sequence[Bench], arguments: Sequence[str]) -> list[str]:
    """Run them, those of the cloud last, and return the names of those that failed."""
    alone = [bench for bench in chosen if not bench.cloud]
    in_cloud = [bench for bench in chosen if bench.cloud]
    failed = [bench.name for bench in alone if not _passes(settings, bench, arguments)]
    if in_cloud:
        with lent.cloud(settings):
            failed += [bench.name for bench in in_cloud if not _passes(settings, bench, arguments)]
    return failed


def _passes(settings: Settings, bench: Bench, arguments: Sequence[str]) -> bool:
    print(f"\n== {bench.name}: {bench.what}", flush=True)
    return not _python(settings, bench.script, arguments)


def _python(settings: Settings, script: Path, arguments: Sequence[str]) -> int:
    """Run a script with the environment's Python, as ``eval "$(python3 aio env)"`` would."""
    exports = Cloud(settings).exports()
    env = {**os.environ, **exports, "PATH": settings.path}
    env["NOVA_LXD_AIO_STATE"] = str(settings.state)
    command = [settings.program("python"), str(script), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=env, check=False).returncode
