"""Config drives: Nova's metadata as files that only the guest can read.

A drive is a storage volume of LXD's, filled by importing a backup that is written here.  So its
content, which may hold passwords, never lies in a file of ours, and LXD gives it to the guest's
root whatever the guest's id map is.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterable
from typing import Any

from nova.api.metadata import base as instance_metadata
from nova.virt import configdrive
from oslo_serialization import jsonutils

from nova_lxd import exception
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.model import HostFacts
from nova_lxd.virt.session import Session

_ROOT = "backup/volume"
_FILE, _FOLDER = 0o400, 0o500

required_by = configdrive.required_by
update_instance = configdrive.update_instance


class ConfigDrives:
    """Makes and removes the drives of this host's servers."""

    def __init__(self, session: Session, host: HostFacts) -> None:
        self._session = session
        self._host = host

    def create(
        self, instance: Any, network_info: Any, injected_files: Any, admin_password: str
    ) -> None:
        """Make a server's drive; one that an earlier attempt left is replaced."""
        extra = {"admin_pass": admin_password} if admin_password else {}
        metadata = instance_metadata.InstanceMetadata(
            instance, content=injected_files, extra_md=extra, network_info=network_info
        )
        name = instance_translator.config_drive_name(instance.name)
        backup = pack(name, self._host, instance.uuid, list(metadata.metadata_for_config_drive()))
        try:
            self._session.import_volume(self._host.pool, name, backup)
        except exception.AlreadyExists:
            self.remove(instance)
            self._session.import_volume(self._host.pool, name, backup)

    def remove(self, instance: Any) -> None:
        """Remove a server's drive when its container is gone; none is success."""
        name = instance_translator.config_drive_name(instance.name)
        with contextlib.suppress(exception.NotFound):
            self._session.delete_volume(self._host.pool, name)


def pack(name: str, host: HostFacts, uuid: str, files: Iterable[tuple[str, bytes]]) -> bytes:
    """Write a backup of a volume as LXD 5.0 reads it, with these files in it.

    :param files: paths without a leading slash, and contents
    """
    index = {
        "name": name,
        "backend": host.pool_driver,
        "pool": host.pool,
        "optimized": False,
        "optimized_header": False,
        "type": "custom",
        "config": {
            "volume": {
                "name": name,
                "type": "custom",
                "content_type": "filesystem",
                "description": "config drive",
                "config": {"user.nova.uuid": uuid},
            }
        },
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add_folder(tar, "backup")
        # JSON is YAML, which is what LXD expects.
        _add_file(tar, "backup/index.yaml", jsonutils.dump_as_bytes(index))
        _add_folder(tar, _ROOT)
        known: set[str] = set()
        for path, content in files:
            _add_parents(tar, path, known)
            _add_file(tar, f"{_ROOT}/{path}", content)
    return buffer.getvalue()


def _add_parents(tar: tarfile.TarFile, path: str, known: set[str]) -> None:
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        if folder not in known:
            known.add(folder)
            _add_folder(tar, f"{_ROOT}/{folder}")


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, _FOLDER
    tar.addfile(member)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes | str) -> None:
    data = content.encode() if isinstance(content, str) else content
    member = tarfile.TarInfo(name)
    member.mode, member.size = _FILE, len(data)
    tar.addfile(member, io.BytesIO(data))
