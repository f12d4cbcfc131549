"""Validators for the ``lxd:*`` extra specs (entry point ``nova.api.extra_spec_validators``).

With these installed, Nova's API refuses an unknown ``lxd:*`` key or a bad value when the flavor is
changed, long before a server is built from it.
"""

from __future__ import annotations

from typing import Any

from nova.api.validation.extra_specs.base import ExtraSpecValidator

from nova_lxd.virt.flavor import LXD_SPECS, LxdSpec


def register() -> list[ExtraSpecValidator]:
    """Return one validator for each ``lxd:*`` extra spec."""
    return [
        ExtraSpecValidator(name=spec.name, description=spec.description, value=_value(spec))
        for spec in LXD_SPECS
    ]


def _value(spec: LxdSpec) -> dict[str, Any]:
    if spec.maximum is None:
        return {"type": bool}
    return {"type": int, "min": 1, "max": spec.maximum}
