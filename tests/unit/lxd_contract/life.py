"""The contract's instances: made, changed, run, deleted."""

from __future__ import annotations

import json

from . import guests
from .base import ID_BASE, ROOT, ContractBase, add_image, add_instance
from .client import Client
from .store import UNKNOWN

INSTANCE_KEYS = {
    "architecture", "config", "created_at", "description", "devices", "ephemeral",
    "expanded_config", "expanded_devices", "last_used_at", "location", "name", "profiles",
    "project", "stateful", "status", "status_code", "type",
}  # fmt: skip
OPERATION_KEYS = {
    "class", "created_at", "description", "err", "id", "location", "may_cancel", "metadata",
    "resources", "status", "status_code", "updated_at",
}  # fmt: skip
ISOLATED = {"security.idmap.isolated": "true", "security.idmap.base": str(ID_BASE)}
C1 = "/1.0/instances/c1"


def idmap(base: int, size: int) -> list[dict[str, object]]:
    common = {"Hostid": base, "Nsid": 0, "Maprange": size}
    kinds = ((True, False), (False, True))
    return [{"Isuid": uid, "Isgid": gid, **common} for uid, gid in kinds]


class LifeContract(ContractBase):
    def _create(self, lxd: Client, **body: object) -> str:
        whole = {"name": "c1", "source": {"type": "none"}, "profiles": [], "devices": ROOT, **body}
        return lxd.run("POST", "/1.0/instances", whole).failure

    # -- creating

    def test_create(self, lxd: Client):
        image = add_image(lxd, glance="1")
        lxd.call(
            "POST", "/1.0/profiles", {"name": "c1", "config": {"limits.cpu": "1"}, "devices": ROOT}
        )
        nic = {"type": "nic", "nictype": "bridged", "parent": "nobr", "host_name": "tapc0ffee"}
        config = {"user.nova.uuid": "u", **ISOLATED}
        add_instance(lxd, image=image, profiles=["c1"], config=config, devices={"tap": nic})

        got = lxd.get(C1).metadata
        assert set(got) == INSTANCE_KEYS
        assert (got["status"], got["status_code"]) == ("Stopped", 102)
        assert (got["type"], got["architecture"]) == ("container", "x86_64")
        assert got["profiles"] == ["c1"]
        assert got["devices"] == {"tap": nic}
        assert got["expanded_devices"] == {"tap": nic, **ROOT}
        assert got["expanded_config"] == {**got["config"], "limits.cpu": "1"}
        assert got["project"] == lxd.project

        assert set(got["config"]) == {
            *config, "image.glance", "volatile.apply_template", "volatile.base_image",
            "volatile.cloud-init.instance-id", "volatile.idmap.base", "volatile.idmap.next",
            "volatile.last_state.idmap", "volatile.tap.hwaddr", "volatile.tap.name",
            "volatile.uuid",
        }  # fmt: skip
        assert got["config"]["volatile.base_image"] == image
        assert got["config"]["volatile.idmap.base"] == str(ID_BASE)
        assert json.loads(got["config"]["volatile.idmap.next"]) == idmap(ID_BASE, 65536)

    def test_an_instance_that_is_not_isolated_has_the_whole_range(self, lxd: Client):
        add_instance(lxd)
        config = lxd.get(C1).metadata["config"]
        assert config["volatile.idmap.base"] == "0"
        (uids, gids) = json.loads(config["volatile.idmap.next"])
        assert uids["Hostid"] == gids["Hostid"] > 0
        assert uids["Maprange"] == gids["Maprange"] > 65536 * 10

    def test_isolation_may_come_from_the_profile(self, lxd: Client):
        config = {"security.idmap.isolated": "true"}
        lxd.call("POST", "/1.0/profiles", {"name": "p1", "config": config})
        add_instance(lxd, profiles=["p1"], config={"security.idmap.base": str(ID_BASE)})
        got = lxd.get(C1).metadata["config"]
        assert json.loads(got["volatile.idmap.next"]) == idmap(ID_BASE, 65536)

    def test_a_privileged_instance_has_no_idmap(self, lxd: Client):
        add_instance(lxd, config={"security.privileged": "true"})
        config = lxd.get(C1).metadata["config"]
        assert config["volatile.idmap.base"] == "0"
        assert config["volatile.idmap.next"] == "[]"

    def test_an_id_base_may_be_taken_twice(self, lxd: Client):
        for name in ("c1", "c2"):
            add_instance(lxd, name, config=ISOLATED)
        found = {
            item["config"]["volatile.idmap.base"]
            for item in lxd.get(f"/1.0/instances?project={lxd.project}&recursion=1").metadata
        }
        assert found == {str(ID_BASE)}

    def test_create_twice(self, lxd: Client):
        add_instance(lxd)
        assert self._create(lxd) == (
            "Failed creating instance record: Add instance info to the database: "
            'This "instances" entry already exists'
        )

    def test_create_from_nothing_known(self, lxd: Client):
        def create(source: dict[str, str], **more: object):
            body = {"name": "c1", "source": source, "devices": ROOT, "profiles": [], **more}
            return lxd.run("POST", "/1.0/instances", body)

        found = create({"type": "image", "alias": "no"}).refusal
        assert found == (404, "Image alias not found")
        found = create({"type": "image", "fingerprint": UNKNOWN}).failure
        assert found == "Image not provided for instance creation"
        found = create({"type": "none"}, profiles=["no"]).refusal
        assert found == (500, 'Requested profile "no" doesn\'t exist')
        assert create({"type": "bogus"}).refusal == (400, "Unknown source type bogus")
        assert lxd.get("/1.0/instances").metadata == []

    def test_create_with_bad_contents(self, lxd: Client):
        record = "Failed creating instance record: "
        init = record + "Failed initialising instance: "
        bad = init + 'Invalid devices: Device validation failed for "e": '
        nic = {"type": "nic", "nictype": "bridged"}

        def with_nic(**more: str) -> dict[str, object]:
            return {"devices": {**ROOT, "e": {**nic, **more}}}

        pool = {"root": {"type": "disk", "path": "/", "pool": "no"}}
        cases = [
            ({"devices": {}}, init + "Failed getting root disk: No root device could be found"),
            ({"devices": pool}, init + "Failed loading storage pool: Storage pool not found"),
            ({"config": {"limits.bogus": "1"}}, record + "Unknown configuration key: limits.bogus"),
            ({"config": {"limits.cpu": "x"}}, record + "Invalid CPU limit syntax"),
            (
                {"config": {"environment.a": "b\nc"}},
                record + "Environment variables cannot contain line breaks",
            ),
            (with_nic(), bad + 'Invalid value for device option "parent": Required value'),
            (with_nic(parent="b", bogus="1"), bad + 'Invalid device option "bogus"'),
        ]
        for body, text in cases:
            assert self._create(lxd, **body) == text
        assert lxd.get("/1.0/instances").metadata == []

    def test_names(self, lxd: Client):
        rule = "Name can only contain alphanumeric and hyphen characters"
        for name, text in (("a_b", rule), ("1a", "Name must not start with a number")):
            body = {"name": name, "source": {"type": "none"}}
            answer = lxd.call("POST", "/1.0/instances", body)
            assert answer.refusal == (400, f"Invalid instance name: {text}")

    def test_bad_rootfs_is_found_at_create(self, lxd: Client):
        for rootfs, text in ((b"rubbish" * 100, "Unsupported compression"), (b"", "EOF")):
            answer = lxd.upload(guests.metadata(), rootfs)
            fingerprint = answer.metadata["metadata"]["fingerprint"]
            found = self._create(lxd, source={"type": "image", "fingerprint": fingerprint})
            assert found == f"Failed creating instance from image: {text}"
            assert lxd.get("/1.0/instances").metadata == []
            assert lxd.get(f"/1.0/images/{fingerprint}").status == 200

    def test_root_disk_smaller_than_the_image(self, lxd: Client):
        source = {"type": "image", "fingerprint": add_image(lxd)}
        tiny = {"root": {**ROOT["root"], "size": "512KiB"}}
        assert "Disk quota exceeded" in self._create(lxd, source=source, devices=tiny)
        assert lxd.get("/1.0/instances").metadata == []

    # -- reading

    def test_listing(self, lxd: Client):
        add_instance(lxd)
        url = f"{C1}?project={lxd.project}"
        assert lxd.get("/1.0/instances").metadata == [url]
        assert url in lxd.get("/1.0/instances?all-projects=true").metadata
        assert url not in lxd.get("/1.0/instances?project=default").metadata
        (one,) = lxd.get(f"/1.0/instances?project={lxd.project}&recursion=1").metadata
        assert one == lxd.get(C1).metadata

    def test_all_projects_excludes_a_project(self, lxd: Client):
        answer = lxd.get(f"/1.0/instances?all-projects=true&project={lxd.project}")
        assert answer.status == 400

    def test_unknown_instance(self, lxd: Client):
        expected = (404, "Instance not found")
        assert lxd.get(C1).refusal == expected
        assert lxd.get(f"{C1}/state").refusal == expected
        assert lxd.get(f"{C1}/console").refusal == expected
        assert lxd.call("DELETE", C1).refusal == expected
        assert lxd.call("PUT", C1, {}).refusal == expected
        assert lxd.call("PATCH", C1, {}).refusal == expected
        assert lxd.act("c1", "start").refusal == expected

    # -- changing

    def test_patch_adds_and_removes(self, lxd: Client):
        add_instance(lxd, config={"user.a": "1"})
        assert lxd.call("PATCH", C1, {"config": {"user.b": "2"}}).succeeded
        config = lxd.get(C1).metadata["config"]
        assert (config["user.a"], config["user.b"]) == ("1", "2")
        assert lxd.call("PATCH", C1, {"config": {"user.a": ""}}).succeeded
        assert "user.a" not in lxd.get(C1).metadata["config"]

    def test_patch_cannot_remove_a_device(self, lxd: Client):
        add_instance(lxd)
        assert lxd.call("PATCH", C1, {"devices": {"e": None}}).refusal == (
            500,
            'Invalid devices: Device validation failed for "e": Failed loading device "e": '
            "Missing device type in config",
        )

    def test_etag(self, lxd: Client):
        add_instance(lxd)
        answer = lxd.get(C1)
        old, body = answer.headers["etag"], answer.metadata
        body["config"]["user.a"] = "1"
        done = lxd.run("PUT", C1, body, If_Match=old)
        assert done.metadata["description"] == "Updating instance"
        assert done.succeeded
        assert lxd.get(C1).metadata["config"]["user.a"] == "1"
        for method in ("PUT", "PATCH"):
            assert lxd.call(method, C1, body, If_Match=old).status == 412
        assert lxd.call("PATCH", C1, {"config": {"user.a": "2"}}).succeeded

    def test_etag_leaves_out_the_description(self, lxd: Client):
        add_instance(lxd)
        old = lxd.get(C1).headers["etag"]
        assert lxd.call("PATCH", C1, {"description": "x"}).succeeded
        assert lxd.get(C1).metadata["description"] == "x"
        body = {"config": {"user.a": "2"}}
        assert lxd.call("PATCH", C1, body, If_Match=old).status in (200, 412)

    def test_put_must_keep_the_idmap(self, lxd: Client):
        add_instance(lxd)
        text = "Volatile idmap keys can't be deleted by the user"
        assert lxd.run("PUT", C1, {"config": {}, "devices": ROOT}).failure == text

    def test_patch_with_bad_contents(self, lxd: Client):
        add_instance(lxd)
        body = {"config": {"bogus": "1"}}
        text = "Invalid config: Unknown configuration key: bogus"
        assert lxd.call("PATCH", C1, body).refusal == (500, text)
        answer = lxd.call("PATCH", C1, {"profiles": ["no"]})
        assert answer.refusal == (404, "Profile not found")

    # -- deleting

    def test_delete(self, lxd: Client):
        add_instance(lxd)
        done = lxd.run("DELETE", C1)
        assert set(done.metadata) == OPERATION_KEYS
        assert done.metadata["description"] == "Deleting instance"
        assert done.metadata["resources"]["instances"] == [C1]
        assert done.succeeded
        assert lxd.get("/1.0/instances").metadata == []

    def test_unknown_operation(self, lxd: Client):
        path = "/1.0/operations/00000000-0000-0000-0000-000000000000"
        expected = (404, "Operation not found")
        assert lxd.get(path).refusal == expected
        assert lxd.get(f"{path}/wait").refusal == expected
        assert lxd.call("DELETE", path).refusal == expected
