"""The system user that nova-compute runs as with ``up --user nova``.

It and its line for sudo lie outside of the state folder: ``add`` writes down what it is about to
make, and ``remove`` takes exactly that away.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
from pathlib import Path

from aio import rootwrap
from aio.errors import AioError
from aio.run import run
from aio.settings import REPOSITORY, Settings

PACKAGES = ("sudo",)


def exists(user: str) -> bool:
    """Tell whether the machine has the user."""
    return any(entry.pw_name == user for entry in pwd.getpwall())


def add(settings: Settings) -> None:
    """Make the user unless there is one, and let it do what nova-compute needs; nothing for root.

    Raises AioError when it cannot be made, or cannot use the virtual environment.
    """
    user = settings.choices.user
    if user == "root":
        return
    sudoers = rootwrap.sudoers(settings)
    _record(settings, user)
    if not exists(user):
        home = ("--home-dir", str(settings.data / "nova"), "--shell", "/usr/sbin/nologin")
        hint = f"where there is a group {user} already, make the user yourself"
        run("useradd", "--system", "--user-group", "--no-create-home", *home, user, hint=hint)
    _allow(sudoers)
    _make_environment(settings, user)


def _record(settings: Settings, user: str) -> None:
    file = settings.state / "account.json"
    if not file.exists():
        file.write_text(json.dumps({"user": user, "made": not exists(user)}))


def _allow(sudoers: str) -> None:
    scratch = rootwrap.SUDOERS.with_suffix(".new")  # sudo reads no file with a dot in its name
    scratch.touch(mode=0o440)
    scratch.write_text(sudoers)
    hint = "sudo 1.9.10 or later is needed"
    run("visudo", "--check", "--file", str(scratch), hint=hint)
    scratch.rename(rootwrap.SUDOERS)


def _make_environment(settings: Settings, user: str) -> None:
    """Make an environment that the user can read: Python and checkout may be in a folder of root's.

    It has the driver, and finds everything else in the virtual environment.
    """
    (packages,) = (settings.venv / "lib").glob("python3.*/site-packages")
    own = settings.code / packages.relative_to(settings.venv)
    mine = settings.code / "bin" / "python"
    if not mine.exists():
        python = _usable_python(settings, user, packages.parent.name)
        run(python, "-m", "venv", "--without-pip", str(settings.code))
    driver, ignored = REPOSITORY / "nova_lxd", shutil.ignore_patterns("__pycache__")
    shutil.copytree(driver, own / "nova_lxd", ignore=ignored, dirs_exist_ok=True)
    (own / "aio.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n")
    hint = f"{user} must be able to read {settings.venv}"
    run("runuser", "-u", user, "--", str(mine), "-c", "import nova.virt.lxd", hint=hint)


def _usable_python(settings: Settings, user: str, version: str) -> str:
    """Return the environment's Python, or the system's of the same version, such as python3.11."""
    candidates = (str(Path(settings.program("python")).resolve()), f"/usr/bin/{version}")
    for python in candidates:
        with contextlib.suppress(AioError):
            run("runuser", "-u", user, "--", python, "-c", "")
            return python
    raise AioError(
        f"{user} can execute neither {' nor '.join(candidates)}",
        hint="run aio with a Python that everybody can execute, such as /usr/bin/python3",
    )


def share(path: Path, user: str) -> None:
    """Let the user's group, and nobody else, read a file or folder that stays root's."""
    os.chown(path, 0, pwd.getpwnam(user).pw_gid)
    path.chmod(0o750 if path.is_dir() else 0o640)


def give(path: Path, user: str) -> None:
    """Make a file or folder the user's own."""
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)


def remove(settings: Settings) -> None:
    """Remove what ``add`` made; harmless when it made nothing."""
    file = settings.state / "account.json"
    if not file.exists():
        return
    record = json.loads(file.read_text())
    for path in (rootwrap.SUDOERS, rootwrap.SUDOERS.with_suffix(".new")):
        path.unlink(missing_ok=True)
    if record["made"] and exists(record["user"]):
        run("userdel", record["user"])
    file.unlink()
