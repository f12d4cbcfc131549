"""The busybox image, built from stand-ins for the Debian programs."""

from __future__ import annotations

import posixpath
import shutil
import subprocess
import tarfile

import pytest

from aio.errors import AioError
from aio.images import busybox
from tests.unit.aio_images.fakes import install

APPLETS = ("bin/busybox", "bin/sh", "sbin/init", "usr/bin/awk", "linuxrc")


def stand_ins(folder):
    """Make a folder with a static busybox and dynamic dropbear programs."""
    folder.mkdir()
    install(folder, "busybox", f"printf '%s\\n' {' '.join(APPLETS)}")
    for name in ("dropbear", "dropbearkey", "dbclient"):
        shutil.copy2("/bin/cat", folder / name)
    return folder


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The stand-ins instead of the system's programs."""
    folder = stand_ins(tmp_path / "programs")
    monkeypatch.setattr(busybox, "SEARCH_PATH", str(folder))
    return folder


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """What is in the image, by name."""
    folder = tmp_path_factory.mktemp("image")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(busybox, "SEARCH_PATH", str(stand_ins(folder / "programs")))
        with tarfile.open(busybox.build_busybox(folder / "image.tar.gz")) as tar:
            return {member.name: member for member in tar}


def test_same_inputs_give_the_same_bytes(programs, tmp_path):
    one = busybox.build_busybox(tmp_path / "one" / "image.tar.gz")
    other = busybox.build_busybox(tmp_path / "other.tar.gz")
    assert one.read_bytes() == other.read_bytes()


def test_no_half_file_stays(programs, tmp_path):
    busybox.build_busybox(tmp_path / "image.tar.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar.gz", "programs"]


def test_holds_a_root_filesystem_and_nothing_for_lxd(members):
    assert {"sbin/init", "etc", "proc", "sys", "dev", "tmp", "root"} <= set(members)
    assert "metadata.yaml" not in members
    assert not any(name.startswith(("rootfs", "templates")) for name in members)


def test_only_files_folders_and_links(members):
    assert all(member.isfile() or member.isdir() or member.issym() for member in members.values())


def test_names_are_sorted_and_each_has_its_folder_before(members):
    names = list(members)
    assert names == sorted(names)
    for name in names:
        parent = posixpath.dirname(name)
        assert not parent or names.index(parent) < names.index(name)


def test_links_lead_to_what_is_in_the_image(members):
    links = [member for member in members.values() if member.issym()]
    assert links
    for link in links:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(link.name), link.linkname))
        assert not link.linkname.startswith("/")
        assert not members[target].issym()


def test_our_scripts_win_over_applets(members):
    assert members["sbin/init"].isfile()
    assert members["sbin/init"].mode == 0o755
    assert members["bin/sh"].issym()


def test_libraries_of_the_programs_come_along(members):
    needed = subprocess.run(["ldd", "/bin/cat"], capture_output=True, text=True, check=True).stdout
    libc = next(line.split()[2] for line in needed.splitlines() if "libc.so" in line)
    assert members[libc.lstrip("/")].size > 0


def test_private_things_are_private(members):
    assert members["etc/shadow"].mode == 0o600
    assert members["root"].mode == 0o700
    assert members["tmp"].mode == 0o1777
    assert members["home/cloud"].uid == 1000


@pytest.mark.parametrize(
    ("program", "package"),
    [("busybox", "busybox-static"), ("dropbear", "dropbear-bin"), ("dbclient", "dropbear-bin")],
)
def test_missing_program_names_its_package(programs, tmp_path, program, package):
    (programs / program).unlink()
    with pytest.raises(AioError, match=f"apt-get install {package}"):
        busybox.build_busybox(tmp_path / "image.tar.gz")
    assert not (tmp_path / "image.tar.gz").exists()


def test_dynamic_busybox_is_refused(programs, tmp_path):
    shutil.copy2("/bin/cat", programs / "busybox")
    with pytest.raises(AioError, match="busybox-static"):
        busybox.build_busybox(tmp_path / "image.tar.gz")


@pytest.mark.parametrize(
    "script",
    sorted(
        str(path.relative_to(busybox.SKELETON))
        for path in busybox.SKELETON.rglob("*")
        if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh")
    ),
)
def test_scripts_are_executable_and_parse(script):
    path = busybox.SKELETON / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(path)], check=True)
