"""The contract's files."""

from __future__ import annotations

from .base import ContractBase, add_image, add_instance
from .client import Answer, Client


class FileContract(ContractBase):
    def _files(self, lxd: Client, method: str, path: str, kind: str = "file") -> Answer:
        target = f"/1.0/instances/c1/files?path={path}&project={lxd.project}"
        headers = {"X_LXD_type": kind, "X_LXD_mode": "0755"} if method == "POST" else {}
        return lxd.call(method, target, b"content" if kind == "file" else b"", **headers)

    def test_files(self, lxd: Client):
        assert self._files(lxd, "POST", "/note").status == 404, "there is no instance"
        add_instance(lxd, image=add_image(lxd))
        assert self._files(lxd, "POST", "/new/note").status == 404
        for _ in range(2):
            assert self._files(lxd, "POST", "/new", "directory").succeeded
        for _ in range(2):
            assert self._files(lxd, "POST", "/new/note").succeeded
        assert not self._files(lxd, "POST", "/new/note/more").succeeded
        assert self._files(lxd, "POST", "/new/note", "directory").succeeded, "nothing is done"
        assert not self._files(lxd, "POST", "/new").succeeded
        assert not self._files(lxd, "DELETE", "/new").succeeded
        assert self._files(lxd, "DELETE", "/new/note").succeeded
        assert self._files(lxd, "DELETE", "/new/note").status == 404
