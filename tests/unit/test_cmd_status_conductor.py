"""What nova-lxd-status makes of Nova's own objects."""

from __future__ import annotations

import datetime
import threading
from unittest import mock

import nova.conf
import pytest
from nova import exception as nova_exception
from nova import objects
from nova.compute import power_state, task_states, vm_states
from nova.conductor import rpcapi
from nova.db.main import api as database
from nova.objects import base as objects_base

from nova_lxd.cmd import conductor
from nova_lxd.cmd.conductor import CannotTell, Fate
from nova_lxd.invariants import ExpectedPort

from . import servers

CONF = nova.conf.CONF


class Database:
    """What the conductor would answer."""

    def __init__(self, *orders, migrations=(), node="lxd") -> None:
        self.node = node
        self.instances = {order.uuid: order.instance for order in orders}
        self.migrations = list(migrations)
        self.asked: list[dict] = []

    def get_all_by_host(self, context, host, use_slave=False):
        if not self.node:
            raise nova_exception.ComputeHostNotFound(host=host)
        assert host == CONF.host
        return [objects.ComputeNode(hypervisor_type=self.node)]

    def get_by_host(self, context, host, expected_attrs=None, use_slave=False):
        assert context.read_deleted == "no"
        return [each for each in self.instances.values() if each.host == host]

    def get_by_filters(self, context, filters, **_):
        self.asked.append(filters)
        return self.migrations

    def get_by_uuid(self, context, uuid, expected_attrs=None, use_slave=False):
        if uuid not in self.instances:
            raise nova_exception.InstanceNotFound(instance_id=uuid)
        return self.instances[uuid]


@pytest.fixture
def nova_has(monkeypatch, options):
    """Let Nova have these servers and migrations."""

    def install(*orders, **more):
        database_ = Database(*orders, **more)
        monkeypatch.setattr(objects.InstanceList, "get_by_host", database_.get_by_host)
        monkeypatch.setattr(objects.ComputeNodeList, "get_all_by_host", database_.get_all_by_host)
        monkeypatch.setattr(objects.MigrationList, "get_by_filters", database_.get_by_filters)
        monkeypatch.setattr(objects.Instance, "get_by_uuid", database_.get_by_uuid)
        return database_

    return install


def ordered(**changes):
    order = servers.order()
    order.instance.power_state = power_state.RUNNING
    for name, value in changes.items():
        setattr(order.instance, name, value)
    return order


def migration(order, status):
    return objects.Migration(instance_uuid=order.uuid, status=status)


def expected():
    return conductor.Nova(60).expected()


def test_a_server_becomes_what_it_needs(nova_has):
    order = ordered()
    nova_has(order)
    found = expected()
    (server,) = found.servers
    assert (server.name, server.uuid) == (order.name, order.uuid)
    assert (server.memory_mb, server.vcpus, server.root_gb) == (64, 1, 1)
    assert server.status == "Running"
    assert server.built
    assert server.settled
    assert not server.rescued
    assert not server.snapshots
    port_id = order.port_ids[0]
    assert server.ports == (ExpectedPort(port_id, "fa:16:3e:00:00:01", 1450, hybrid=True),)
    assert found.project == "nova"
    assert found.integration_bridge == CONF.neutron.ovs_bridge
    assert not found.makes_images
    assert found.naming_seconds == CONF.lxd.operation_timeout
    assert found.image_folders == f"lxd-image-{CONF.host}-"


def test_native_ports_and_trunks(nova_has):
    order = ordered()
    info = order.network_info
    info[0]["details"] = {}
    info[0]["network"]["bridge"] = "tbr-11111111-1"
    order.instance.info_cache = objects.InstanceInfoCache(network_info=info)
    nova_has(order)
    (port,) = expected().servers[0].ports
    assert not port.hybrid
    assert port.bridge == "tbr-11111111-1"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"vm_state": vm_states.RESCUED}, {"rescued": True, "settled": True}),
        ({"vm_state": vm_states.RESIZED}, {"snapshots": frozenset({"nova-resize"})}),
        ({"vm_state": vm_states.ERROR}, {"settled": False, "built": False, "status": ""}),
        ({"vm_state": vm_states.BUILDING}, {"settled": False, "built": False}),
        ({"vm_state": vm_states.SHELVED_OFFLOADED}, {"settled": True, "built": False}),
        ({"task_state": task_states.REBOOTING}, {"settled": False, "built": True, "status": ""}),
        ({"power_state": power_state.PAUSED}, {"status": "Frozen"}),
        ({"power_state": power_state.NOSTATE}, {"status": ""}),
    ],
)
def test_states(nova_has, changes, wanted):
    nova_has(ordered(**changes))
    (server,) = expected().servers
    assert {name: getattr(server, name) for name in wanted} == wanted


