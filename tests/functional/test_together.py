"""Servers that are built at the same time, and beside what is not ours."""

from __future__ import annotations

import itertools
import json

from nova_lxd.invariants import gather
from nova_lxd.invariants.instances import id_ranges
from tests.functional.base import ServerTestCase

_COUNT = 8


class TogetherTest(ServerTestCase):
    def test_eight_at_once(self):
        network = {"uuid": self.neutron.network_1["id"]}
        self.request_server(networks=[network], min_count=_COUNT, max_count=_COUNT)
        self._servers = [server["id"] for server in self.api.get_servers(detail=False)]
        assert len(self._servers) == _COUNT
        for server_id in self._servers:
            self.wait_status({"id": server_id}, "ACTIVE")
        self.assert_clean()

        instances = gather.instances(self._machine.get, self._project)
        ranges = [ids for instance in instances for ids in id_ranges(instance)]
        assert len(ranges) == _COUNT
        assert not any(a.overlaps(b) for a, b in itertools.combinations(ranges, 2))
        assert len(self.lxd_names("images")) == 1

        self.delete(*({"id": server_id} for server_id in self._servers))
        self.assert_nothing_on_host()


class NeighbourTest(ServerTestCase):
    """An operator's own containers live in other projects of the same LXD."""

    def setUp(self):
        # Nova's first server has this name too.
        self._neighbour = "instance-00000001"
        super().setUp()
        config = {"security.idmap.isolated": "true", "user.nova.uuid": "not-nova's"}
        body = {
            "name": self._neighbour,
            "source": {"type": "none"},
            "profiles": [],
            "config": config,
            "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}},
        }
        lxc = self._machine.lxd.lxc
        lxc("query", "-X", "POST", "--wait", "-d", json.dumps(body), "/1.0/instances")
        self.addCleanup(lxc, "delete", "--force", self._neighbour)
        self._foreign = gather.foreign(self._machine.get, self._project)
        # Checked before the neighbour goes, which is a cleanup as well.
        self.addCleanup(self._prove_clean)

    def test_a_neighbour_is_left_alone(self):
        assert f"default/{self._neighbour}" in self._foreign
        assert self.compute.manager.driver.list_instance_uuids() == []
        server = self.boot()
        assert self.name_of(server) == self._neighbour
        (theirs,) = gather.instances(self._machine.get, "default")
        (ours,) = gather.instances(self._machine.get, self._project)
        for a, b in itertools.product(id_ranges(theirs), id_ranges(ours)):
            assert not a.overlaps(b)
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        self.delete(server)
        self.assert_clean()
