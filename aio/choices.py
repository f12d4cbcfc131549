"""What a person chooses for one cloud; kept in its folder from ``up`` to ``down``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aio.errors import AioError

FIREWALLS = ("iptables_hybrid", "openvswitch")
USERS = ("root", "nova")


@dataclass(frozen=True)
class Choices:
    """``firewall`` is Neutron's firewall_driver, ``user`` whom nova-compute runs as."""

    firewall: str = FIREWALLS[0]
    user: str = USERS[0]

    def __str__(self) -> str:
        return " ".join(f"--{name} {value}" for name, value in asdict(self).items())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options; one that is left out means what was chosen before."""
    parser.add_argument(
        "--firewall", choices=FIREWALLS, help=f"Neutron's firewall_driver (default: {FIREWALLS[0]})"
    )
    parser.add_argument(
        "--user", choices=USERS, help=f"whom nova-compute runs as (default: {USERS[0]})"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command that has no others."""
    parser = argparse.ArgumentParser(prog="aio up", allow_abbrev=False)
    add_options(parser)
    return parser.parse_args(argv)


def read(file: Path) -> Choices:
    """Return what was chosen, the defaults where nothing was."""
    return Choices(**json.loads(file.read_text())) if file.exists() else Choices()


def merge(before: Choices, wanted: argparse.Namespace) -> Choices:
    """Return what holds when options were given; one that was not stays as it was."""
    given = {name: value for name in asdict(before) if (value := getattr(wanted, name))}
    return replace(before, **given)


def choose(file: Path, wanted: argparse.Namespace, *, fixed: bool) -> None:
    """Keep what is wanted for all commands that follow.

    Raises AioError when ``fixed`` and another choice was kept: ports and files of a cloud that is
    there are as that one made them.
    """
    before = read(file)
    chosen = merge(before, wanted)
    if fixed and chosen != before:
        raise AioError(
            f"the cloud was brought up with {before} and cannot change to {chosen}",
            hint=f"python3 aio down; python3 aio up {chosen}",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(chosen)))
