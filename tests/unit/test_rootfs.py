"""What may become a root file system, told from a stream."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import random
import resource
import tarfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova_lxd.exception import DiskTooSmall, ImageRefused
from nova_lxd.virt import archive, rootfs
from nova_lxd.virt import compression as compression_module
from tests.unit.archives import (
    COMPRESS,
    device,
    entry,
    folder,
    hardlink,
    header,
    pax,
    record,
    seal,
    symlink,
    system,
    tar,
    unified,
    zstd,
)
from tests.unit.values import IMAGE_ID

MIB = 1024**2
GIB = 1024**3
END = bytes(1024)
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def inspect(data: bytes, limit: int = 0) -> rootfs.RootfsFacts:
    return rootfs.inspect(io.BytesIO(data), IMAGE_ID, limit)


def screened(data: bytes, form: str) -> bytes:
    """Return what LXD is given of an image."""
    return b"".join(rootfs.Screening(io.BytesIO(data), form, IMAGE_ID, 0))


def refusal(data: bytes, limit: int = 0) -> str:
    with pytest.raises(ImageRefused) as caught:
        inspect(data, limit)
    return caught.value.reason


def raw(*blocks: bytes) -> bytes:
    """A system with raw blocks before its end mark."""
    return tar(system()).rstrip(b"\0").ljust(4 * 512, b"\0") + b"".join(blocks) + END


class Dripping(io.RawIOBase):
    """A stream that hands out a few bytes at a time, as a network does."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1000))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("compression", COMPRESS)
