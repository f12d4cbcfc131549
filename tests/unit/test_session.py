"""The door to LXD: what it asks, what it answers, and what becomes of every kind of error."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import requests
import websocket

from nova_lxd import exception
from nova_lxd.virt.model import CachedImage, IdRange, InstanceSpec, StoredImage
from nova_lxd.virt.session import REQUIRED_EXTENSIONS, Session, Timeouts
from nova_lxd.virt.session.streams import EventStream
from tests.fake_lxd import Call, Fault
from tests.unit.lxd_contract import guests

PROJECT = "nova"
ROOT = {"root": {"type": "disk", "path": "/", "pool": "default"}}
OPERATION = 1.5
"""Seconds the sessions of these tests wait for an operation."""


@pytest.fixture
def session(fake):
    session = Session(str(fake.socket), PROJECT, Timeouts(5, OPERATION, 5))
    session.server()
    session.ensure_project()
    fake.faults.forget_calls()
    return session


@pytest.fixture
def image(session):
    return upload(session)


def upload(session, metadata=None, rootfs=None, **properties):
    metadata = guests.metadata() if metadata is None else metadata
    rootfs = guests.rootfs(deaf=True) if rootfs is None else rootfs
    fingerprint = hashlib.sha256(metadata + rootfs).hexdigest()
    found = session.upload_image(metadata, [rootfs[:100], rootfs[100:]], properties)
    assert found in (None, fingerprint)
    return fingerprint


def spec(image, name="instance-1", base=165536, **devices):
    config = {"user.nova.uuid": f"uuid of {name}", "security.idmap.base": str(base)}
    profile = {"security.idmap.isolated": "true"}
    return InstanceSpec(name, image, name, profile, ROOT, config, devices)


def build(session, image, name="instance-1", *, start=False, base=165536):
    made = spec(image, name, base)
    session.create_profile(name, made.profile_config, made.profile_devices)
    session.create_instance(made)
    if start:
        session.change_state(name, "start")


class TestHost:
    def test_server(self, fake, session):
        server = session.server()
        assert server.version == "5.0.2"
        assert server.name == "fake"
        assert server.architectures == ("x86_64", "i686")
        assert server.kernel_version == fake.state.server["environment"]["kernel_version"]
        assert set(REQUIRED_EXTENSIONS) <= server.api_extensions

    def test_the_project_is_made_once(self, fake, session):
        session.ensure_project()
        config = fake.state.projects[PROJECT].config
        assert config["features.images"] == config["features.profiles"] == "true"

    def test_pool(self, fake, session):
        assert session.pool_driver("default") == "btrfs"
        assert session.pool_names() == ["default"]
        space = session.pool_space("default")
        assert (space.total, space.used) == (20 * 2**30, 6062080)

    def test_unknown_pool(self, session):
        with pytest.raises(exception.NotFound):
            session.pool_driver("no")

    def test_resources(self, session):
        assert session.resources()["cpu"]["total"] == 2

    def test_id_range(self, fake, session):
        fake.state.id_range = (200000, 655360)
        assert session.default_id_range("default") == IdRange(200000, 655360)
        assert not fake.state.instances

    def test_id_range_after_a_probe_that_was_left_behind(self, fake, session):
        session.operate(
            "POST",
            "instances",
            json={
                "name": "nova-lxd-idmap-probe",
                "source": {"type": "none"},
                "profiles": [],
                "devices": ROOT,
            },
        )
        assert session.default_id_range("default").base == 100000
        assert not fake.state.instances

    def test_taken_id_ranges_are_those_of_every_project(self, fake, session, image):
        fake.state.add_instance("default", "other", config={"volatile.idmap.base": "331072"})
        fake.state.add_instance("default", "shared", config={"volatile.idmap.base": "0"})
        build(session, image, base=165536)
        assert session.taken_id_ranges() == {
            ("default", "other"): IdRange(331072, 65536),
            (PROJECT, "instance-1"): IdRange(165536, 65536),
        }
        everywhere = {("default", "other"), ("default", "shared"), (PROJECT, "instance-1")}
        assert session.instance_names() == everywhere


class TestInstances:
    def test_create(self, fake, session, image):
        build(session, image)
        made = fake.state.instances[PROJECT, "instance-1"]
        assert made.status == "Stopped"
        assert made.profiles == ["instance-1"]
        assert made.config["volatile.base_image"] == image
        assert made.config["volatile.idmap.base"] == "165536"
        assert session.unused_profiles() == ["default"]
        with pytest.raises(exception.InUse):
            session.delete_profile("instance-1")

    def test_state(self, session, image):
        build(session, image)
        state = session.state("instance-1")
        assert state.name == "instance-1"
        assert state.uuid == "uuid of instance-1"
        assert state.status == "Stopped"
        assert state.id_base == 165536
        assert session.states() == [state]

    def test_other_projects_are_not_ours(self, fake, session):
        fake.state.add_instance("default", "other")
        assert session.states() == []
        with pytest.raises(exception.NotFound):
            session.state("other")
        with pytest.raises(exception.NotFound):
            session.delete_instance("other")

    def test_delete(self, fake, session, image):
        build(session, image)
        session.delete_instance("instance-1")
        assert session.unused_profiles() == ["default", "instance-1"]
        session.delete_profile("instance-1")
        assert not fake.state.instances
        assert session.unused_profiles() == ["default"]

    def test_what_is_not_there(self, session):
        absent = [
            lambda: session.state("no"),
            lambda: session.delete_instance("no"),
            lambda: session.delete_profile("no"),
            lambda: session.change_state("no", "start"),
            lambda: session.console_log("no"),
            lambda: session.delete_image("0" * 64),
        ]
        for call in absent:
            with pytest.raises(exception.NotFound):
                call()
        assert session.find_image("no") is None

    def test_what_is_there_already(self, session, image):
        build(session, image)
        session.add_alias("glance", image)
        with pytest.raises(exception.AlreadyExists):
            session.create_profile("instance-1", {}, {})
        with pytest.raises(exception.AlreadyExists):
            session.create_instance(spec(image))
        with pytest.raises(exception.AlreadyExists):
            session.add_alias("glance", image)

    @pytest.mark.parametrize(
        ("actions", "status"),
        [
            (["start"], "Running"),
            (["start", "start"], "Running"),
            (["stop"], "Stopped"),
            (["start", "stop", "stop"], "Stopped"),
            (["start", "freeze"], "Frozen"),
            (["start", "freeze", "freeze"], "Frozen"),
            (["start", "freeze", "unfreeze", "unfreeze"], "Running"),
            (["start", "freeze", "stop"], "Stopped"),
        ],
    )
    def test_change_state(self, fake, session, image, actions, status):
        build(session, image)
        for action in actions:
            session.change_state("instance-1", action, force=action == "stop")
        assert fake.state.instances[PROJECT, "instance-1"].status == status

    @pytest.mark.parametrize("action", ["freeze", "unfreeze"])
    def test_a_stopped_instance_cannot_be_frozen(self, session, image, action):
        build(session, image)
        with pytest.raises(exception.LXDError, match="isn't running"):
            session.change_state("instance-1", action)

    def test_a_guest_that_does_not_stop_in_time(self, fake, session, image):
        build(session, image, start=True)
        fake.state.instances[PROJECT, "instance-1"].deaf = True
        with pytest.raises(exception.LXDError, match="Failed shutting down instance"):
            session.change_state("instance-1", "stop", timeout=1)
        session.change_state("instance-1", "stop", force=True)
        assert session.state("instance-1").status == "Stopped"

    def test_a_start_that_fails_says_why(self, fake, session, image):
        fake.state.bridges = set()
        nic = {"type": "nic", "nictype": "bridged", "parent": "qbr1", "host_name": "tap1"}
        made = spec(image, tap1=nic)
        session.create_profile(made.name, made.profile_config, made.profile_devices)
        session.create_instance(made)
        with pytest.raises(exception.LXDError, match='Parent device "qbr1" doesn\'t exist'):
            session.change_state("instance-1", "start")

    def test_console(self, session, image):
        build(session, image)
        assert session.console_log("instance-1") == b""
        session.change_state("instance-1", "start")
        assert session.console_log("instance-1") == b"fake guest: booted\r\n"
        assert session.console_log("instance-1") == b""
        session.change_state("instance-1", "stop", force=True)
        assert session.console_log("instance-1") == b"fake guest: booted\r\n"


class TestBusy:
    def test_a_busy_instance_is_waited_for(self, fake, session, image):
        build(session, image)
        instance = fake.state.instances[PROJECT, "instance-1"]
        instance.busy = "stop"
        timer = threading.Timer(0.3, lambda: setattr(instance, "busy", ""))
        timer.start()
        session.retry_busy(lambda: session.delete_instance("instance-1"))
        assert not fake.state.instances

    def test_a_running_instance_is_busy(self, session, image):
        build(session, image)
        session.change_state("instance-1", "start")
        with pytest.raises(exception.Busy, match="running"):
            session.delete_instance("instance-1")

    def test_not_for_ever(self, fake, session, image):
        build(session, image)
        fake.state.instances[PROJECT, "instance-1"].busy = "stop"
        began = time.monotonic()
        with pytest.raises(exception.Busy):
            session.retry_busy(lambda: session.delete_instance("instance-1"))
        assert time.monotonic() - began < 10 * OPERATION


class TestAFullDisk:
    FULL = "unable to limit requested quota group: Disk quota exceeded"

    def change(self, fake, session, image, times):
        build(session, image)
        fake.faults.fail(
            lambda method, path: method == "PUT",
            Fault.OPERATION_FAILURE,
            times=times,
            text=self.FULL,
        )
        session.change_role("instance-1", "rescued", lambda own, expanded: own)

    def test_it_is_tried_until_what_was_only_reserved_is_given_back(self, fake, session, image):
        self.change(fake, session, image, times=2)
        assert session.state("instance-1").role == "rescued"

    def test_not_for_ever_and_the_way_out_is_told(self, fake, session, image):
        with pytest.raises(exception.DiskFull, match="remove a file in it"):
            self.change(fake, session, image, times=1000)

    def test_a_hot_plug_is_not_given_that_time_thrice(self, fake, session, image):
        build(session, image)
        fake.faults.fail(
            lambda method, path: method == "PUT",
            Fault.OPERATION_FAILURE,
            times=1000,
            text=self.FULL,
        )
        fake.faults.forget_calls()
        with pytest.raises(exception.DiskFull, match="remove a file in it"):
            session.change_devices("instance-1", lambda own: own | {"new": {"type": "none"}})
        tries = [call for call in fake.faults.calls if call.method == "PUT"]
        assert len(tries) <= 1 + OPERATION / 0.5


class TestImages:
    def test_upload(self, fake, session):
        metadata, rootfs = guests.metadata(glance="1"), guests.rootfs(deaf=True)
        sent = {"nova.unpacked_bytes": "12345", "description": "tiny & free = 100%"}
        fingerprint = upload(session, metadata, rootfs, **sent)
        image = fake.state.projects[PROJECT].images[fingerprint]
        assert image.properties == {"glance": "1", **sent}
        assert (fake.folder / "images" / fingerprint).read_bytes() == metadata
        assert (fake.folder / "images" / f"{fingerprint}.rootfs").read_bytes() == rootfs
        session.add_alias("glance-id", fingerprint)
        assert session.find_image("glance-id") == CachedImage(fingerprint, 12345)

    def test_upload_of_what_is_there_already(self, fake, session, image):
        assert upload(session) == image
        assert list(fake.state.projects[PROJECT].images) == [image]

    @pytest.mark.parametrize("error", [BrokenPipeError("gone"), requests.ConnectionError("gone")])
    def test_an_upload_whose_source_breaks_off(self, fake, session, error):
        def pieces():
            yield b"a" * 100_000
            raise error

        with pytest.raises(type(error)) as caught:
            session.upload_image(guests.metadata(), pieces(), {})
        assert caught.value is error
        deadline = time.monotonic() + 30
        while list((fake.folder / "images").glob("*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not fake.state.projects[PROJECT].images

    def test_properties_are_added(self, fake, session, image):
        session.describe_image(image, {"nova.unpacked_bytes": "7"})
        session.describe_image(image, {"a": "b"})
        properties = fake.state.projects[PROJECT].images[image].properties
        assert {"nova.unpacked_bytes": "7", "a": "b"}.items() <= properties.items()

    def test_deleting_takes_the_alias_along(self, session, image):
        session.add_alias("glance-id", image)
        session.delete_image(image)
        assert session.find_image("glance-id") is None

    def test_what_came_from_glance(self, fake, session, image):
        images = fake.state.projects[PROJECT].images
        session.describe_image(image, {"nova.image_id": "glance-id"})
        assert session.stored_images() == []
        session.add_alias("another", image)
        assert session.stored_images() == []
        session.add_alias("glance-id", image)
        came = datetime.fromisoformat(images[image].uploaded_at)
        assert session.stored_images() == [StoredImage(image, "glance-id", came)]

    @pytest.mark.parametrize(
        ("noted", "expected"),
        [
            ("2999-01-01T00:00:00+00:00", datetime(2999, 1, 1, tzinfo=UTC)),
            ("2999-01-01T00:00:00", datetime(2999, 1, 1, tzinfo=UTC)),
            ("2999-01-01T01:00:00+01:00", datetime(2999, 1, 1, tzinfo=UTC)),
            ("2000-01-01T00:00:00+00:00", datetime(2001, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
            ("yesterday", datetime(2001, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
        ],
    )
    def test_the_latest_time_counts(self, fake, session, image, noted, expected):
        stored = fake.state.projects[PROJECT].images[image]
        stored.uploaded_at = "2000-06-01T00:00:00Z"
        stored.last_used_at = "2001-01-01T00:00:00.123456789Z"
        session.describe_image(image, {"nova.image_id": "glance-id", "nova.used_at": noted})
        session.add_alias("glance-id", image)
        assert session.stored_images() == [StoredImage(image, "glance-id", expected)]

    def test_the_upload_is_streamed(self, fake, session):
        size = 64 * 2**20
        piece = bytes(2**18)
        tracemalloc.start()
        try:
            found = session.upload_image(guests.metadata(), itertools.repeat(piece, size >> 18), {})
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert fake.state.projects[PROJECT].images[found].size == size + len(guests.metadata())
        assert peak < size / 4


ANSWERS = {
    Fault.HTTP_404: exception.NotFound,
    Fault.HTTP_409: exception.AlreadyExists,
    Fault.HTTP_412: exception.PreconditionFailed,
    Fault.HTTP_500: exception.LXDError,
    Fault.HTTP_503: exception.LXDUnreachable,
    Fault.DROPPED: exception.LXDUnreachable,
    Fault.DROPPED_AFTER: exception.LXDUnreachable,
    Fault.BROKEN_JSON: exception.LXDUnreachable,
    Fault.OPERATION_FAILURE: exception.LXDError,
    Fault.DOWN: exception.LXDUnreachable,
    Fault.RESTART: exception.LXDUnreachable,
}
READS = {
    "server": lambda session: session.server(),
    "pool_driver": lambda session: session.pool_driver("default"),
    "pool_names": lambda session: session.pool_names(),
    "pool_space": lambda session: session.pool_space("default"),
    "resources": lambda session: session.resources(),
    "instance_names": lambda session: session.instance_names(),
    "taken_id_ranges": lambda session: session.taken_id_ranges(),
    "unused_profiles": lambda session: session.unused_profiles(),
    "states": lambda session: session.states(),
    "state": lambda session: session.state("instance-1"),
}
WRITES = {
    "create_profile": lambda session: session.create_profile("p", {}, {}),
    "create_instance": lambda session: session.create_instance(spec("0" * 64)),
    "delete_instance": lambda session: session.delete_instance("instance-1"),
    "add_alias": lambda session: session.add_alias("a", "0" * 64),
    "delete_image": lambda session: session.delete_image("0" * 64),
    "upload_image": lambda session: upload(session, rootfs=b"other"),
    "delete_profile": lambda session: session.delete_profile("instance-1"),
}


class TestErrors:
    """Every kind of error, met by every method, becomes the same one of ours."""

    @pytest.mark.parametrize("kind", ANSWERS)
    @pytest.mark.parametrize("method", READS)
    def test_reads(self, fake, session, method, kind):
        fake.state.add_instance(PROJECT, "instance-1")
        fake.faults.fail(0, kind)
        with pytest.raises(exception.LXDDriverError) as caught:
            READS[method](session)
        assert type(caught.value) is ANSWERS[kind]
        assert "/1.0" in str(caught.value)
        if kind is not Fault.RESTART:
            fake.faults.clear()
            READS[method](session)

    @pytest.mark.parametrize(
        "kind", [kind for kind in ANSWERS if kind is not Fault.OPERATION_FAILURE]
    )
    @pytest.mark.parametrize("method", WRITES)
    def test_writes(self, fake, session, method, kind):
        fake.faults.fail(0, kind, times=2)
        # An image that is there already was uploaded; what has no answer needs no reading.
        if (method, kind) in {
            ("upload_image", Fault.HTTP_409),
            ("create_profile", Fault.BROKEN_JSON),
        }:
            WRITES[method](session)
            return
        with pytest.raises(exception.LXDDriverError) as caught:
            WRITES[method](session)
        expected = ANSWERS[kind]
        # What is refused anyway is refused after a broken answer as well.
        assert type(caught.value) is expected or kind in (Fault.BROKEN_JSON, Fault.DROPPED_AFTER)

    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("anything", exception.LXDError),
            ('Instance is busy running a "start" operation', exception.Busy),
            ('This "instances" entry already exists', exception.AlreadyExists),
            ('Name "x" already in use', exception.AlreadyExists),
            # A pool or a device may be meant: absence is told by status 404 alone.
            ("Instance not found", exception.LXDError),
        ],
    )
    def test_failed_operations_are_told_apart_by_their_text(self, fake, session, image, text, kind):
        session.create_profile("instance-1", {}, ROOT)
        fake.faults.fail(lambda method, path: method == "POST", Fault.OPERATION_FAILURE, text=text)
        with pytest.raises(exception.LXDError, match=text) as caught:
            session.create_instance(spec(image))
        assert type(caught.value) is kind
        assert not fake.state.instances


class TestReaching:
    @pytest.fixture
    def nobody(self, fake):
        """Be a user who may not use the socket; root has to become one."""
        fake.socket.chmod(0)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(me)

    def connect(self, path):
        return Session(str(path), PROJECT, Timeouts(1, 1, 1)).server()

    def test_no_socket(self, tmp_path):
        path = tmp_path / "absent.socket"
        with pytest.raises(exception.LXDUnreachable, match=str(path)) as caught:
            self.connect(path)
        assert type(caught.value) is exception.LXDUnreachable

    def test_nobody_listens(self, fake):
        fake.stop()
        assert fake.socket.exists()
        with pytest.raises(exception.LXDUnreachable) as caught:
            self.connect(fake.socket)
        assert type(caught.value) is exception.LXDUnreachable

    def test_closed_to_this_user(self, fake, nobody):
        with pytest.raises(exception.LXDPermissionDenied, match=str(fake.socket)):
            self.connect(fake.socket)

    def test_a_session_made_before_lxd_is_up(self, fake):
        session = Session(str(fake.socket), "default", Timeouts(5, 5, 5))
        fake.stop()
        with pytest.raises(exception.LXDUnreachable):
            session.states()
        fake.start()
        assert session.states() == []

    def test_a_session_survives_a_restart_of_lxd(self, fake, session):
        session.states()
        fake.stop()
        with pytest.raises(exception.LXDUnreachable):
            session.states()
        fake.start()
        assert session.states() == []


class Pinging:
    """A websocket, made up, on which nothing comes but pings, as LXD's with nothing to tell."""

    def settimeout(self, seconds):
        pass

    def recv_data_frame(self, control_frame=False):
        time.sleep(0.01)
        assert control_frame, "it would never return"
        return websocket.ABNF.OPCODE_PING, None


