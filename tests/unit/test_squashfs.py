"""A squashfs image becomes an archive of the same tree, or is refused."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import tracemalloc

import pytest

from nova_lxd.virt import archive, squashblocks, squashfs, squashinodes, tarheader
from nova_lxd.virt.archive import Kind
from nova_lxd.virt.compression import Damaged
from tests.unit import squash
from tests.unit.archives import device, entry, folder, hardlink, symlink
from tests.unit.squash import STORED, crafted, file, patched, squashed

KIB = 1024
MIB = 1024 * KIB
NOISE = random.Random(7).randbytes(300 * KIB)
LIMIT = 32 * MIB
"""Bytes that no image here unpacks to, unless it is a bomb."""
_COMPARED = ("mode", "uid", "gid", "size", "mtime", "type", "linkname", "devmajor", "devminor")
PLAIN = ("-comp", "gzip", "-b", "4K")


class Bomb(Exception):
    """The entries' sizes are more than the reader wants."""


def tarred(image: bytes) -> bytes:
    """The image as an archive, if it is not too large for us."""
    pieces: list[bytes] = []
    room = LIMIT
    for each in squashfs.entries(io.BytesIO(image)):
        room -= each.member.size
        if room < 0:
            raise Bomb
        pieces.append(each.block)
        pieces += each.content
    return b"".join(pieces) + bytes(2 * archive.BLOCK)


def contents(data: bytes) -> dict[str, tuple]:
    """What Python's reader of archives finds, by names."""
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        return {info.name: _content(info, reader) for info in reader}


def given(entries: list) -> dict[str, tuple]:
    """What the same reader would find if it were given an archive of the entries."""
    return contents(archive_of(entries))


def archive_of(entries: list) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for info, content in entries:
            writer.addfile(info, io.BytesIO(content))
    return written.getvalue()


def _content(info: tarfile.TarInfo, reader: tarfile.TarFile) -> tuple:
    stream = reader.extractfile(info) if info.isreg() else None
    attributes = {k: v for k, v in info.pax_headers.items() if k.startswith("SCHILY.xattr.")}
    fields = {key: getattr(info, key) for key in _COMPARED}
    return fields, attributes, stream.read() if stream else b""


def attributes(**values: bytes) -> dict[str, str]:
    names = {name.replace("_", "."): value for name, value in values.items()}
    return {f"SCHILY.xattr.{k}": v.decode("utf-8", "surrogateescape") for k, v in names.items()}


