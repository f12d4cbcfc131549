"""The contract's still life: server, projects, pools, profiles, images."""

from __future__ import annotations

import hashlib

from nova_lxd.virt.session import REQUIRED_EXTENSIONS

from . import guests
from .base import POOL, ContractBase, add_image, add_instance
from .client import Client

IMAGE_KEYS = {
    "aliases", "architecture", "auto_update", "cached", "created_at", "expires_at", "filename",
    "fingerprint", "last_used_at", "profiles", "properties", "public", "size", "type",
    "uploaded_at",
}  # fmt: skip
UNKNOWN = "0" * 64


class StoreContract(ContractBase):
    # -- server, projects, pools

    def test_server(self, lxd: Client):
        server = lxd.get("/1.0").metadata
        assert set(REQUIRED_EXTENSIONS) <= set(server["api_extensions"])
        assert server["auth"] == "trusted"
        environment = server["environment"]
        assert environment["architectures"][0] == "x86_64"
        assert environment["driver"].startswith("lxc")
        assert environment["server"] == "lxd"
        assert {"server_name", "server_version", "kernel_version", "certificate"} <= set(
            environment
        )

    def test_unknown_url(self, lxd: Client):
        assert lxd.get("/1.0/nothing").refusal == (404, "not found")

    def test_method_that_is_not_there(self, lxd: Client):
        assert lxd.call("DELETE", "/1.0/instances").refusal == (501, "not implemented")

    def test_resources(self, lxd: Client):
        resources = lxd.get("/1.0/resources").metadata
        assert resources["cpu"]["total"] > 0
        thread = resources["cpu"]["sockets"][0]["cores"][0]["threads"][0]
        assert {"id", "numa_node", "online"} <= set(thread)
        assert resources["memory"]["total"] > 2**28

    def test_project_twice(self, lxd: Client):
        assert lxd.call("POST", "/1.0/projects", {"name": lxd.project}).refusal == (
            409,
            f'Failed creating project "{lxd.project}": Failed adding database record: '
            'This "projects" entry already exists',
        )

    def test_project_shows_its_features(self, lxd: Client):
        project = lxd.get(f"/1.0/projects/{lxd.project}").metadata
        assert project["config"]["features.images"] == "true"
        assert project["used_by"] == [f"/1.0/profiles/default?project={lxd.project}"]

    def test_unknown_project(self, lxd: Client):
        nobody = Client(lxd.path, "nobody")
        assert nobody.get("/1.0/projects/nobody").refusal == (404, "Project not found")
        assert nobody.get("/1.0/instances").metadata == []
        assert nobody.get("/1.0/instances/c1").refusal == (404, "Instance not found")
        assert nobody.get("/1.0/profiles").refusal == (
            404, 'Failed loading project "nobody": Project not found'
        )  # fmt: skip
        text = "Check if project has images: fetch project: Project not found"
        assert nobody.get("/1.0/images").refusal == (404, text)
        body = {"name": "c1", "source": {"type": "none"}}
        text = "Failed loading project: Project not found"
        assert nobody.call("POST", "/1.0/instances", body).refusal == (404, text)

    def test_full_project_cannot_be_deleted(self, lxd: Client):
        lxd.call("POST", "/1.0/profiles", {"name": "p1"})
        path = f"/1.0/projects/{lxd.project}"
        assert lxd.call("DELETE", path).refusal == (500, "Only empty projects can be removed")

    def test_pool(self, lxd: Client):
        pool = lxd.get(f"/1.0/storage-pools/{POOL}").metadata
        assert (pool["name"], pool["driver"], pool["status"]) == (POOL, "btrfs", "Created")
        space = lxd.get(f"/1.0/storage-pools/{POOL}/resources").metadata["space"]
        assert 0 < space["used"] < space["total"]

    def test_unknown_pool(self, lxd: Client):
        assert lxd.get("/1.0/storage-pools/no").refusal == (404, "Storage pool not found")
        # LXD 5.0.2 says 500 here.
        found = lxd.get("/1.0/storage-pools/no/resources").refusal
        assert found == (500, "Storage pool not found")

    # -- profiles

    def test_profile(self, lxd: Client):
        body = {
            "name": "p1",
            "config": {"limits.memory": "64MiB", "environment.a": "b"},
            "devices": {"root": {"type": "disk", "path": "/", "pool": POOL}},
        }
        answer = lxd.call("POST", "/1.0/profiles", body)
        assert answer.status == 201
        assert answer.headers["location"] == f"/1.0/profiles/p1?project={lxd.project}"
        assert lxd.get("/1.0/profiles/p1").metadata == {**body, "description": "", "used_by": []}
        urls = [f"/1.0/profiles/{name}?project={lxd.project}" for name in ("default", "p1")]
        assert sorted(lxd.get("/1.0/profiles").metadata) == urls

    def test_profile_twice(self, lxd: Client):
        lxd.call("POST", "/1.0/profiles", {"name": "p1"})
        assert lxd.call("POST", "/1.0/profiles", {"name": "p1"}).refusal == (
            500, 'Error inserting "p1" into database: The profile already exists'
        )  # fmt: skip

    def test_unknown_profile(self, lxd: Client):
        path = "/1.0/profiles/p1"
        assert lxd.get(path).refusal == (404, "Fetch profile: Profile not found")
        assert lxd.call("DELETE", path).refusal == (404, "Profile not found")
        found = lxd.call("PUT", path, {}).refusal
        assert found == (404, 'Failed to retrieve profile "p1": Profile not found')
        found = lxd.call("PATCH", path, {}).refusal
        assert found == (404, 'Failed to retrieve profile="p1": Profile not found')

    def test_profile_with_bad_contents(self, lxd: Client):
        cases = [
            ({"config": {"limits.bogus": "1"}}, "Unknown configuration key: limits.bogus"),
            ({"config": {"security.nesting": "foo"}}, 'Invalid value for a boolean "foo"'),
            ({"config": {"limits.memory": "abc"}}, "Invalid value: abc"),
            (
                {"devices": {"e": {"type": "nic"}}},
                'Device validation failed for "e": Failed loading device "e": '
                "Unsupported device type",
            ),
        ]
        for body, text in cases:
            answer = lxd.call("POST", "/1.0/profiles", {"name": "p1", **body})
            assert answer.refusal == (400, text)

    def test_configuration_values_are_strings(self, lxd: Client):
        answer = lxd.call("POST", "/1.0/profiles", {"name": "p1", "config": {"limits.cpu": 1}})
        status, text = answer.refusal
        assert status == 400
        assert text.startswith("json: cannot unmarshal number into Go")

    def test_broken_json(self, lxd: Client):
        assert lxd.call("POST", "/1.0/profiles", b"{").refusal == (400, "unexpected EOF")

    def test_profile_patch_adds_and_put_replaces(self, lxd: Client):
        lxd.call("POST", "/1.0/profiles", {"name": "p1", "config": {"user.a": "1"}})
        assert lxd.call("PATCH", "/1.0/profiles/p1", {"config": {"user.b": "2"}}).succeeded
        expected = {"user.a": "1", "user.b": "2"}
        assert lxd.get("/1.0/profiles/p1").metadata["config"] == expected
        assert lxd.call("PUT", "/1.0/profiles/p1", {"config": {"user.c": "3"}}).succeeded
        assert lxd.get("/1.0/profiles/p1").metadata["config"] == {"user.c": "3"}

    def test_profile_etag(self, lxd: Client):
        lxd.call("POST", "/1.0/profiles", {"name": "p1"})
        old = lxd.get("/1.0/profiles/p1").headers["etag"]
        body = {"config": {"user.a": "1"}}
        assert lxd.call("PUT", "/1.0/profiles/p1", body, If_Match=old).succeeded
        new = lxd.get("/1.0/profiles/p1").headers["etag"]
        text = "ETag doesn't match: {} vs {}".format(new.strip('"'), old.strip('"'))
        for method in ("PUT", "PATCH"):
            answer = lxd.call(method, "/1.0/profiles/p1", body, If_Match=old)
            assert answer.refusal == (412, text)

    def test_profile_in_use(self, lxd: Client):
        lxd.call("POST", "/1.0/profiles", {"name": "p1"})
        add_instance(lxd, profiles=["p1"])
        used = lxd.get("/1.0/profiles/p1").metadata["used_by"]
        assert used == [f"/1.0/instances/c1?project={lxd.project}"]
        found = lxd.call("DELETE", "/1.0/profiles/p1").refusal
        assert found == (500, "Profile is currently in use")

    # -- images

    def test_split_image(self, lxd: Client):
        metadata, rootfs = guests.metadata(glance="1"), guests.rootfs(deaf=True)
        headers = {"X_LXD_properties": "os=tiny&a=b%20c"}
        fingerprint = hashlib.sha256(metadata + rootfs).hexdigest()
        done = lxd.upload(metadata, rootfs, X_LXD_fingerprint=fingerprint, **headers)
        assert done.metadata["description"] == "Downloading image"
        size = len(metadata + rootfs)
        assert done.metadata["metadata"] == {"fingerprint": fingerprint, "size": str(size)}

        image = lxd.get(f"/1.0/images/{fingerprint}").metadata
        assert set(image) == IMAGE_KEYS
        assert image["properties"] == {"glance": "1", "os": "tiny", "a": "b c"}
        assert image["created_at"] == "2023-11-14T22:13:20Z"
        assert (image["size"], image["architecture"]) == (size, "x86_64")
        assert lxd.get(f"/1.0/images/{fingerprint[:12]}").metadata == image
        assert lxd.get("/1.0/images?project=default&recursion=1").metadata == []

    def test_unified_image(self, lxd: Client):
        whole = guests.tarball(
            {
                "metadata.yaml": b"architecture: amd64\ncreation_date: 1700000000\n",
                "rootfs/etc/hostname": b"x\n",
            }
        )
        assert lxd.upload(whole, None).succeeded
        assert lxd.get(f"/1.0/images/{hashlib.sha256(whole).hexdigest()}").status == 200

    def test_refused_images(self, lxd: Client):
        rootfs = guests.rootfs(deaf=True)

        def meta(text: str) -> bytes:
            return guests.tarball({"metadata.yaml": text.encode()})

        cases = [
            (guests.tarball({"x": b""}), "Metadata tarball is missing metadata.yaml"),
            (b"rubbish", "Unsupported compression"),
            (meta("architecture: x86_64\n"), "Missing creation date"),
            (meta("creation_date: 5\n"), "Architecture isn't supported: "),
            (meta("creation_date: 5\narchitecture: x\n"), "Architecture isn't supported: x"),
        ]
        for metadata, text in cases:
            assert lxd.upload(metadata, rootfs).failure == text
        assert lxd.get("/1.0/images").metadata == []

    def test_wrong_fingerprint(self, lxd: Client):
        metadata, rootfs = guests.metadata(), guests.rootfs(deaf=True)
        real = hashlib.sha256(metadata + rootfs).hexdigest()
        found = lxd.upload(metadata, rootfs, X_LXD_fingerprint=UNKNOWN).failure
        assert found == f"fingerprints don't match, got {real} expected {UNKNOWN}"

    def test_image_twice(self, lxd: Client):
        add_image(lxd)
        answer = lxd.upload(guests.metadata(), guests.rootfs(deaf=True))
        assert answer.failure == "Image with same fingerprint already exists"

    def test_unknown_image(self, lxd: Client):
        path = f"/1.0/images/{UNKNOWN}"
        assert lxd.get(path).refusal == (404, "Image not found")
        assert lxd.call("DELETE", path).refusal == (404, "Image not found")
        path = "/1.0/images/aliases/a"
        assert lxd.get(path).refusal == (404, "Image alias not found")
        assert lxd.call("DELETE", path).refusal == (404, "Image alias not found")
        body = {"name": "a", "target": UNKNOWN}
        answer = lxd.call("POST", "/1.0/images/aliases", body)
        assert answer.refusal == (404, "Image not found")

    def test_alias(self, lxd: Client):
        body = {"name": "a", "target": add_image(lxd), "description": "d"}
        answer = lxd.call("POST", "/1.0/images/aliases", body)
        assert answer.status == 201
        expected = {**body, "type": "container"}
        assert lxd.get("/1.0/images/aliases/a").metadata == expected
        assert lxd.get("/1.0/images/aliases?project=default").metadata == []
        found = lxd.call("POST", "/1.0/images/aliases", body).refusal
        assert found == (409, 'Alias "a" already exists')

        image = lxd.get(f"/1.0/images/{body['target']}").metadata
        assert image["aliases"] == [{"name": "a", "description": "d"}]
        assert lxd.run("DELETE", f"/1.0/images/{body['target']}").succeeded
        assert lxd.get("/1.0/images/aliases").metadata == []

    def test_image_properties_are_merged(self, lxd: Client):
        path = f"/1.0/images/{add_image(lxd, glance='1')}"
        old = lxd.get(path).headers["etag"]
        assert lxd.call("PATCH", path, {"properties": {"b": "2"}}, If_Match=old).succeeded
        assert lxd.get(path).metadata["properties"] == {"glance": "1", "b": "2"}
        assert lxd.call("PATCH", path, {"properties": {}}, If_Match=old).status == 412
        alias = {"name": "a", "target": path.rsplit("/", 1)[-1]}
        lxd.call("POST", "/1.0/images/aliases", alias)
        assert lxd.call("PATCH", path, {"properties": {"b": "3"}}).succeeded
        image, other = lxd.get("/1.0/images").metadata[0], lxd.get(path).metadata
        assert image.split("?")[0] == path
        assert other["properties"] == {"glance": "1", "b": "3"}
        assert [named["name"] for named in other["aliases"]] == ["a"]
        (listed,) = lxd.get(f"/1.0/images?recursion=1&project={lxd.project}").metadata
        assert listed == other

    def test_image_of_an_instance_can_be_deleted(self, lxd: Client):
        image = add_image(lxd)
        add_instance(lxd, image=image)
        assert lxd.run("DELETE", f"/1.0/images/{image}").succeeded
        assert lxd.get("/1.0/instances/c1").status == 200