class TestDeadlines:
    def test_pings_are_no_events(self):
        assert EventStream(Pinging()).next(0.1) is None

    def test_an_operation_that_never_ends(self, fake, session, image):
        build(session, image)
        fake.faults.fail(lambda method, path: path.endswith("/state"), Fault.NEVER_ENDS)
        began = time.monotonic()
        with pytest.raises(exception.DeadlineExceeded) as caught:
            session.change_state("instance-1", "start")
        assert OPERATION - 0.1 <= time.monotonic() - began < OPERATION * 5
        for part in ("PUT /1.0/instances/instance-1/state", f"{OPERATION:g} s", "operation"):
            assert part in str(caught.value)

    def test_a_request_that_is_never_answered(self, fake):
        session = Session(str(fake.socket), "default", Timeouts(0.5, 5, 5))
        session.server()
        fake.faults.fail(lambda method, path: path == "/1.0/instances", Fault.NEVER_ENDS)
        began = time.monotonic()
        with pytest.raises(exception.DeadlineExceeded, match="request_timeout"):
            session.states()
        assert time.monotonic() - began < 5

    def test_a_late_answer_is_no_error(self, fake, session):
        fake.faults.fail(0, Fault.SLOW, seconds=0.3)
        assert session.states() == []

    def test_an_operation_longer_than_one_poll(self, fake, session, image, monkeypatch):
        monkeypatch.setattr("nova_lxd.virt.session.transport._WAIT_STEP", 0.2)
        build(session, image)
        fake.state.seconds["start"] = 1.2
        session.timeouts = Timeouts(5, 10, 10)
        fake.faults.forget_calls()
        session.change_state("instance-1", "start")
        waits = [call for call in fake.calls if call.path.endswith("/wait")]
        assert len(waits) >= 2
        assert session.state("instance-1").status == "Running"

    def test_an_operation_that_lxd_forgot_is_not_the_absence_of_the_instance(
        self, fake, session, image
    ):
        build(session, image)
        fake.faults.fail(lambda method, path: path.endswith("/wait"), Fault.HTTP_404)
        with pytest.raises(exception.LXDError) as caught:
            session.delete_instance("instance-1")
        assert not isinstance(caught.value, exception.NotFound)

    def test_lxd_dies_while_an_operation_is_awaited(self, fake, session, image):
        build(session, image)
        fake.faults.fail(lambda method, path: path.endswith("/wait"), Fault.DOWN)
        with pytest.raises(exception.LXDUnreachable):
            session.change_state("instance-1", "start")


