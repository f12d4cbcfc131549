"""``nova-lxd-status``: can this host run the driver, and what is on it that no server needs.

It reads nova-compute's configuration, asks LXD, the kernel and Open vSwitch, and for ``orphans``
also Nova's conductor.  It changes nothing.
"""

from __future__ import annotations

import os

# Nova chooses its concurrency backend once, and before anything else is imported.
os.environ.setdefault("OS_NOVA_DISABLE_EVENTLET_PATCHING", "1")
from nova import monkey_patch

monkey_patch.patch(backend="threading")

# ruff: noqa: E402
import json
import logging
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import nova.conf
import prettytable
from nova import config
from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from nova_lxd.cmd import conductor, orphans
from nova_lxd.cmd.orphans import Report
from nova_lxd.cmd.readiness import Readiness
from nova_lxd.virt.host import endpoint

CONF = nova.conf.CONF

CLEAN, ORPHANS, UNKNOWN = range(3)
"""What ``orphans`` ends with; wrong usage ends with 2 as well."""

_WIDTH = 60


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    # The libraries complain to standard error what is said below in one line.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        _configure(arguments)
        return int(CONF.command.run())
    except Exception as error:  # noqa: BLE001 -- a traceback's exit status would say "orphans"
        print(f"nova-lxd-status: {_line(error)}", file=sys.stderr)
        return UNKNOWN


def report_orphans(report: Report, form: str) -> int:
    """Print what was found, and return the exit status.

    :param form: ``table``, ``json`` or ``commands``
    """
    forms = {"table": _as_table, "json": _as_json, "commands": _as_commands}
    if text := forms[form](report):
        print(text)
    if form != "json":
        for line in report.undecided:
            print(f"nova-lxd-status: left out: {line}", file=sys.stderr)
    return ORPHANS if report.orphans else CLEAN


def _configure(arguments: list[str]) -> None:
    """Read the files that nova-compute reads."""
    CONF.register_cli_opt(cfg.SubCommandOpt("command", title="commands", handler=_add_commands))
    config.parse_args(
        ["nova-lxd-status", *arguments],
        default_config_files=cfg.find_config_files("nova", "nova-compute") or None,
        configure_db=False,
        init_rpc=False,
        prog="nova-lxd-status",
    )


def _add_commands(commands: Any) -> None:
    check = commands.add_parser(
        "check",
        help="tell whether nova-compute can run here with the LXD driver",
        epilog="Exit status: 0 it can, 1 with warnings, 2 it cannot.",
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(run=_check)
    found = commands.add_parser(
        "orphans",
        help="list what the driver left on this host, and how to remove it",
        epilog="Exit status: 0 nothing, 1 something, 2 it could not be found out.",
    )
    forms = found.add_mutually_exclusive_group()
    forms.add_argument("--format", choices=("table", "json"), default="table", dest="form")
    forms.add_argument(
        "--commands",
        action="store_const",
        const="commands",
        dest="form",
        help="print nothing but the commands that remove it, to be read and given to sh as root",
    )
    found.add_argument(
        "--timeout",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long an answer of nova-conductor may take (60)",
    )
    found.set_defaults(run=_orphans)


def _check() -> int:
    upgradecheck.CONF = CONF  # where it looks for --json
    return int(Readiness().check())


def _orphans() -> int:
    conductor.connect()
    nova_ = conductor.Nova(CONF.command.timeout)
    socket = endpoint()
    report = orphans.find(lambda: orphans.facts_of_host(socket), nova_)
    return report_orphans(report, CONF.command.form)


def _as_table(report: Report) -> str:
    if not report.orphans:
        return "Nothing of the driver's on this host is without a server."
    table = prettytable.PrettyTable(["What no server needs"], hrules=prettytable.HRuleStyle.ALL)
    table.align = "l"
    for orphan in report.orphans:
        why = textwrap.fill(f"Why: {orphan.why}", _WIDTH, subsequent_indent="  ")
        table.add_row([f"What: {orphan.what}\n{why}\nCommand: {orphan.command}"])
    return str(table)


def _as_json(report: Report) -> str:
    return json.dumps(asdict(report))


def _as_commands(report: Report) -> str:
    return "\n".join(orphan.command for orphan in report.orphans)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    known = isinstance(error, conductor.CannotTell)
    return text if known else f"{type(error).__name__}: {text}"