def test_a_server_in_a_task_may_be_made_an_image_of(nova_has):
    nova_has(ordered(task_state=task_states.IMAGE_UPLOADING))
    assert expected().makes_images


def test_servers_that_come_and_go_are_here_too(nova_has):
    here, leaving, gone = ordered(), ordered(host="other"), ordered()
    migrations = [migration(each, "migrating") for each in (here, leaving, gone)]
    known = nova_has(here, leaving, migrations=migrations)
    found = {server.uuid: server.settled for server in expected().servers}
    assert found == {here.uuid: True, leaving.uuid: False}
    assert known.asked[0]["host"] == CONF.host
    over = {"completed", "confirmed", "done", "failed", "reverted", "cancelled"}
    assert not over & set(known.asked[0]["status"])


def test_a_migration_that_failed_is_over_when_the_server_is_well(nova_has):
    well, ill = ordered(host="other"), ordered(host="other", vm_state=vm_states.ERROR)
    nova_has(well, ill, migrations=[migration(each, "error") for each in (well, ill)])
    assert [server.uuid for server in expected().servers] == [ill.uuid]


def test_the_clients_are_called_for_this_host(nova_has, options):
    nova_has()
    assert expected().lxc == "lxc"
    assert expected().ovs_vsctl == f"ovs-vsctl --db={CONF.os_vif_ovs.ovsdb_connection}"
    options("lxd", endpoint="/srv/a b/unix.socket")
    assert expected().lxc == "LXD_SOCKET='/srv/a b/unix.socket' lxc"


def test_fates(nova_has):
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    there = ordered(host="other", deleted=False)
    busy = ordered(host=None, task_state=task_states.MIGRATING, deleted=False)
    gone = ordered(deleted=True, deleted_at=moment)
    nova_has(there, busy, gone)
    nova_ = conductor.Nova(60)
    assert nova_.fate(there.uuid) == Fate("other", vm_states.ACTIVE, False)
    assert nova_.fate(busy.uuid) == Fate("", vm_states.ACTIVE, True)
    assert nova_.fate(gone.uuid) == Fate(CONF.host, vm_states.ACTIVE, False, moment)
    assert nova_.fate(servers.new_id()) is None


@pytest.mark.parametrize(
    ("node", "words"),
    [("QEMU", "Nova has qemu, not LXD, on host "), ("", "Nova has no compute node on host ")],
)
def test_with_anothers_configuration_nothing_is_said(nova_has, node, words):
    nova_has(ordered(host="the-real-one"), node=node)
    with pytest.raises(CannotTell, match=f"^{words}.*--config-file"):
        expected()


def test_a_conductor_that_does_not_answer(nova_has, monkeypatch):
    nova_has()
    release = threading.Event()
    monkeypatch.setattr(objects.InstanceList, "get_by_host", lambda *_, **__: release.wait(60))
    with pytest.raises(CannotTell, match=r"did not answer within 0.05 s.*transport_url"):
        conductor.Nova(0.05).expected()
    release.set()


def test_a_conductor_that_fails(monkeypatch, options):
    failing = mock.Mock(side_effect=RuntimeError("no route"))
    monkeypatch.setattr(objects.Instance, "get_by_uuid", failing)
    with pytest.raises(CannotTell, match="nova-conductor: RuntimeError: no route"):
        conductor.Nova(60).fate(servers.new_id())


def test_the_database_is_out_of_reach(monkeypatch):
    monkeypatch.setattr(database, "DISABLE_DB_ACCESS", False)
    monkeypatch.setattr(objects_base.NovaObject, "indirection_api", None)
    started = mock.Mock()
    monkeypatch.setattr(conductor.rpc, "init", started)
    monkeypatch.setattr(rpcapi, "ConductorAPI", lambda: "conductor")
    conductor.connect()
    started.assert_called_once_with(CONF)
    assert database.DISABLE_DB_ACCESS
    assert objects_base.NovaObject.indirection_api == "conductor"
