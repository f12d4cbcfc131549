"""Images of servers: what Glance is given, and what stays behind: LXD's copy of it, or nothing."""

from __future__ import annotations

import contextlib
import io
import threading
import time

import pytest
from nova import exception as nova_exception
from nova.compute import task_states

from nova_lxd.virt import rootfs
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.session import Session
from tests.fake_lxd import Fault

from . import servers
from .compute_host import PROJECT, Glance, GlanceAPI, Host, attempt, check_destroy_at_last

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


def test_lxds_copy_stays_under_its_glance_id(host):
    host.snapshot()
    image = host.lxd.state.projects[PROJECT].images[host.stored()[host.glance.id]]
    assert image.properties["nova.image_id"] == host.glance.id
    assert image.properties["nova.unpacked_bytes"] == "16384"


def test_a_server_is_made_of_lxds_copy(host, monkeypatch):
    host.snapshot()
    monkeypatch.delattr(ImageCache, "_import")
    host.order = servers.order(image_id=host.glance.id)
    host.spawn()
    instance = host.lxd.state.projects[PROJECT].instances[host.order.name]
    assert instance.config["volatile.base_image"] == host.stored()[host.glance.id]


def test_an_image_that_is_not_used_ages_like_any_other(host, options):
    options("image_cache", remove_unused_original_minimum_age_seconds=0)
    host.snapshot()
    host.manage_images(host.order.instance)
    assert set(host.stored()) == {host.order.image_id}


def test_of_a_privileged_server_nothing_stays(host):
    host.order.instance.flavor.extra_specs = {"lxd:privileged_allowed": "true"}
    host.snapshot()
    assert host.glance.content
    assert host.glance.id not in host.stored()
    assert host.snapshot_remains() == []


@pytest.mark.parametrize("kind", [Fault.HTTP_500, Fault.HTTP_409, Fault.DROPPED_AFTER])
def test_a_copy_that_cannot_be_named_goes(host, kind):
    is_naming = lambda method, path: (method, path) == ("POST", "/1.0/images/aliases")  # noqa: E731
    host.lxd.faults.fail(is_naming, kind)
    host.snapshot()
    assert host.lxd.faults.hits
    assert host.glance.known
    assert host.glance.content
    # What got its name although the answer was lost is as good as any.
    named = {host.glance.id} if kind is Fault.DROPPED_AFTER else set()
    assert set(host.stored()) == {host.order.image_id} | named
    assert host.snapshot_remains() == []


def test_a_publication_whose_end_is_not_heard_of_goes(host):
    """LXD makes the image all the same, and nobody knows its fingerprint."""
    host.lxd.state.seconds["publish"] = 0.5
    published = []

    def is_the_wait(method, path):
        published.extend([path] * ((method, path) == ("POST", "/1.0/images")))
        return bool(published) and path.endswith("/wait")

    host.lxd.faults.fail(is_the_wait, Fault.DROPPED)
    with pytest.raises(nova_exception.HypervisorUnavailable):
        host.snapshot()
    deadline = time.monotonic() + 30
    while not host.snapshot_remains():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    host.driver._images.discard_unwanted()
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


@pytest.mark.parametrize(
    "text",
    [
        'exec: "zstd": executable file not found in $PATH',
        'Invalid compression algorithm "zstd"',
    ],
)
@pytest.mark.parametrize(("refusals", "program"), [(0, "zstd -T0"), (1, "zstd"), (2, "gzip")])
def test_a_program_that_lxd_does_not_take(host, monkeypatch, text, refusals, program):
    asked = []
    publish = Session.publish

    def note(self, instance, snapshot, compression, properties):
        asked.append(compression)
        return publish(self, instance, snapshot, compression, properties)

    monkeypatch.setattr(Session, "publish", note)
    is_publication = lambda method, path: (method, path) == ("POST", "/1.0/images")  # noqa: E731
    host.lxd.faults.fail(is_publication, Fault.HTTP_500, text=text, times=refusals)
    host.snapshot()
    assert len(asked) == refusals + 1
    assert asked[-1] == program
    assert host.glance.content


def test_another_refusal_is_no_reason_to_try_another_program(host):
    is_publication = lambda method, path: (method, path) == ("POST", "/1.0/images")  # noqa: E731
    host.lxd.faults.fail(is_publication, Fault.HTTP_500, text="no space left on device")
    assert "no space left" in str(attempt(host.snapshot))
    assert host.snapshot_remains() == []


def test_glance_refuses(host, monkeypatch):
    def refuse(*args, **kwargs):
        raise nova_exception.ImageNotFound(image_id="an image")

    monkeypatch.setattr(GlanceAPI, "update", refuse)
    assert isinstance(attempt(host.snapshot), nova_exception.ImageNotFound)
    assert host.glance.id not in host.stored()
    assert host.snapshot_remains() == []


def test_an_export_that_breaks_off_is_never_taken_for_the_whole(host):
    is_export = lambda method, path: path.endswith("/export")  # noqa: E731
    host.lxd.faults.fail(is_export, Fault.BROKEN_JSON)
    assert isinstance(attempt(host.snapshot), nova_exception.HypervisorUnavailable)
    assert host.snapshot_remains() == []
    assert not host.glance.known


def test_a_snapshot_that_lxd_would_not_drop_goes_with_the_next_pass(host):
    is_dropping = lambda method, path: method == "DELETE" and "/snapshots/" in path  # noqa: E731
    host.lxd.faults.fail(is_dropping, Fault.HTTP_500)
    host.snapshot()
    assert host.snapshots()
    host.driver._snapshots.drop_left()
    assert host.snapshot_remains() == []
    host.driver._snapshots.drop_left()
