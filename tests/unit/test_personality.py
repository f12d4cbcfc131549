"""Injected files: where they go, and what is refused."""

from __future__ import annotations

import contextlib

import pytest
from nova import exception as nova_exception

from nova_lxd import exception
from nova_lxd.virt import personality

from .compute_host import PROJECT, Host


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/",
        "/etc/../x",
        "/..",
        "/./x",
        "/etc/x\n",
        "/etc/\0",
        "/a\rb",
        "x/../y",
    ],
)
def test_paths_that_are_refused(path):
    with pytest.raises(exception.Refused, match="a path to a file"):
        personality.check([("/fine", b""), (path, b"")])


def test_paths_that_are_not():
    personality.check(
        [("/x", b""), ("/etc/ssh/a b.c", b""), ("//etc//..x", b""), ("x", b""), ("/…/ä", b"")]
    )


@pytest.mark.usefixtures("options")
class TestSpawn:
    @pytest.fixture
    def host(self, tmp_path, ports):
        with contextlib.closing(Host(tmp_path / "lxd", ports)) as host:
            yield host

    def spawn(self, host, files):
        order = host.order
        host.driver.spawn(
            order.context, order.instance, order.image_meta, files, "", {}, order.network_info
        )

    def test_they_are_there_before_the_start(self, host):
        self.spawn(host, [("/etc/app/a.conf", b"a"), ("//b", b"\0b")])
        instance = host.lxd.state.projects[PROJECT].instances[host.order.name]
        files = {path: content for path, content in instance.files.items() if content is not None}
        assert files == {"/etc/app/a.conf": b"a", "/b": b"\0b"}
        calls = [(call.method, call.path.rsplit("/", 1)[-1]) for call in host.lxd.calls]
        assert max(i for i, call in enumerate(calls) if call == ("POST", "files")) < calls.index(
            ("PUT", "state")
        )

    def test_a_file_that_has_no_place_leaves_nothing(self, host):
        with pytest.raises(nova_exception.InvalidInput, match="/a/b"):
            self.spawn(host, [("/a", b""), ("/a/b", b"")])
        assert host.remains() == []

    def test_a_path_that_is_refused_costs_nothing(self, host):
        with pytest.raises(nova_exception.InvalidInput, match="a path to a file"):
            self.spawn(host, [("/etc/../x", b"")])
        assert [call for call in host.lxd.calls if host.order.name in call.path] == []