class TestManyThreads:
    def test_one_session_serves_many(self, fake, session, image):
        def life(number):
            name = f"instance-{number}"
            build(session, image, name, start=True, base=165536 + number * 65536)
            assert session.state(name).status == "Running"
            session.change_state(name, "stop", force=True)
            session.delete_instance(name)
            session.delete_profile(name)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(life, range(32)))
        assert not fake.state.instances
        assert session.unused_profiles() == ["default"]

    def test_simultaneous_uploads_of_one_image(self, fake, session):
        with ThreadPoolExecutor(6) as pool:
            found = set(pool.map(lambda _: upload(session), range(6)))
        assert set(fake.state.projects[PROJECT].images) == found


class TestPlainness:
    def test_names_are_quoted(self, fake, session):
        with pytest.raises(exception.NotFound):
            session.state("../../1.0/projects?x=#")
        (call,) = [call for call in fake.calls if call.method == "GET"]
        assert call.path == "/1.0/instances/..%2F..%2F1.0%2Fprojects%3Fx%3D%23"

    def test_bulk_reads_are_one_request(self, fake, session, image):
        for number in range(5):
            build(session, image, f"instance-{number}", base=165536 + number * 65536)
        fake.faults.forget_calls()
        assert len(session.states()) == 5
        assert fake.calls == [Call("GET", "/1.0/instances")]

    def test_what_a_strange_server_answers(self, fake, session, monkeypatch):
        from tests.fake_lxd import routes
        from tests.fake_lxd.answers import Answer

        for body in (b"[]", b'"x"', json.dumps({"type": "sync"}).encode()):
            monkeypatch.setattr(routes, "_dispatch", lambda *_, body=body: Answer(200, body))
            with pytest.raises(exception.LXDDriverError):
                session.states()