def test_system_is_accepted(form, compression):
    data = COMPRESS[compression](tar(system(), form))
    facts = rootfs.RootfsFacts(unpacked_bytes=3 * 4096, entries=3, form=compression)
    assert inspect(data) == facts
    assert rootfs.inspect(Dripping(data), IMAGE_ID, 0) == facts
    assert screened(data, compression) == data


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("size", [65535, 65536, 131072, 200_000, 3_000_000])
def test_of_any_size(compression, size):
    noise = random.Random(size).randbytes(size // 2) + bytes(size // 2)
    data = COMPRESS[compression](tar([*system(), entry("noise", content=noise)]))
    assert inspect(data).entries == 4
    assert screened(data, compression) == data


def test_whole_stream_is_read():
    stream = io.BytesIO(tar(system()) + bytes(100 * 512))
    rootfs.inspect(stream, IMAGE_ID, 0)
    assert stream.read() == b""


def test_compressed_streams_in_a_row_are_one():
    # So write pigz and pbzip2.
    data = tar(system())
    for compress in (gzip.compress, COMPRESS["tar.bz2"], lzma.compress, COMPRESS["tar.zst"]):
        assert inspect(compress(data[:700]) + compress(data[700:])).entries == 3


@pytest.mark.parametrize("form", FORMATS[1:])
def test_long_names(form):
    deep = "d/" * 60 + "n" * 200
    entries = [*system(), entry(deep), symlink("l", deep), hardlink("h", deep)]
    assert inspect(tar(entries, form)).entries == 6
    assert "out of the archive" in refusal(tar([*system(), entry(deep + "/../x")], form))


def test_sizes_are_counted_as_they_will_be_on_disk():
    entries = [*system(), entry("a", content=bytes(4097)), hardlink("b", "a"), symlink("c", "a")]
    assert inspect(tar(entries)).unpacked_bytes == (3 + 2) * 4096


@pytest.mark.parametrize(
    "entries",
    [
        [folder("sbin"), symlink("sbin/init", "/lib/systemd/systemd")],
        [symlink("sbin", "usr/sbin"), folder("usr/sbin"), symlink("usr/sbin/init", "../lib/x")],
        [entry("usr/sbin/init"), symlink("sbin", "/usr/sbin")],
        [symlink("sbin", "usr/sbin"), symlink("usr/sbin", "bin"), entry("usr/bin/init")],
        [entry("busybox"), hardlink("sbin/init", "busybox")],
    ],
)
def test_init_is_found(entries):
    inspect(tar(entries))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry("init")],
        [entry("etc/init"), entry("bin/init"), entry("usr/sbin/init")],
        [folder("sbin/init")],
        [symlink("sbin", "sbin")],
        [symlink("sbin", "usr/sbin"), symlink("usr/sbin", "../sbin")],
        [entry("manifest.json"), entry("layer/layer.tar")],
    ],
)
def test_nothing_to_start(entries):
    assert "/sbin/init" in refusal(tar([folder("."), *entries]))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([entry("../etc/shadow")], "out of the archive"),
        ([entry("a/../../b")], "out of the archive"),
        ([entry("/etc/passwd")], "out of the archive"),
        ([hardlink("x", "/etc/shadow")], "out of the archive"),
        ([hardlink("x", "../../etc/shadow")], "out of the archive"),
        ([hardlink("x", "etc/shadow")], "no file that is in it"),
        ([hardlink("x", "later"), entry("later")], "no file that is in it"),
        ([hardlink("x", "sbin")], "no file that is in it"),
        ([hardlink("x", "x")], "no file that is in it"),
        ([symlink("a", "/etc"), entry("a/passwd")], "goes through the symbolic link"),
        ([symlink("a", "../.."), folder("a/b"), entry("a/b/c")], "goes through the symbolic link"),
        ([symlink("a", "sbin"), entry("a/x")], "goes through the symbolic link"),
        ([symlink("a", "/"), hardlink("b", "a"), entry("b/c")], "goes through the symbolic link"),
        ([entry("a"), entry("a/b")], "goes through the file"),
        ([symlink(".", "/etc")], "there twice"),
        ([folder("a"), symlink("a", "/etc")], "there twice"),
        ([entry("a/b"), symlink("a", "/etc")], "there twice"),
        ([symlink("a", "/etc"), folder("a")], "there twice"),
        ([entry("a"), entry("./a")], "there twice"),
        ([symlink("a", "b"), symlink("a", "/etc")], "there twice"),
        ([device("dev/sda", tarfile.BLKTYPE, 8, 0)], "block device 8:0"),
        ([device("dev/mem", tarfile.CHRTYPE, 1, 1)], "character device 1:1"),
        ([device("dev/null", tarfile.CHRTYPE, 1, 1)], "character device 1:1"),
        ([device("dev/null", tarfile.BLKTYPE, 1, 3)], "block device 1:3"),
        ([device("tmp/null", tarfile.CHRTYPE, 1, 3)], "character device 1:3"),
        ([device("tmp/x", tarfile.BLKTYPE, 0, 0)], "block device 0:0"),
        ([entry("metadata.yaml"), folder("rootfs"), entry("rootfs/x")], "mixes"),
        ([entry("rootfs/sbin/init"), entry("metadata.yaml")], "mixes"),
        ([entry("x" * 256)], "too long a name"),
        ([entry("x/" * 2100)], "too long a name"),
    ],
)
@pytest.mark.parametrize("form", FORMATS[1:])
def test_evil_entries(entries, reason, form):
    assert reason in refusal(tar([*system(), *entries], form))


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("at", ["rootfs", "./rootfs"])
def test_unified_image(compression, at):
    data = COMPRESS[compression](tar(unified(system(), at=at)))
    facts = inspect(data)
    assert facts == rootfs.RootfsFacts(3 * 4096, 6, compression, unified=True)
    root = screened(data, compression)
    assert inspect(root) == rootfs.RootfsFacts(3 * 4096, 3, "tar")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([entry("etc/passwd")], "mixes"),
        ([entry("backup.yaml")], "mixes"),
        ([folder("rootfs2")], "mixes"),
        ([symlink("rootfs", "/etc")], "there twice"),
        ([entry("rootfs")], "there twice"),
        ([entry("rootfs/../x")], "out of the archive"),
        ([hardlink("rootfs/x", "metadata.yaml")], "no file that is in it"),
        ([hardlink("rootfs/x", "sbin/init")], "no file that is in it"),
        ([hardlink("rootfs/x", "templates/hostname.tpl")], "no file that is in it"),
        ([symlink("rootfs/a", "/etc"), entry("rootfs/a/b")], "goes through"),
        ([device("rootfs/dev/sda", tarfile.BLKTYPE, 8, 0)], "block device"),
        ([entry("rootfs/metadata.yaml"), folder("rootfs/rootfs")], "mixes"),
    ],
)
def test_evil_entries_of_a_unified_image(entries, reason):
    assert reason in refusal(tar([*unified(system()), *entries]))


def test_only_what_is_below_rootfs_is_started():
    beside = [entry("metadata.yaml"), folder("rootfs"), entry("templates/sbin/init")]
    assert "/sbin/init" in refusal(tar(beside))


def test_harmless_entries():
    nodes = [device(path.decode(), tarfile.CHRTYPE, *n) for path, n in rootfs._DEVICES.items()]
    nodes.append(device("var/lib/containers/storage/gone", tarfile.CHRTYPE, 0, 0))
    entries = [
        *nodes,
        entry("run/initctl", tarfile.FIFOTYPE),
        symlink("etc/localtime", "/usr/share/zoneinfo/UTC"),
        symlink("dangling", "../../.."),
        folder("sbin"),
        entry("metadata.yaml"),
        entry("odd\nname \udcff"),
        entry("..."),
        entry("a..b/..c"),
    ]
    assert inspect(tar([*system(), *entries])).entries == 3 + len(entries)


