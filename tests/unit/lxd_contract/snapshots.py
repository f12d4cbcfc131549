"""The contract's snapshots."""

from __future__ import annotations

import hashlib
import io
import tarfile

import yaml

from .base import ContractBase, add_image, add_instance
from .client import Answer, Client

C1 = "/1.0/instances/c1"
NEVER = ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z")


def publish(lxd: Client, snapshot: str, compression: str = "none", **properties: str) -> Answer:
    """Make an image of a snapshot."""
    source = {"type": "snapshot", "name": snapshot}
    body = {"source": source, "compression_algorithm": compression, "properties": properties}
    return lxd.run("POST", "/1.0/images", body, Content_Type="application/json")


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

    def test_publish(self, lxd: Client):
        add_instance(lxd, image=add_image(lxd))
        assert lxd.run("POST", f"{C1}/snapshots", {"name": "s1"}).succeeded
        done = publish(lxd, "c1/s1", glance="7")
        assert done.succeeded, done.body
        fingerprint = done.metadata["metadata"]["fingerprint"]
        image = lxd.get(f"/1.0/images/{fingerprint}").metadata
        assert image["aliases"] == []
        assert image["properties"]["glance"] == "7"

        exported = lxd.get(f"/1.0/images/{fingerprint}/export")
        assert exported.headers["content-length"] == str(image["size"])
        assert hashlib.sha256(exported.body).hexdigest() == fingerprint
        with tarfile.open(fileobj=io.BytesIO(exported.body)) as tar:
            names = tar.getnames()
            metadata = yaml.safe_load(tar.extractfile("metadata.yaml").read())
        assert names[0] == "metadata.yaml"
        assert {name.partition("/")[0] for name in names[1:]} == {"rootfs"}
        assert "rootfs/sbin/init" in names
        assert metadata["properties"] == {"glance": "7"}
        assert not metadata.get("templates")

        # Equal images are those of one second: the time is in their metadata.yaml.
        again = done
        for _ in range(50):
            before, again = again, publish(lxd, "c1/s1", glance="7")
            if not again.succeeded:
                break
        fingerprint = before.metadata["metadata"]["fingerprint"]
        assert again.failure == f"The image already exists: {fingerprint}"
        other = publish(lxd, "c1/s1", glance="8")
        assert other.succeeded

    def test_a_published_image_is_an_image_like_any_other(self, lxd: Client):
        add_instance(lxd, image=add_image(lxd))
        assert lxd.run("POST", f"{C1}/snapshots", {"name": "s1"}).succeeded
        done = publish(lxd, "c1/s1", "zstd -T0", glance="7")
        assert done.succeeded, done.body
        path = f"/1.0/images/{done.metadata['metadata']['fingerprint']}"
        body = {"name": "g7", "target": path.rsplit("/", 1)[-1]}
        assert lxd.call("POST", "/1.0/images/aliases", body).status == 201
        image = lxd.get(path).metadata
        assert [alias["name"] for alias in image["aliases"]] == ["g7"]
        # It neither expires nor can others see it.
        assert (image["public"], image["cached"], image["auto_update"]) == (False, False, False)
        assert image["expires_at"] in NEVER
        assert image["last_used_at"] in NEVER

        add_instance(lxd, "c2", image=body["target"])
        config = lxd.get("/1.0/instances/c2").metadata["config"]
        assert config["image.glance"] == "7"
        assert config["volatile.base_image"] == body["target"]
        assert lxd.get(path).metadata["last_used_at"] not in NEVER

    def test_refused_publications(self, lxd: Client):
        add_instance(lxd)
        for name in ("c1/none", "none/s1"):
            answer = publish(lxd, name)
            assert answer.refusal == (404, "Instance not found")
        assert lxd.run("POST", f"{C1}/snapshots", {"name": "s1"}).succeeded
        answer = publish(lxd, "c1/s1", "bogus")
        assert answer.refusal == (400, 'Invalid compression algorithm "bogus"')
        answer = publish(lxd, "c1/s1", "bogus -T0")
        assert answer.refusal == (400, 'Invalid compression algorithm "bogus"')
        assert lxd.get(f"/1.0/images/{'0' * 64}/export").refusal == (404, "Image not found")
