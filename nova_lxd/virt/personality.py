"""Injected files (``personality``): a few that the tenant wants in the root disk at first boot."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from nova_lxd import exception
from nova_lxd.virt.session import Session

Files = Sequence[tuple[str, bytes]]
"""Paths and contents, as Nova decoded them."""


def check(files: Files) -> None:
    """Refuse a path that does not say plainly where in the root disk it is.

    A relative one counts from the root, as Nova's libvirt driver has it.
    """
    for path, _ in files:
        parts = path.split("/")
        if not parts[-1] or {".", ".."} & set(parts) or set(path) & {"\n", "\r", "\0"}:
            raise exception.Refused(
                f"the injected file {path!r} must have a path to a file, without '.', '..' and "
                "line ends"
            )


def put(session: Session, name: str, files: Files) -> None:
    """Write the files into a container that has not been started.

    :raises Refused: the image has something else in the way of one
    """
    for path, content in files:
        try:
            session.put_file(name, posixpath.normpath("/" + path.lstrip("/")), content)
        except exception.LXDError as error:
            raise exception.Refused(
                f"the injected file {path!r} has no place in the image: {error}"
            ) from error