@pytest.mark.parametrize("compression", COMPRESS)
def test_truncated_anywhere(compression):
    entries = [*system(), entry("noise", content=random.Random(1).randbytes(3000))]
    plain = tar(entries)
    data = COMPRESS[compression](plain)
    end = len(plain.rstrip(b"\0")) if compression == "tar" else len(data)
    for length in [*range(0, end, 97), end - 1]:
        refusal(data[:length])


@settings(max_examples=300)
@given(st.data())
def test_damaged_anywhere_is_refused_or_harmless(data):
    packed = bytearray(tar([*system(), entry("x", content=b"y" * 600)]))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageRefused, DiskTooSmall):
        assert inspect(bytes(packed), GIB).unpacked_bytes <= GIB


@settings(max_examples=300)
@given(st.binary(max_size=4096), st.sampled_from(sorted(COMPRESS)))
def test_any_bytes_get_an_answer(noise, compression):
    for data in (noise, COMPRESS[compression](noise), COMPRESS[compression](raw(noise))):
        with contextlib.suppress(ImageRefused, DiskTooSmall):
            assert inspect(data, GIB).unpacked_bytes <= GIB


PACKED = [form for form in COMPRESS if form != "tar"]


@pytest.mark.parametrize("compression", [form for form in PACKED if form != "tar.zst"])
def test_flipped_bit_in_compressed_data(compression):
    data = bytearray(COMPRESS[compression](tar([*system(), entry("x", content=b"data" * 999)])))
    data[len(data) // 2] ^= 0x10
    assert "corrupt" in refusal(bytes(data)) or "truncated" in refusal(bytes(data))


@pytest.mark.parametrize("compression", PACKED)
def test_garbage_behind_compressed_data(compression):
    assert "corrupt" in refusal(COMPRESS[compression](tar(system())) + b"garbage" * 9)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tar(system()) + tar([entry("../x")]), "follows its end mark"),
        (tar(system()) + bytes(2 * archive.MAX_PADDING), "follows its end mark"),
        (raw(header(kind=b"Z")), "unknown type"),
        (raw(header(kind=b"V")), "unknown type"),
        (raw(header(kind=tarfile.SYMTYPE, size=512), bytes(512)), "with content"),
        (raw(header(kind=tarfile.DIRTYPE, size=512), bytes(512)), "with content"),
        (raw(header(name="x/", size=512), bytes(512)), "with content"),
        (raw(header(spoil={0: b"\0"})), "without a proper name"),
        (raw(header(spoil={124: b"1_0"})), "malformed number"),
        (raw(header(spoil={124: b"-1 \0"})), "malformed number"),
        (raw(header(spoil={124: b"\xff" * 12})), "malformed number"),
        (raw(header(spoil={257: bytes(8)})), "not a POSIX or GNU tar"),
        (raw(header()[:-1] + b"x"), "checksum"),
        (raw(pax(record("path", "a")), pax(record("path", "b")), header()), "several extended"),
        (raw(pax(record("path", "a") + record("path", "b")), header()), "ambiguous"),
        (raw(pax(b"8 path=\n"), header()), "ambiguous"),
        (raw(pax(record("path", "a\0b")), header()), "without a proper name"),
        (raw(pax(record("size", "1e3")), header()), "malformed number"),
        (raw(pax(b"99 path=x\n"), header()), "extended header is malformed"),
        (raw(pax(b"0 path=x\n"), header()), "extended header is malformed"),
        (raw(pax(record("path", "x"), b"g"), header()), "many entries"),
        (raw(pax(record("path", "x"), b"g"), pax(record("path", "x")), header()), "many entries"),
        (raw(pax(record("path", "a"))), "corrupt"),
        (raw(header(kind=b"x", size=2 * archive.MAX_EXTENSION)), "headers are too large"),
        (raw(header(kind=b"L", size=2**32)), "headers are too large"),
    ],
)
def test_what_two_readers_could_read_differently(data, reason):
    assert reason in refusal(data)


def test_global_header_of_git_archive_is_harmless():
    assert inspect(pax(record("comment", "0" * 40), b"g") + tar(system())).entries == 3


def test_pax_size_overrides_the_header():
    data = raw(pax(record("size", "1024")), header(name="x"), bytes(1024))
    assert inspect(data).unpacked_bytes == 3 * 4096 + 4096
    refusal(raw(pax(record("size", "1024")), header(name="x"), b"x" * 512))


