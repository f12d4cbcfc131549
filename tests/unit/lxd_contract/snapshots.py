"""The contract's snapshots."""

from __future__ import annotations

from .base import ContractBase, add_instance
from .client import Answer, Client

C1 = "/1.0/instances/c1"


class SnapshotContract(ContractBase):
    def _list(self, lxd: Client, name: str = "c1") -> Answer:
        query = f"recursion=1&project={lxd.project}"
        return lxd.get(f"/1.0/instances/{name}/snapshots?{query}")

    def test_snapshots(self, lxd: Client):
        add_instance(lxd, config={"user.a": "old"})
        assert self._list(lxd).metadata == []
        assert lxd.run("POST", f"{C1}/snapshots", {"name": "s1"}).succeeded
        (snapshot,) = self._list(lxd).metadata
        assert snapshot["name"] == "s1"
        assert "already exists" in lxd.run("POST", f"{C1}/snapshots", {"name": "s1"}).failure

        assert lxd.call("PATCH", C1, {"config": {"user.a": "new"}}).succeeded
        assert lxd.run("PUT", C1, {"restore": "s1"}).succeeded
        assert lxd.get(C1).metadata["config"]["user.a"] == "old"

        assert lxd.run("DELETE", f"{C1}/snapshots/s1").succeeded
        assert lxd.run("DELETE", f"{C1}/snapshots/s1").status == 404
        assert not lxd.run("PUT", C1, {"restore": "s1"}).succeeded
        assert self._list(lxd, "none").status == 404