def tree() -> list:
    """One of everything, with blocks full, part full, empty, alike and not."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    label = attributes(user_label=b"x" * 300)
    deep = "/".join(["d" * 99] * 5)
    folders = ["etc", "dev", "files", "many", "empty", *(deep[: 100 * n - 1] for n in range(1, 6))]
    return [
        *(folder(name) for name in folders),
        entry(
            "etc/passwd", content=b"root\n", mode=0o640, uid=70000, gid=3_000_000, mtime=2**32 - 1
        ),
        entry("etc/setuid", content=NOISE[:5000], mode=0o4755, mtime=0),
        entry("etc/zetuid", tarfile.LNKTYPE, linkname="etc/setuid", mode=0o4755),
        entry("etc/ping", content=b"x", pax_headers=attributes(security_capability=capability)),
        entry(
            "etc/rtt", pax_headers=label | attributes(user_bytes=b"\xff\0\n=\x80", trusted_x=b"")
        ),
        entry("etc/rtu", pax_headers=label),
        entry("etc/link", tarfile.SYMTYPE, linkname="/nowhere", mode=0o777),
        entry("etc/long", tarfile.SYMTYPE, linkname="t/" * 300, mode=0o777),
        device("dev/null", tarfile.CHRTYPE, 1, 3),
        device("dev/disk", tarfile.BLKTYPE, 259, 1048575),
        entry("dev/fifo", tarfile.FIFOTYPE, mode=0o600),
        entry("files/nothing"),
        entry("files/block", content=NOISE[:4096]),
        entry("files/large", content=NOISE + b"tail"),
        entry("files/twin", content=NOISE + b"tail"),
        entry("files/holes", content=bytes(300 * KIB) + b"middle" + bytes(200 * KIB)),
        entry("files/text", content=b"compresses well\n" * 20000),
        *(entry(f"many/{n}", content=b"%d" % n * n) for n in range(200)),
        entry("n" * 255),
        entry(f"{deep}/file", content=b"deep"),
        entry("n\udce9e", content=b"latin1"),
        entry(" \t\n\\'\"*", content=b"odd"),
    ]


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        ("-comp", "gzip", "-b", "1M"),
        ("-comp", "zstd"),
        ("-comp", "zstd", "-Xcompression-level", "22", "-b", "1M"),
        ("-comp", "xz"),
        ("-comp", "lzma"),
        ("-no-fragments", "-no-sparse"),
        ("-noI", "-noD", "-noF", "-noX"),
        ("-no-tailends", "-no-duplicates", "-exports"),
    ],
    ids=" ".join,
)
def test_the_tree_comes_out_as_it_went_in(options):
    made = tarred(squashed(tree(), *options))
    found = contents(made)
    assert found.pop(".")[0]["type"] == tarfile.DIRTYPE
    assert found == given(tree())
    # The reader that checks tenants' archives finds nothing to complain of in ours.
    assert len(list(archive.entries(io.BytesIO(made), "tar"))) == len(found) + 1


def test_programs_are_read_through_the_filter_for_them():
    # Calls of one function are made alike by the filter, so that the block that has it is smaller.
    calls = (b"\xe8" + struct.pack("<i", 70000 - 9 * n) + b"text" for n in range(7000))
    code = entry("code", content=b"".join(calls))
    image = squashed([code], "-comp", "xz", "-Xbcj", "x86")
    assert b"\x04\x00\x21\x01" in image
    assert contents(tarred(image))["code"][2] == code[1]


def test_a_large_directory_is_read_to_its_end():
    names = [f"d/a-file-with-a-rather-long-name-{n:05}" for n in range(3000)]
    image = squashed([folder("d"), *map(entry, names)], *PLAIN)
    found = [each.member.name.decode() for each in squashfs.entries(io.BytesIO(image))]
    assert found == [".", "d", *names]


def test_the_roots_own_owner_and_mode_are_kept():
    image = squashed([entry("x")], "-force-uid", "7", "-force-gid", "8", "-root-mode", "0711")
    fields = contents(tarred(image))["."][0]
    assert (fields["uid"], fields["gid"], fields["mode"]) == (7, 8, 0o711)


def test_what_ends_a_record_is_quoted_in_an_attributes_name_as_gnu_tar_does():
    member = archive.Member(b"x", Kind.FILE)
    made = tarheader.header(member, 0o644, (0, 0), 0, [(b"user.a=%", b"v=%\n\0")])
    assert b"35 SCHILY.xattr.user.a%3D%25=v=%\n\0\n" in made


def test_a_size_of_more_than_eight_gib_is_kept():
    member = archive.Member(b"x", Kind.FILE, 9 * 1024**3)
    made = io.BytesIO(tarheader.header(member, 0o644, (0, 0), 0))
    assert next(archive.entries(made, "tar")).member == member


def test_content_is_handed_out_in_pieces():
    image = squashed([entry("x", content=NOISE + b"end")], "-b", "64K", "-no-fragments")
    (_, found) = squashfs.entries(io.BytesIO(image))
    assert [len(piece) for piece in found.content] == [64 * KIB] * 4 + [44 * KIB + archive.BLOCK]


def test_memory_is_bounded():
    image = squashed([entry("x", content=b"x" * 24 * MIB)], "-b", "1M")
    tracemalloc.start()
    (_, found) = squashfs.entries(io.BytesIO(image))
    assert sum(len(piece) for piece in found.content) == 24 * MIB
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    tracemalloc.stop()


def test_a_bomb_shows_its_size_before_its_content():
    image = crafted([(b"x", 1)], file(size=2**32 - 1))
    found = list(squashfs.entries(io.BytesIO(image)))[1]
    assert found.member.size == 2**32 - 1


def test_sockets_are_passed_over_and_counted(monkeypatch):
    socket = (7, struct.pack("<I", 1))
    image = crafted([(b"a", 1), (b"b", 2), (b"c", 3)], socket, file(), socket)
    assert list(contents(tarred(image))) == [".", "b"]
    monkeypatch.setattr(squashfs, "MAX_SOCKETS", 1)
    with pytest.raises(Damaged, match="sockets"):
        tarred(image)


def test_a_file_is_a_hard_link_only_when_it_says_so():
    linked = (9, struct.pack("<3Q4I", 96, 2, 0, 2, squash.NONE, 0, squash.NONE))
    words = struct.pack("<I", STORED | 2)
    nodes = [(b"a", 1), (b"b", 2), (b"c", 1), (b"d", 2)]
    image = crafted(nodes, (9, linked[1] + words), file(b"hi"), data=b"hi")
    found = list(squashfs.entries(io.BytesIO(image)))[1:]
    assert [each.member.kind for each in found] == [Kind.FILE, Kind.FILE, Kind.HARDLINK, Kind.FILE]
    assert found[2].member.target == b"a"
    assert [b"".join(each.content).rstrip(b"\0") for each in found] == [b"hi", b"hi", b"", b"hi"]


def test_a_crafted_image_without_fault_is_read():
    nodes = [(b"d", 1), (b"f", 2), (b"s", 3)], [(b"g", 2)], file(b"hi"), squash.symlink(b"d")
    found = contents(tarred(crafted(*nodes, data=b"hi")))
    assert {name: value[2] for name, value in found.items()} == {
        ".": b"", "d": b"", "d/g": b"hi", "f": b"hi", "s": b""
    }  # fmt: skip


def _word(value: int) -> bytes:
    return struct.pack("<I", value)


SMALL = crafted([(b"x", 1)], file(b"hi"), data=b"hi")
_INODES = 96 + 2 + 2
"""Where the inode table's first block begins in SMALL, behind its own two bytes."""
DAMAGED = {
    "magic": (patched(SMALL, (0, b"sqsh")), "not a squashfs"),
    "version": (patched(SMALL, (squash.VERSION, b"\3")), "not a squashfs"),
    "block size": (patched(SMALL, (squash.BLOCK_SIZE, _word(5000))), "block size"),
    "block log": (patched(SMALL, (squash.BLOCK_LOG, b"\x0d")), "block size"),
    "block log of 60000": (patched(SMALL, (squash.BLOCK_LOG, b"\x60\xea")), "block size"),
    "large blocks": (
        patched(SMALL, (squash.BLOCK_SIZE, _word(2 * MIB)), (squash.BLOCK_LOG, b"\x15")),
        "block size",
    ),
    "lz4": (patched(SMALL, (squash.COMPRESSOR, b"\5")), "lz4, not with zstd"),
    "lzo": (patched(SMALL, (squash.COMPRESSOR, b"\3")), "lzo, not with zstd"),
    "compressor 9": (patched(SMALL, (squash.COMPRESSOR, b"\x09")), "unknown"),
    "longer than the file": (SMALL[:-1], "truncated"),
    "nothing": (b"", "truncated"),
    "the magic alone": (b"hsqs", "truncated"),
    "tables": (patched(SMALL, (squash.DIRECTORY_TABLE, b"\0")), "disorder"),
    "root outside": (patched(SMALL, (squash.ROOT, _word(1 << 30))), "outside"),
    "root behind its block": (patched(SMALL, (squash.ROOT, b"\xff\x0f")), "ends too early"),
    "root a file": (crafted(file()), "root"),
    "root a socket": (crafted((7, _word(1))), "root"),
    "metadata of 8193": (patched(SMALL, (_INODES - 2, b"\x01\xa0")), "metadata"),
    "metadata of nothing": (patched(SMALL, (_INODES - 2, b"\x00\x80")), "metadata"),
    "no such type": (patched(SMALL, (_INODES, b"\x0f")), "unknown type"),
    "no such owner": (patched(SMALL, (_INODES + 4, b"\1")), "owner"),
    "another type": (crafted([(b"x", 1, 3)], file()), "contradict"),
    "another number": (patched(SMALL, (_INODES + 32 + 12, b"\7")), "contradict"),
    "..": (crafted([(b"..", 1)], file()), "name"),
    ".": (crafted([(b".", 1)], file()), "name"),
    "slash": (crafted([(b"a/b", 1)], file()), "name"),
    "zero in a name": (crafted([(b"a\0b", 1)], file()), "name"),
    "256 bytes": (crafted([(b"n" * 256, 1)], file()), "name"),
    "unsorted": (crafted([(b"b", 1), (b"a", 1)], file()), "sorted"),
    "twice": (crafted([(b"a", 1), (b"a", 1)], file()), "sorted"),
    "long run": (crafted([(b"%03d" % n, 1) for n in range(257)], file()), "malformed"),
    "itself": (crafted([(b"x", 0)]), "in itself"),
    "loop": (crafted([(b"x", 1)], [(b"y", 2)], [(b"z", 1)]), "in itself"),
    "two places": (crafted([(b"x", 1), (b"y", 1)], []), "two places"),
    "directory's size": (patched(SMALL, (_INODES + 16 + 8, b"\x05")), "its size"),
    "empty link": (crafted([(b"x", 1)], squash.symlink(b"")), "link"),
    "long link": (crafted([(b"x", 1)], squash.symlink(b"t" * 4096)), "link"),
    "huge link": (crafted([(b"x", 1)], squash.symlink(b"t", size=2**32 - 1)), "link"),
    "zero in a link": (crafted([(b"x", 1)], squash.symlink(b"a\0b")), "link"),
    "short block": (crafted([(b"x", 1)], file(b"hi", size=3), data=b"hi"), "wrong size"),
    "long block": (crafted([(b"x", 1)], file(b"hi", size=1), data=b"hi"), "wrong size"),
    "no block": (crafted([(b"x", 1)], file(size=5000)), "ends too early"),
    "too few blocks": (
        # They fill the table's one block of metadata; another table follows.
        crafted([(b"x", 1)], file(size=4096 * 2033, words=[0] * 2032)),
        "outside of its table",
    ),
    "block of 4097": (crafted([(b"x", 1)], file(size=4096, words=[STORED | 4097])), "too large"),
    "strange block": (crafted([(b"x", 1)], file(size=2, words=[1 << 25 | 2])), "too large"),
    "block of rubbish": (crafted([(b"x", 1)], file(size=2, words=[2]), data=b"hi"), "corrupt"),
    "block outside": (crafted([(b"x", 1)], file(size=4000, words=[STORED | 4000])), "outside"),
    "size of 2**63": (
        crafted([(b"x", 1)], (9, struct.pack("<3Q4I", 0, 2**63, 0, 1, 0, 0, squash.NONE))),
        "larger",
    ),
    "no such fragment": (
        crafted([(b"x", 1)], (2, struct.pack("<4I", 0, 0, 0, 5))),
        "end of a file",
    ),
    "no attributes": (
        crafted([(b"x", 1)], (13, struct.pack("<2I", 1, 0))),
        "outside",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_told(case):
    image, reason = DAMAGED[case]
    with pytest.raises(Damaged, match=reason):
        tarred(image)


def test_a_path_may_not_grow_without_bound(monkeypatch):
    monkeypatch.setattr(squashfs, "MAX_PATH", 20)
    folders = [[(b"f" * 5, n)] for n in range(1, 5)]
    with pytest.raises(Damaged, match="path of more than"):
        tarred(crafted(*folders, file()))


@pytest.mark.parametrize(("limit", "value"), [("MAX_ATTRIBUTE", 299), ("MAX_ATTRIBUTES", 320)])
def test_extended_attributes_are_bounded(monkeypatch, limit, value):
    extended = attributes(user_a=b"x" * 300, user_b=b"x")
    image = squashed([entry("x", pax_headers=extended)], *PLAIN)
    assert contents(tarred(image))["x"][1] == extended
    monkeypatch.setattr(squashinodes, limit, value - 20)
    with pytest.raises(Damaged, match="extended attributes"):
        tarred(image)


def test_extended_attributes_are_bounded_all_together(monkeypatch):
    monkeypatch.setattr(squashinodes, "MAX_EXTENSIONS", 500)
    files = [entry(name, pax_headers=attributes(user_a=b"x" * 300)) for name in "ab"]
    with pytest.raises(Damaged, match="extended attributes"):
        tarred(squashed(files, *PLAIN))


def attributed() -> bytes:
    """An image whose extended attributes are not compressed; two files share a value."""
    extended = [attributes(user_abc=b"y"), attributes(user_all=b"x" * 300)]
    extended.append(extended[0] | extended[1])
    files = [entry(str(n), pax_headers=each) for n, each in enumerate(extended)]
    return squashed(files, "-noX", *PLAIN)


def test_a_value_that_several_files_share_is_found():
    image = attributed()
    assert b"\x00\x01\x03\x00all" in image
    found = contents(tarred(image))
    assert found["1"][1].items() <= found["2"][1].items()


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"\x00\x00\x03\x00abc", b"\x03\x00\x03\x00abc", "malformed"),
        (b"\x00\x00\x03\x00abc", b"\x00\x00\x00\x00abc", "malformed"),
        (b"\x00\x00\x03\x00abc", b"\x00\x00\x03\x01abc", "malformed"),
        (b"\x00\x00\x03\x00abc", b"\x00\x01\x03\x00abc", "malformed"),
        (b"\x00\x00\x03\x00abc", b"\x00\x00\x03\x00a\0c", "proper name"),
        (b"\x00\x00\x03\x00abc", b"\x00\x00\x03\x00a\nc", "proper name"),
        (b"abc\x01\x00\x00\x00", b"abc\xff\xff\xff\xff", "too large"),
    ],
)
def test_malformed_extended_attributes_are_refused(before, after, reason):
    image = attributed()
    assert before in image
    with pytest.raises(Damaged, match=reason):
        tarred(image.replace(before, after))


