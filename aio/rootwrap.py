"""How an unprivileged nova-compute starts its privsep daemons: our files of etc/, moved.

The folder etc/compute of the state folder stands for /etc/nova, and the virtual environment for
/usr/bin; else they are what an operator installs.
"""

from __future__ import annotations

import re
from pathlib import Path

from aio.errors import AioError
from aio.ini import fill_sample
from aio.process import OWNER, SERVICE
from aio.settings import REPOSITORY, Settings

ETC = REPOSITORY / "etc"
#: Where sudo reads what the cloud's user may do.
SUDOERS = Path("/etc/sudoers.d/nova-lxd-aio")
_PLAIN = re.compile(r"[\w./-]+")


def helper(settings: Settings) -> str:
    """Return the command that starts privsep-helper, as root or through sudo and rootwrap."""
    folder = settings.etc / "compute"
    command = f"{settings.program('privsep-helper')} --config-file {folder}/nova.conf"
    if settings.choices.user == "root":
        return command
    rootwrap = f"sudo {settings.program('nova-rootwrap')} {folder}/rootwrap.conf"
    return f"{rootwrap} privsep-helper --config-file {folder}/nova.conf"


def files(settings: Settings) -> dict[Path, str]:
    """Return the configuration of rootwrap with its filters; empty when nova-compute is root."""
    if settings.choices.user == "root":
        return {}
    folder = settings.etc / "compute"
    chosen = {
        "filters_path": f"{folder}/rootwrap.d,{settings.venv}/etc/nova/rootwrap.d",
        "exec_dirs": str(settings.venv / "bin"),
    }
    sample = (ETC / "nova" / "rootwrap.conf.sample").read_text()
    return {
        folder / "rootwrap.conf": fill_sample(sample, {"DEFAULT": chosen}),
        folder / "rootwrap.d" / "lxd.filters": _moved(settings, "nova/rootwrap.d/lxd.filters"),
    }


def sudoers(settings: Settings) -> str:
    """Return the content of ``SUDOERS``; our marks let ``down`` find what sudo started.

    Raises AioError when the state folder's name means something to sudo.
    """
    if not _PLAIN.fullmatch(str(settings.state)):
        raise AioError(
            f"sudo cannot be told of {settings.state}",
            hint="choose a --state folder with letters, digits and ./_- alone",
        )
    marks = f'Defaults:{settings.choices.user} env_keep += "{OWNER} {SERVICE}"\n'
    return marks + _moved(settings, "sudoers.d/nova-lxd")


def _moved(settings: Settings, name: str) -> str:
    text = (ETC / name).read_text()
    text = text.replace("/usr/bin/nova-rootwrap", settings.program("nova-rootwrap"))
    return text.replace("/etc/nova/", f"{settings.etc}/compute/")
