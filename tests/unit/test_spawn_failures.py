"""What else can go wrong while a server is built: ports, images, Neutron, names, many at once."""

from __future__ import annotations

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
from nova import exception as nova_exception
from nova.compute import power_state, task_states, vm_states
from nova.virt import fake as nova_fake

from tests.fake_lxd import Fault

from . import servers
from .compute_host import PROJECT, GlanceAPI, Host, attempt, check_destroy_at_last

pytestmark = pytest.mark.usefixtures("options")


class VirtAPI(nova_fake.FakeVirtAPI):
    """Neutron's answer: none in time, a failure, or the event."""

    def __init__(self, *, late=False, failed=False) -> None:
        self.late = late
        self.failed = failed

    @contextlib.contextmanager
    def wait_for_instance_event(self, instance, event_names, timeout=300, error_callback=None):
        yield
        if self.failed:
            error_callback(event_names[0][0], instance)
        if self.late:
            raise nova_exception.InstanceEventTimeout


class TestSpawn:
    """What else can go wrong while a server is built."""

    @pytest.fixture
    def host(self, tmp_path, ports):
        with contextlib.closing(Host(tmp_path / "lxd", ports)) as host:
            yield host

    def test_what_an_unshelving_left_makes_room_for_the_next(self, host):
        host.spawn()
        host.order.instance.vm_state = vm_states.SHELVED_OFFLOADED
        host.spawn()
        assert host.power_state() == power_state.RUNNING
        host.destroy()
        assert host.remains() == []

    def test_an_image_that_could_not_be_removed_goes_with_the_next_upload(self, host):
        def unnamed(method, path):
            return (method, path) == ("POST", "/1.0/images/aliases")

        def removed(method, path):
            return method == "DELETE" and path.startswith("/1.0/images/")

        for call in (unnamed, removed):
            host.lxd.faults.fail(call, Fault.DROPPED)
        assert attempt(host.spawn)
        host.lxd.faults.clear()
        (left,) = host.remains()
        assert left.startswith("nameless image")
        host.order = servers.order()
        host.spawn()
        assert [thing for thing in host.remains() if "image" in thing] == []

    def refused(self, host, kind, match):
        with pytest.raises(kind, match=match) as caught:
            host.spawn()
        assert host.remains() == []
        return caught.value

    def test_every_later_call_fails_too(self, tmp_path, ports):
        for index in itertools.count():
            with contextlib.closing(Host(tmp_path / f"{index}", ports)) as host:
                error = self.spawn_on_a_sick_lxd(host, index)
                if not host.lxd.faults.hits:
                    break
                assert "the first fault" in str(error)
                host.recover()
                assert check_destroy_at_last(host) == []
        assert index > 5

    def spawn_on_a_sick_lxd(self, host, index):
        faults = host.lxd.faults
        faults.forget_calls()
        faults.fail(index, Fault.HTTP_500, text="the first fault")
        later = lambda *_: len(faults.calls) > index + 1  # noqa: E731
        faults.fail(later, Fault.HTTP_500, text="a later fault", times=1000)
        return attempt(host.spawn)

    def test_a_port_that_cannot_be_plugged(self, tmp_path, host, ports):
        for number in range(2):
            order = host.order = servers.order(port_ids=[servers.new_id(), servers.new_id()])
            ports.failing = {ports.calls + number}
            self.refused(host, nova_exception.BuildAbortException, "could not be plugged")
            assert not set(order.port_ids) & ports.plugged

    def test_the_undo_goes_on_when_a_port_cannot_be_unplugged(self, host, ports):
        host.lxd.faults.fail(lambda method, path: path.endswith("/state"), Fault.HTTP_500)
        ports.failing = {ports.calls + 1}
        with pytest.raises(nova_exception.NovaException, match="injected fault"):
            host.spawn()
        assert host.remains() == [f"port {host.order.port_ids[0]}"]
        host.destroy()
        assert host.remains() == []

    @pytest.mark.parametrize("kind", [Fault.DROPPED_AFTER, Fault.BROKEN_JSON])
    @pytest.mark.parametrize("action", ["create", "start"])
    def test_what_lxd_still_does_after_its_answer_was_lost_is_undone(self, host, action, kind):
        path = {"create": "/1.0/instances", "start": f"/1.0/instances/{host.order.name}/state"}
        method = {"create": "POST", "start": "PUT"}
        call = (method[action], path[action])
        host.lxd.state.seconds[action] = 0.4
        host.lxd.faults.fail(lambda *found: found == call, kind)
        self.refused(host, nova_exception.BuildAbortException, "LXD at")

    def test_glance_has_no_such_image(self, host):
        missing = nova_exception.ImageNotFound(image_id=host.order.image_id)
        with mock.patch.object(GlanceAPI, "download", side_effect=missing):
            self.refused(host, nova_exception.ImageNotFound, host.order.image_id)

    @pytest.mark.parametrize(
        "content",
        [
            b"QFI\xfb" + bytes(600),
            b"rubbish" * 200,
            b"",
            servers.ROOTFS[: len(servers.ROOTFS) // 2],
        ],
        ids=["qcow2", "rubbish", "empty", "truncated"],
    )
    def test_an_image_that_is_none(self, host, content):
        with mock.patch.object(GlanceAPI, "download", return_value=[content]):
            self.refused(host, nova_exception.ImageUnacceptable, host.order.image_id)
        assert not host.lxd.state.projects[PROJECT].images

    def test_neutron_is_late(self, tmp_path, ports, options):
        options(vif_plugging_is_fatal=True)
        with contextlib.closing(Host(tmp_path / "lxd", ports, VirtAPI(late=True))) as host:
            self.refused(host, nova_exception.BuildAbortException, "vif_plugging_timeout")
            options(vif_plugging_is_fatal=False)
            host.spawn()
            assert host.power_state() == power_state.RUNNING

    def test_neutron_fails(self, tmp_path, ports):
        with contextlib.closing(Host(tmp_path / "lxd", ports, VirtAPI(failed=True))) as host:
            self.refused(host, nova_exception.BuildAbortException, "network-vif-plugged")

    def test_a_server_of_that_name_is_left_alone(self, host):
        host.spawn()
        with pytest.raises(nova_exception.InstanceExists):
            host.spawn()
        assert host.power_state() == power_state.RUNNING
        assert (PROJECT, host.order.name) in host.lxd.state.instances
        assert len(host.lxd.state.projects[PROJECT].profiles) == 2

    def test_without_ports(self, host):
        host.order = servers.order(port_ids=[])
        host.spawn()
        host.destroy()
        assert host.remains() == []

    def test_network_info_may_be_missing_when_it_goes(self, host):
        host.spawn()
        order = host.order
        host.driver.destroy(order.context, order.instance, None)
        assert not host.lxd.state.instances


def test_many_servers_at_once(tmp_path, ports):
    """Forty servers, eight at a time: forty disjoint id ranges inside the host's, no leak."""
    host = Host(tmp_path / "lxd", ports)
    image = servers.order().image_id
    orders = [servers.order(image_id=image) for _ in range(40)]

    def spawn(order):
        host.driver.spawn(
            order.context, order.instance, order.image_meta, [], "", {}, order.network_info
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(spawn, orders))
    made = [host.lxd.state.instances[PROJECT, order.name].config for order in orders]
    bases = sorted(int(config["volatile.idmap.base"]) for config in made)
    first, size = host.lxd.state.id_range
    assert first + 65536 <= bases[0]
    assert bases[-1] + 65536 <= first + size
    assert all(later - earlier >= 65536 for earlier, later in itertools.pairwise(bases))
    assert len(host.lxd.state.projects[PROJECT].images) == 1
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda o: host.driver.destroy(o.context, o.instance, o.network_info), orders))
    assert host.remains() == []
    assert not host.lxd.state.instances


