"""Sample configurations, filled in as an operator would edit them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECTION = re.compile(r"^\[([^\]]+)\]\s*$")


def fill_sample(sample: str, chosen: Mapping[str, Mapping[str, str]]) -> str:
    """Return a sample configuration with options set, as an operator would edit it.

    ``chosen`` maps section -> option -> value. A commented ``#option = default`` of the section is
    replaced in place; an option that the sample lacks is added at the top of its section, and a
    section that it lacks at the end.
    """
    left = {section: dict(options) for section, options in chosen.items()}
    lines: list[str] = []
    section = "DEFAULT"
    for line in sample.splitlines():
        if match := _SECTION.match(line):
            section = match.group(1)
        lines.append(_set(line, left.get(section, {})))
    return _add_missing(lines, left)


def _set(line: str, options: dict[str, str]) -> str:
    match = re.match(r"^#?\s?([a-z0-9_]+)\s*=", line)
    if match and match.group(1) in options:
        name = match.group(1)
        return f"{name} = {options.pop(name)}"
    return line


def _add_missing(lines: list[str], left: Mapping[str, Mapping[str, str]]) -> str:
    for section, options in left.items():
        added = [f"{name} = {value}" for name, value in options.items()]
        if not added:
            continue
        if f"[{section}]" in lines:
            at = lines.index(f"[{section}]") + 1
            lines[at:at] = added
        else:
            lines += ["", f"[{section}]", *added]
    return "\n".join(lines).lstrip("\n") + "\n"
