"""How the Debian image is asked for, and what happens when it cannot be had."""

from __future__ import annotations

import pytest

from aio.errors import AioError
from aio.images import debian
from tests.unit.aio_images.fakes import install


@pytest.fixture
def mmdebstrap(tmp_path, monkeypatch):
    """Let a script stand in for mmdebstrap; call with its text."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return lambda script: install(folder, "mmdebstrap", script)


def test_success_leaves_one_file(mmdebstrap, tmp_path):
    mmdebstrap('for word; do case $word in *.tar.gz) echo content > "$word";; esac; done')
    image = debian.build_debian(tmp_path / "images" / "debian.tar.gz", tmp_path / "log")
    assert image.read_text() == "content\n"
    assert [path.name for path in image.parent.iterdir()] == ["debian.tar.gz"]


def test_failure_shows_the_log_and_leaves_nothing(mmdebstrap, tmp_path):
    mmdebstrap("echo E: no such mirror >&2; exit 25")
    with pytest.raises(AioError, match="status 25") as failed:
        debian.build_debian(tmp_path / "images" / "debian.tar.gz", tmp_path / "log")
    assert "no such mirror" in failed.value.log
    assert list((tmp_path / "images").iterdir()) == []


def test_missing_builder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AioError, match="mmdebstrap"):
        debian.build_debian(tmp_path / "images" / "debian.tar.gz", tmp_path / "log")


def test_command_leaves_out_what_belongs_to_the_builder():
    words = debian.command("target.tar.gz")
    text = "\n".join(words)
    assert "--skip=output/dev" in words
    for name in ("etc/hostname", "etc/resolv.conf", "etc/ssh/ssh_host_*", "etc/machine-id"):
        assert name in text
    assert "systemd-binfmt.service" in text
    assert "cloud-init" in text
    assert "openssh-server" in text
