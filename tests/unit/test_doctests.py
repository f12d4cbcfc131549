"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def modules_with_examples() -> list[str]:
    files = [*ROOT.glob("nova_lxd/**/*.py"), *ROOT.glob("aio/**/*.py")]
    with_examples = sorted(file for file in files if ">>> " in file.read_text())
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in with_examples]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))

    assert result.attempted
    assert not result.failed
