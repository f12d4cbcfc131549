"""The backup that a config drive is made from."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from nova_lxd.virt import configdrive
from tests.unit import values


@pytest.fixture
def members():
    files = [("openstack/latest/a.json", b"{}"), ("openstack/2012-08-10/b", "text")]
    host = values.host()
    backup = configdrive.pack("one-config", host, "uuid-one", files)
    with tarfile.open(fileobj=io.BytesIO(backup)) as tar:
        return {
            member.name: (member, (tar.extractfile(member) or io.BytesIO()).read())
            for member in tar.getmembers()
        }


def test_only_root_may_read_it(members):
    for member, _ in members.values():
        assert member.mode == (0o500 if member.isdir() else 0o400)
        assert (member.uid, member.gid) == (0, 0)


def test_the_files_are_in_it(members):
    assert members["backup/volume/openstack/latest/a.json"][1] == b"{}"
    assert members["backup/volume/openstack/2012-08-10/b"][1] == b"text"
    names = list(members)
    assert names.index("backup/volume/openstack") < names.index("backup/volume/openstack/latest")
    assert len(names) == len(set(names))


def test_the_index_says_whose_it_is(members):
    volume = json.loads(members["backup/index.yaml"][1])["config"]["volume"]
    assert volume["config"] == {"user.nova.uuid": "uuid-one"}
    assert volume["name"] == "one-config"
