"""A unified image becomes the archive of a root file system, and nothing else of it changes."""

from __future__ import annotations

import io
import itertools
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_lxd.virt import archive, repack, rootfs
from tests.unit.archives import (
    COMPRESS,
    entry,
    folder,
    hardlink,
    header,
    pax,
    record,
    symlink,
    system,
    tar,
    unified,
)
from tests.unit.values import IMAGE_ID

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
_COMPARED = ("name", "mode", "uid", "gid", "size", "mtime", "type", "linkname", "uname", "gname")


def contents(data: bytes) -> list[tuple]:
    """Read an archive with Python's reader, which shares nothing with ours."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [_content(archive, member) for member in archive]


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple:
    fields = {key: getattr(member, key) for key in _COMPARED}
    extended = {k: v for k, v in member.pax_headers.items() if k not in ("path", "linkpath")}
    file = archive.extractfile(member) if member.isreg() else None
    return fields, extended, file.read() if file else b""


def root_of(data: bytes, form: str = "tar") -> bytes:
    pieces = (repack.pieces(entry) for entry in archive.entries(io.BytesIO(data), form))
    return b"".join([*itertools.chain.from_iterable(pieces), repack.END])


def tree(long: str = "") -> list:
    """A root file system with one of everything; ``long`` makes names that need extensions."""
    name = f"usr/{long}file"
    return [
        *system(),
        folder("./usr"),
        entry(name, content=b"x" * 700, mode=0o4755, uid=1000, gid=8, mtime=1234567890.0),
        hardlink("usr/link", name),
        symlink("usr/sym", f"/{long}nowhere"),
        symlink("usr/rootfs", "rootfs/x"),
        entry("usr/fifo", tarfile.FIFOTYPE),
        entry("usr/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        folder("usr/rootfs2"),
        entry("usr/empty"),
    ]


def expected(entries: list, form: int) -> list[tuple]:
    for info, _ in entries:
        info.name = info.name.removeprefix("./")
    return contents(tar(entries, form))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("at", ["rootfs", "./rootfs"])
@pytest.mark.parametrize("long", ["", "d/" * 55, "d/" * 90])
def test_the_root_comes_out_as_it_went_in(form, at, long):
    if form == tarfile.USTAR_FORMAT and long:
        return
    assert contents(root_of(tar(unified(tree(long), at=at), form))) == expected(tree(long), form)


@pytest.mark.parametrize("length", range(85, 110))
def test_names_around_the_length_of_a_header(length):
    for form in FORMATS:
        name = f"usr/{'p' * 20}/{'n' * (length - 25)}"
        entries = [folder("usr"), entry(name, content=b"x")]
        assert contents(root_of(tar(unified(entries), form)))[1][0]["name"] == name


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed(compression):
    data = COMPRESS[compression](tar(unified(tree())))
    assert contents(root_of(data, compression)) == expected(tree(), tarfile.PAX_FORMAT)


def test_extended_attributes_stay():
    capability = "SCHILY.xattr.security.capability"
    entries = tree()
    entries[4][0].pax_headers = {capability: "\1\udc80\2 a=b\n", "mtime": "1.5"}
    ((_, extended, _),) = [
        found
        for found in contents(root_of(tar(unified(entries))))
        if found[0]["name"] == "usr/file"
    ]
    assert extended[capability] == "\1\udc80\2 a=b\n"


def test_a_prefix_is_cut():
    block = header(name="n" * 60, spoil={345: b"./rootfs/" + b"p" * 50})
    start = tar([entry("metadata.yaml"), folder("rootfs")])[: 2 * 512]
    (_, first), (_, second) = (
        (None, item[0]["name"]) for item in contents(root_of(start + block + bytes(1024)))
    )
    assert (first, second) == (".", "p" * 50 + "/" + "n" * 60)


def test_old_sparse_files_keep_their_map():
    real = b"%011o\0" % 4096
    more = bytes(504) + b"\0" * 8
    block = header(name="rootfs/x", kind=b"S", size=512, spoil={482: b"\1", 483: real})
    root = root_of(block + more + b"d" * 512 + bytes(1024))
    assert root[512:1536] == more + b"d" * 512
    assert root[:2] == b"x\0"


def test_new_sparse_files_keep_their_name():
    names = record("GNU.sparse.major", "1") + record("GNU.sparse.name", "rootfs/real")
    names += record("path", "rootfs/GNUSparseFile.1/real")
    root = root_of(pax(names) + header(name="rootfs/GNUSparseFile.1/real") + bytes(1024))
    assert b"GNU.sparse.name=real\n" in root
    assert b"path=GNUSparseFile.1/real\n" in root
    assert b"rootfs" not in root[512:1024]


@given(st.lists(st.text("abcé/. ", min_size=1, max_size=120), max_size=4), st.sampled_from(FORMATS))
def test_any_names(names, form):
    names = {b"/".join(repack.parts(name.encode())).decode() for name in names} - {""}
    names = sorted(n for n in names if ".." not in n.split("/") and len(n) < 80)
    names = [n for n in names if not any(other.startswith(f"{n}/") for other in names)]
    data = tar(unified([*system(), *(entry(f"home/{name}") for name in names)]), form)
    root = b"".join(rootfs.Screening(io.BytesIO(data), "tar", IMAGE_ID, 0))
    found = [fields["name"] for fields, _, _ in contents(root)]
    assert found == [".", "sbin", "sbin/init", *(f"home/{name}" for name in names)]
