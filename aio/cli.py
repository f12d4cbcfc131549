"""The command line: ``python3 aio COMMAND``."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aio import choices, machine, stages, teardown
from aio.cloud import Cloud
from aio.errors import AioError
from aio.report import Reporter, table
from aio.settings import DEFAULT_STATE, LXD_DRIVER, Settings

_LATER = {
    "demo": ("aio.demo", "up, then the whole story with three servers"),
    "test": ("aio.testing", "run the tests: unit, functional, cloud"),
    "bench": ("aio.bench", "measure against the raw LXD API and others, and draw it"),
    "tempest": ("aio.tempest", "run Tempest against the running cloud"),
    "image": ("aio.images.cli", "build an image and upload it"),
}


def up(settings: Settings, argv: Sequence[str] = ()) -> int:
    """Bring the cloud up, from whatever state it is in."""
    parser = argparse.ArgumentParser(prog="aio up", description=up.__doc__)
    choices.add_options(parser)
    wanted = parser.parse_args(argv)
    began = time.monotonic()
    reporter = Reporter()
    machine.require_root()
    with machine.alone(settings):
        choices.choose(settings.choices_file, wanted, fixed=settings.data.exists())
        stages.run_stages(stages.UP, Cloud(settings), reporter)
    reporter.line(f"The cloud is up after {time.monotonic() - began:.0f} s. Next:")
    reporter.line(f'  eval "$({_command(settings, "env")})"; openstack hypervisor list; lxc list')
    return 0


def down(settings: Settings, argv: Sequence[str] = ()) -> int:
    """Stop everything and remove what the cloud made."""
    parser = argparse.ArgumentParser(prog="aio down", description=down.__doc__)
    parser.add_argument("--purge", action="store_true", help=f"also remove {settings.state}")
    purge = parser.parse_args(argv).purge
    machine.require_root()
    plan = teardown.PURGE if purge else teardown.DOWN
    if settings.state.exists():
        with machine.alone(settings):
            stages.run_stages(plan, Cloud(settings), Reporter())
    return 0


def status(settings: Settings, argv: Sequence[str] = ()) -> int:
    """Show every service; the exit status is 0 only when all are healthy."""
    argparse.ArgumentParser(prog="aio status", description=status.__doc__).parse_args(argv)
    rows = Cloud(settings).status()
    text = [
        (
            row.name,
            str(row.pid or "-"),
            f"{row.memory / 2**20:.0f} MiB",
            "yes" if row.healthy else "NO",
        )
        for row in rows
    ]
    total = sum(row.memory for row in rows)
    text.append(("total", "", f"{total / 2**20:.0f} MiB", ""))
    print(table(("service", "pid", "memory", "healthy"), text))
    print(f"up {settings.choices}")
    return 0 if all(row.healthy for row in rows) else 1


def env(settings: Settings, argv: Sequence[str] = ()) -> int:
    """Print export lines for: eval "$(python3 aio env)"."""
    argparse.ArgumentParser(prog="aio env", description=env.__doc__).parse_args(argv)
    if not settings.venv.exists():
        raise AioError(f"there is no cloud in {settings.state}", hint=_command(settings, "up"))
    print(export_lines(Cloud(settings).exports(), settings))
    return 0


def export_lines(exports: dict[str, str], settings: Settings) -> str:
    """Return shell code that sets ``exports`` and puts the environment's programs into PATH."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    return "\n".join([*lines, f'export PATH={shlex.quote(str(settings.venv / "bin"))}:"$PATH"'])


def _command(settings: Settings, command: str) -> str:
    state = "" if settings.state == Path(DEFAULT_STATE) else f"--state {settings.state} "
    return f"python3 aio {state}{command}"


_COMMANDS = {"up": up, "down": down, "status": status, "env": env}


def _parser() -> argparse.ArgumentParser:
    commands = {name: function.__doc__ or "" for name, function in _COMMANDS.items()}
    commands |= {name: text for name, (_, text) in _LATER.items()}
    parser = argparse.ArgumentParser(
        prog="python3 aio COMMAND",
        description="A real OpenStack with LXD containers on one machine.",
        epilog="commands:\n" + "\n".join(f"  {name:<9}{text}" for name, text in commands.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("NOVA_LXD_AIO_STATE", DEFAULT_STATE)),
        help="folder that holds everything (default: %(default)s; environment NOVA_LXD_AIO_STATE)",
    )
    parser.add_argument(
        "--compute-driver",
        default=os.environ.get("NOVA_LXD_AIO_COMPUTE_DRIVER", LXD_DRIVER),
        help="for developers: what nova-compute loads, for example fake.FakeDriverWithoutFakeNodes "
        "to compare (default: %(default)s; environment NOVA_LXD_AIO_COMPUTE_DRIVER)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    command, *arguments = rest or ["--help"]
    if command not in {*_COMMANDS, *_LATER}:
        parser.print_help()
        return 0 if command in ("-h", "--help") else 2
    state = options.state.expanduser().absolute()
    return _run(command, Settings(state=state, compute_driver=options.compute_driver), arguments)


def _run(command: str, settings: Settings, argv: Sequence[str]) -> int:
    try:
        if command in _COMMANDS:
            return _COMMANDS[command](settings, argv)
        return int(importlib.import_module(_LATER[command][0]).main(settings, argv))
    except AioError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