def test_a_server_that_was_built_stays_so_when_lxd_cannot_be_asked(tmp_path, ports, options):
    with contextlib.closing(Host(tmp_path / "lxd", ports)) as host:
        host.spawn()
        host.lxd.stop()
        check_built(host, nova_exception.HypervisorUnavailable)


def test_a_server_that_was_built_stays_so_when_lxd_cannot_answer(tmp_path, ports, options):
    with contextlib.closing(Host(tmp_path / "lxd", ports)) as host:
        host.spawn()
        host.lxd.faults.fail(lambda *call: True, Fault.HTTP_500, times=2)
        check_built(host, nova_exception.NovaException)


def test_a_server_that_was_built_and_is_gone_is_called_so(tmp_path, ports, options):
    with contextlib.closing(Host(tmp_path / "lxd", ports)) as host:
        host.order.instance.task_state = task_states.SPAWNING
        with pytest.raises(nova_exception.InstanceNotFound):
            host.power_state()


def check_built(host: Host, otherwise: type[Exception]) -> None:
    """Ask how a server is: an error must not fail its build, and at any other time be told."""
    host.order.instance.task_state = task_states.SPAWNING
    assert host.power_state() == power_state.NOSTATE
    host.order.instance.task_state = None
    with pytest.raises(otherwise):
        host.power_state()