def test_gnu_sparse_file_counts_with_its_holes():
    real = b"%011o\0" % (5 * GIB)
    extended = header(name="x", kind=b"S", size=512, spoil={482: b"\1", 483: real})
    data = raw(extended, bytes(504) + b"\0" * 8, b"d" * 512)
    assert inspect(data).unpacked_bytes == 3 * 4096 + 5 * GIB
    with pytest.raises(DiskTooSmall):
        inspect(data, GIB)


def test_pax_sparse_file_counts_with_its_holes_under_its_real_name():
    names = record("GNU.sparse.name", "real") + record("path", "./GNUSparseFile.1/real")
    records = record("GNU.sparse.major", "1") + names
    data = raw(
        pax(records + record("GNU.sparse.realsize", str(GIB))), header(), header(name="real")
    )
    assert "'real' is there twice" in refusal(data)


def test_more_than_the_root_disk_stops_at_once():
    huge = header(name="huge", spoil={124: b"\x80" + (100 * GIB).to_bytes(11, "big")})
    with pytest.raises(DiskTooSmall) as caught:
        inspect(tar(system())[: 4 * 512] + huge, GIB)
    assert caught.value.flavor_bytes == GIB
    assert caught.value.image_bytes > 100 * GIB


def test_exactly_the_root_disk_is_enough():
    size = inspect(tar(system())).unpacked_bytes
    assert inspect(tar(system()), size).unpacked_bytes == size
    with pytest.raises(DiskTooSmall):
        inspect(tar(system()), size - 1)


def zeros(compress, mebibytes: int) -> bytes:
    """A compressed archive with one file of zeros."""
    start = bytearray(tar([*system(), entry("zeros")])[: 5 * 512])
    block = start[4 * 512 :]
    block[124:136] = b"%011o\0" % (mebibytes * MIB)
    start[4 * 512 :] = seal(block)
    return compress(bytes(start)) + compress(bytes(MIB)) * mebibytes + compress(END)


@pytest.mark.parametrize("compression", PACKED)
def test_bomb_is_stopped_early(monkeypatch, compression):
    bomb = zeros(COMPRESS[compression], 200)
    assert inspect(bomb).unpacked_bytes > 200 * MIB
    # The same arithmetic on less than what is free keeps the test short.
    monkeypatch.setattr(compression_module, "RATIO_FREE", 10 * MIB)
    monkeypatch.setattr(compression_module, "MAX_RATIO", 50)
    assert "50 times its size" in refusal(bomb)


def test_unlimited_flavor_still_has_a_limit():
    huge = header(name="huge", spoil={124: b"\x80" + (2**60).to_bytes(11, "big")})
    assert "use a smaller image" in refusal(tar(system())[: 4 * 512] + huge)


def test_xz_cannot_ask_for_memory():
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 * 1024**2}]
    assert "corrupt" in refusal(lzma.compress(tar(system()), filters=filters))


def test_zstd_cannot_ask_for_memory():
    options = {zstd.CompressionParameter.window_log: 28}
    packed = zstd.ZstdCompressor(options=options).compress(tar(system()) * 9999)
    assert "corrupt" in refusal(packed)


def test_holes_of_one_file_are_bounded():
    more = bytes(504) + b"\1" + bytes(7)
    endless = header(name="x", kind=b"S", spoil={482: b"\1"}) + more * 4000
    assert "too many holes" in refusal(raw(endless))


def test_number_of_entries_is_bounded(monkeypatch):
    monkeypatch.setattr(rootfs, "MAX_ENTRIES", 100)
    assert inspect(tar([*system(), *(entry(f"{n}") for n in range(97))])).entries == 100
    assert "entries" in refusal(tar([*system(), *(entry(f"{n}") for n in range(98))]))


def test_memory_for_names_is_bounded(monkeypatch):
    monkeypatch.setattr(rootfs, "MAX_NAMES", 100_000)
    assert "names" in refusal(tar([*system(), entry("d/" * 1000 + "x")]))


def test_extended_headers_together_are_bounded(monkeypatch):
    monkeypatch.setattr(archive, "MAX_EXTENSIONS", 10 * 1024)
    blocks = [pax(record("comment", "x" * 900)) + header(name=f"{n}") for n in range(11)]
    assert inspect(raw(*blocks[:10])).entries == 13
    assert "headers are too large" in refusal(raw(*blocks))


def test_ordinary_image_takes_seconds_and_little_memory():
    content = random.Random(1).randbytes(4096) * 4
    data = tar([*system(), *(entry(f"d{n % 99}/{n}", content=content) for n in range(4000))])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    assert inspect(data).entries == 4003
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_a_network_error_is_not_the_images_fault():
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        rootfs.inspect(Broken(), IMAGE_ID, 0)
