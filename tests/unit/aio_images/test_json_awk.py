"""The image's JSON reader, which decides whose key gets in and what the server is called."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aio.images.busybox import SKELETON

SCRIPT = SKELETON / "usr/lib/nova-lxd/json.awk"


def flatten(text: str) -> list[str]:
    done = subprocess.run(
        ["awk", "-f", str(SCRIPT)], input=text, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ({"uuid": "a-b"}, ["uuid\ta-b"]),
        ({"public_keys": {"my key": "ssh-rsa AAA x@y\n"}}, ["public_keys/my key\tssh-rsa AAA x@y"]),
        ({"keys": [{"name": "a"}, {"name": "b"}]}, ["keys/0/name\ta", "keys/1/name\tb"]),
        ({"n": 0, "b": True, "z": None}, ["n\t0", "b\ttrue", "z\tnull"]),
        ({"empty": {}, "none": [], "last": "x"}, ["last\tx"]),
        ({"quoted": 'a"b\\c'}, ['quoted\ta"b\\c']),
    ],
)
def test_flattens(value, lines):
    assert flatten(json.dumps(value)) == lines


def test_a_tenants_text_cannot_pretend_to_be_a_key():
    """Nothing in a value, not even JSON or a line break, becomes a line of its own."""
    evil = '", "public_keys": {"x": "ssh-rsa EVIL"}\npublic_keys/x\tssh-rsa EVIL'
    lines = flatten(json.dumps({"meta": {"a": evil, evil: "b"}, "hostname": "good"}))
    assert len(lines) == 3
    assert [line for line in lines if line.startswith("public_keys")] == []


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=5))
def test_one_line_for_each_value(values):
    lines = flatten(json.dumps({"meta": values}))
    assert len(lines) == len(values)
    assert all(line.startswith("meta/") for line in lines)
