"""Images of servers: what Glance is given, and what stays behind, which is nothing."""

from __future__ import annotations

import contextlib
import io
import threading
import time

import pytest
from nova import exception as nova_exception
from nova.compute import task_states

from nova_lxd.virt import rootfs
from tests.fake_lxd import Fault

from .compute_host import Glance, GlanceAPI, Host, attempt, check_destroy_at_last

pytestmark = pytest.mark.usefixtures("options")


@pytest.fixture
def host(tmp_path, ports):
    with contextlib.closing(Host(tmp_path / "host", ports)) as host:
        host.spawn()
        yield host


def test_glance_gets_what_a_server_can_be_made_of(host):
    host.snapshot()
    image = host.glance.metadata
    assert (image["name"], image["disk_format"], image["container_format"]) == (
        "web-backup",
        "raw",
        "bare",
    )
    assert image["properties"]["hypervisor_type"] == "lxd"
    assert image["properties"]["hw_vm_mode"] == "exe"
    assert image["properties"]["architecture"] == "x86_64"
    assert image["properties"]["image_location"] == "snapshot"
    assert rootfs.inspect(io.BytesIO(host.glance.content), "an image", 0).unified
    assert host.glance.said == [task_states.IMAGE_PENDING_UPLOAD, task_states.IMAGE_UPLOADING]
    assert host.snapshot_remains() == []


def test_of_a_server_that_is_gone(host):
    host.destroy()
    error = attempt(host.snapshot)
    assert isinstance(error, nova_exception.InstanceNotRunning)
    assert not host.glance.known


def test_the_server_is_deleted_meanwhile(host, monkeypatch):
    def deleted(self, task_state, expected_state=None):
        if expected_state:
            raise nova_exception.UnexpectedDeletingTaskStateError(
                instance_uuid="u", expected="e", actual="a"
            )

    monkeypatch.setattr(Glance, "update_task_state", deleted)
    error = attempt(host.snapshot)
    assert isinstance(error, nova_exception.UnexpectedDeletingTaskStateError)
    assert host.snapshot_remains() == []
    assert not host.glance.known


def test_a_delete_waits_for_lxd_to_end_the_image(host):
    # LXD 5.0.2 refuses it meanwhile, and its operation cannot be cancelled.
    host.lxd.state.seconds["publish"] = 1.5
    snapshot = threading.Thread(target=attempt, args=(host.snapshot,))
    snapshot.start()
    instance = host.lxd.state.projects["nova"].instances[host.order.name]
    deadline = time.monotonic() + 30
    while not instance.published:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert check_destroy_at_last(host) == []
    snapshot.join(30)
    assert not snapshot.is_alive()
    assert host.remains() == []


def test_a_leftover_is_replaced(host):
    host.driver._session.create_snapshot(host.order.name, "nova-image")
    host.snapshot()
    assert host.glance.content
    assert host.snapshot_remains() == []


def test_a_program_that_lxd_lacks(host):
    text = 'exec: "zstd": executable file not found in $PATH'
    is_publication = lambda method, path: (method, path) == ("POST", "/1.0/images")  # noqa: E731
    host.lxd.faults.fail(is_publication, Fault.HTTP_500, text=text)
    host.snapshot()
    assert host.glance.content


def test_glance_refuses(host, monkeypatch):
    def refuse(*args, **kwargs):
        raise nova_exception.ImageNotFound(image_id="an image")

    monkeypatch.setattr(GlanceAPI, "update", refuse)
    assert isinstance(attempt(host.snapshot), nova_exception.ImageNotFound)
    assert host.snapshot_remains() == []


def test_an_export_that_breaks_off_is_never_taken_for_the_whole(host):
    is_export = lambda method, path: path.endswith("/export")  # noqa: E731
    host.lxd.faults.fail(is_export, Fault.BROKEN_JSON)
    assert isinstance(attempt(host.snapshot), nova_exception.HypervisorUnavailable)
    assert host.snapshot_remains() == []
    assert not host.glance.known
