"""What an operator reads about how long a build took."""

from __future__ import annotations

import re

from nova_lxd.virt.timeline import Timeline


def test_parts_come_in_the_order_in_which_they_were_done() -> None:
    timeline = Timeline()
    for part in ("ports", "container", "network"):
        timeline.done(part)

    seconds = r"\d+\.\d\d s"
    assert re.fullmatch(f"ports {seconds}, container {seconds}, network {seconds}", str(timeline))
    assert timeline.elapsed() >= 0
