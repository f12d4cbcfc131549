"""The ``volatile.idmap.*`` keys."""

from __future__ import annotations

import json

from .state import State

_ISOLATED = 65536


def next_idmap(state: State, config: dict[str, str]) -> dict[str, str]:
    """Choose the map an instance gets at its next start, as LXD writes it down.

    LXD does not refuse a base that is taken; its own choice is the first free one.
    """
    if config.get("security.privileged") == "true":
        return {"volatile.idmap.base": "0", "volatile.idmap.next": "[]"}
    if config.get("security.idmap.isolated") != "true":
        first, size = state.id_range
        return {"volatile.idmap.base": "0", "volatile.idmap.next": _entries(first, size)}
    size = int(config.get("security.idmap.size") or _ISOLATED)
    base = int(config.get("security.idmap.base") or _first_free(state))
    return {"volatile.idmap.base": str(base), "volatile.idmap.next": _entries(base, size)}


def fits(state: State, entries: str) -> bool:
    """Whether the kernel's helpers would grant the map."""
    first, size = state.id_range
    return all(
        first <= entry["Hostid"] and entry["Hostid"] + entry["Maprange"] <= first + size
        for entry in json.loads(entries)
    )


def _first_free(state: State) -> int:
    taken = {instance.config.get("volatile.idmap.base") for instance in state.instances.values()}
    base = state.id_range[0] + _ISOLATED
    while str(base) in taken:
        base += _ISOLATED
    return base


def _entries(host: int, size: int) -> str:
    kinds = ((True, False), (False, True))
    entries = [
        {"Isuid": uid, "Isgid": gid, "Hostid": host, "Nsid": 0, "Maprange": size}
        for uid, gid in kinds
    ]
    return json.dumps(entries, separators=(",", ":"))