def test_missing_extended_attributes_are_refused():
    image = attributed()
    (table,) = struct.unpack_from("<Q", image, squash.XATTR_TABLE)
    with pytest.raises(Damaged, match="missing"):
        tarred(patched(image, (table + 8, _word(1))))


def test_a_file_that_shrinks_meanwhile_is_refused():
    stream = io.BytesIO(SMALL)
    found = squashfs.entries(stream)
    next(found)
    stream.truncate(squash.FIRST_BLOCK)
    with pytest.raises(Damaged, match="truncated"):
        list(found)


def test_work_is_bounded_by_the_images_size(monkeypatch):
    image = squashed([entry("x", content=b"x" * 4 * MIB)], "-b", "1M")
    assert contents(tarred(image))["x"][2] == b"x" * 4 * MIB
    monkeypatch.setattr(squashblocks, "RATIO_FREE", 2 * MIB)
    with pytest.raises(Damaged, match="200 times"):
        tarred(image)


def test_a_block_that_unpacks_to_too_much_is_refused():
    image = squashed([entry("x", content=b"x" * 128 * KIB)], "-no-fragments")
    smaller = patched(image, (squash.BLOCK_SIZE, _word(64 * KIB)), (squash.BLOCK_LOG, b"\x10"))
    with pytest.raises(Damaged, match="unpacks to too much"):
        tarred(smaller)


