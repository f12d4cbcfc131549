"""The table of hostile images, as far as it goes without LXD."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from nova_lxd.exception import LXDDriverError
from nova_lxd.virt import compression, image, rootfs
from tests import hostile
from tests.unit import values
from tests.unit.archives import system

ROOT = Path(__file__).resolve().parents[2]
GIB = 1024**3


def judge(row: hostile.Row) -> rootfs.RootfsFacts:
    """Do what is done for a server, without LXD."""
    data = row.build(system())
    properties = dict(row.glance.get("properties", {}))
    said = {key: value for key, value in row.glance.items() if key != "properties"}
    names = {"min_disk": "min_disk_gb", "min_ram": "min_ram_mb"}
    source = values.image(
        architecture=properties.pop("hw_architecture", ""),
        size=len(data),
        properties={"hypervisor_type": properties.pop("img_hv_type", "lxd"), **properties},
        **{names.get(key, key): value for key, value in said.items()},
    )
    flavor = values.flavor(root_gb=row.disk_gb)
    image.check_metadata(source, values.host())
    image.check_size(source, flavor)
    return rootfs.inspect(io.BytesIO(data), source.id, row.disk_gb * GIB)


@pytest.mark.parametrize("row", hostile.ROWS, ids=[row.name for row in hostile.ROWS])
def test_outcome(row, monkeypatch):
    # The same arithmetic on less than what is free keeps the test short.
    monkeypatch.setattr(compression, "RATIO_FREE", 64 * hostile.MIB)
    if row.accepted:
        assert judge(row).unpacked_bytes < GIB
        return
    with pytest.raises(LXDDriverError) as refusal:
        judge(row)
    assert type(refusal.value) is row.error
    if not row.by_api:
        assert row.words in str(refusal.value)


def test_accepted_ones_are_given_to_lxd_without_what_is_beside_their_root():
    for row in hostile.METADATA:
        if row.accepted:
            data = row.build(system())
            screening = rootfs.Screening(io.BytesIO(data), image.sniff(data), "id", 0)
            given = b"".join(screening)
            assert b"evil.tpl" not in given or not screening.facts.unified, row.name
            assert b"rootfs" not in given, row.name


def test_names_are_unique():
    names = [row.name for row in hostile.ROWS]
    assert len(names) == len(set(names))


def test_the_user_guide_shows_the_table():
    shown = ROOT / "doc" / "source" / "user" / "hostile-images.inc"
    assert shown.read_text() == hostile.as_rst(), f"python -m tests.hostile >{shown}"
