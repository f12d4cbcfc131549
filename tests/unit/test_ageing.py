"""Images that no server uses: removed by Nova's options, never while somebody needs them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from nova_lxd.virt import imagecache
from nova_lxd.virt.copies import flavor_of
from tests.fake_lxd import Call, Fault
from tests.fake_lxd.state import Image

from . import servers
from .compute_host import PROJECT, Host

pytestmark = pytest.mark.usefixtures("options")

DAY = timedelta(days=1)


@pytest.fixture
def host(tmp_path, ports):
    with contextlib.closing(Host(tmp_path / "host", ports)) as host:
        host.spawn()
        yield host


@pytest.fixture
def image(host):
    """The image of the host's server, which was used two days ago."""
    image = host.lxd.state.projects[PROJECT].images[host.stored()[host.order.image_id]]
    long_ago(image)
    return image


def long_ago(image, age=2 * DAY):
    """Let an image be of another time."""
    stamp = (datetime.now(UTC) - age).isoformat()
    image.uploaded_at = image.last_used_at = stamp


def add_image(host, fingerprint, *aliases, **properties):
    """Put an old image into LXD's store by another hand than the driver's."""
    image = Image(fingerprint, properties, "x86_64", "2000-01-01T00:00:00Z", 1)
    long_ago(image)
    host.lxd.state.projects[PROJECT].images[fingerprint] = image
    for alias in aliases:
        host.driver._session.add_alias(alias, fingerprint)
    return fingerprint


def writes(host):
    """Name what LXD was asked to change."""
    return [call for call in host.lxd.calls if call.method != "GET"]


def test_an_image_that_a_server_uses_stays(host, image, options):
    options("image_cache", remove_unused_original_minimum_age_seconds=0)
    host.manage_images(host.order.instance)
    assert host.order.image_id in host.stored()
    noted = datetime.fromisoformat(image.properties["nova.used_at"])
    assert datetime.now(UTC) - noted < timedelta(minutes=5)
    assert image.properties["nova.image_id"] == host.order.image_id, "the others stay"


def test_an_image_that_no_server_uses_goes(host, image, caplog):
    caplog.set_level(logging.INFO)
    host.manage_images(servers.order().instance)
    assert host.stored() == {}
    (line,) = [record.getMessage() for record in caplog.records if "removed" in record.msg]
    assert host.order.image_id in line
    assert " 1728" in line, "it says how old it was"


def test_a_young_one_stays(host, image, options):
    options("image_cache", remove_unused_original_minimum_age_seconds=3 * 24 * 3600)
    host.manage_images()
    assert host.order.image_id in host.stored()


@pytest.mark.parametrize("event", ["uploaded_at", "last_used_at"])
def test_its_age_begins_with_what_came_last(host, image, event):
    setattr(image, event, datetime.now(UTC).isoformat())
    host.manage_images()
    assert host.order.image_id in host.stored()


def test_its_age_begins_when_it_was_last_seen_in_use(host, image):
    host.manage_images(host.order.instance)
    host.manage_images()
    assert host.order.image_id in host.stored()


def test_the_operator_wants_to_keep_all(tmp_path, ports, options):
    options("image_cache", remove_unused_base_images=False)
    options("image_cache", remove_unused_original_minimum_age_seconds=0)
    with contextlib.closing(Host(tmp_path / "host", ports)) as host:
        host.spawn()
        host.manage_images()
        assert host.order.image_id in host.stored()


def test_what_is_not_ours_stays(host, image, options):
    options("image_cache", remove_unused_original_minimum_age_seconds=0)
    foreign = {
        add_image(host, "1" * 64, "debian"),
        add_image(host, "2" * 64, "named", **{"nova.image_id": "another"}),
        add_image(host, "3" * 64, **{"nova.image_id": "on its way"}),
    }
    host.manage_images()
    assert set(host.lxd.state.projects[PROJECT].images) == foreign


def test_the_time_is_written_once_in_a_while(host, image):
    host.manage_images(host.order.instance)
    host.lxd.faults.forget_calls()
    host.manage_images(host.order.instance)
    assert writes(host) == []
    image.properties["nova.used_at"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    host.manage_images(host.order.instance)
    assert writes(host) == [Call("PATCH", f"/1.0/images/{image.fingerprint}")]


def test_lxd_is_away(host, image, caplog):
    host.lxd.faults.fail(lambda *_: True, Fault.DOWN)
    host.manage_images()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    host.lxd.faults.clear()
    host.manage_images()
    assert host.stored() == {}


def is_delete(method, path):
    return method == "DELETE"


def test_lxd_goes_away_in_the_middle(host, image, caplog):
    host.lxd.faults.fail(is_delete, Fault.DROPPED)
    host.manage_images()
    assert host.order.image_id in host.stored()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_one_image_does_not_keep_the_others(host, image):
    other = servers.order()
    first, host.order = host.order, other
    host.spawn()
    for stored in host.lxd.state.projects[PROJECT].images.values():
        long_ago(stored)
    host.lxd.faults.fail(is_delete, Fault.HTTP_500)
    host.manage_images()
    assert len(host.stored()) == 1
    host.manage_images()
    assert host.stored() == {}
    assert first.image_id != other.image_id


def test_an_image_that_is_deleted_meanwhile(host, image, caplog):
    host.lxd.faults.fail(is_delete, Fault.HTTP_404)
    host.manage_images()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- the moments in which somebody needs it


def test_not_while_a_server_is_made_of_it(host, image, options):
    options("image_cache", remove_unused_original_minimum_age_seconds=0)
    order = host.order
    source = imagecache.source_of(order.image_meta)
    images = host.driver._lifecycle._images
    with images.used(order.context, source, flavor_of(order.instance.flavor), None) as used:
        host.manage_images()
        assert host.stored() == {order.image_id: used.fingerprint}
    host.manage_images()
    assert host.stored() == {}


def test_not_when_it_was_used_since_it_was_looked_at(host, image):
    (stored,) = host.driver._session.stored_images()
    image.last_used_at = datetime.now(UTC).isoformat()
    assert not host.driver._lifecycle._images.remove_unused(stored)
    assert host.order.image_id in host.stored()


def test_a_server_that_comes_while_its_image_goes(host, image):
    host.destroy()
    host.lxd.state.seconds["delete"] = 0.5
    manager = threading.Thread(target=host.manage_images)
    manager.start()
    deadline = time.monotonic() + 30
    while not any(call.method == "DELETE" for call in host.lxd.calls if "/images/" in call.path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    host.spawn()
    manager.join(30)
    assert not manager.is_alive()
    assert host.order.image_id in host.stored(), "it was fetched again"