@pytest.fixture(
    scope="module", params=["-comp gzip", "-comp xz", "-comp zstd", "-noI -noD -noF -noX"]
)
def small(request):
    files = [entry(f"d/{n}", content=NOISE[: n * 100], mode=n) for n in range(20)]
    other = [symlink("s", "t" * 30), hardlink("z", "d/3"), entry("x", content=b"text" * 5000)]
    extended = entry("a", pax_headers=attributes(user_a=b"x" * 300, user_b=b"x" * 300))
    return squashed([folder("d"), *files, *other, extended], "-b", "4K", *request.param.split())


def examined(image: bytes) -> int:
    """Read what may be damaged; return how many entries came of it, 0 if it is refused."""
    try:
        made = tarred(image)
    except (Damaged, Bomb):
        return 0
    return len(list(archive.entries(io.BytesIO(made), "tar")))


def test_no_part_of_an_image_is_an_image(small):
    assert examined(small) == 26
    used = struct.unpack_from("<Q", small, squash.USED)[0]
    for size in [*range(0, used, 211), used - 1]:
        assert not examined(small[:size])
        # Also when it says that it is no longer than that.
        if size > squash.FIRST_BLOCK:
            examined(patched(small[:size], (squash.USED, struct.pack("<Q", size))))


def test_damage_at_random_never_does_more_than_be_refused(small):
    luck = random.Random(4)
    used = struct.unpack_from("<Q", small, squash.USED)[0]
    results = []
    for _ in range(150):
        places = [luck.choice((luck.randrange(used), luck.randrange(squash.FIRST_BLOCK)))]
        places += [luck.randrange(used) for _ in range(luck.randrange(3))]
        spoil = [(at, luck.randbytes(luck.choice((1, 1, 2, 4)))) for at in places]
        results.append(examined(patched(small, *spoil)))
    assert results.count(0) > 50
