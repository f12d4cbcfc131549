"""What the benchmark of boots reads in nova-compute's log."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from benchmarks.boot import Log

LINE = "2026-11-25 14:06:32.397 1 INFO nova_lxd.virt.lifecycle [None req-1 a b] [instance: {}] {}\n"


def test_only_what_came_later_is_read_of_the_servers_that_count(tmp_path: Path) -> None:
    file = tmp_path / "log"
    built = LINE.format("s1", "Built in 9.00 s (network 8.00 s)")
    file.write_text(built)
    log = Log(file)
    with file.open("a") as more:
        more.write(LINE.format("s2", "Built in 2.41 s (container 0.42 s, network 2.15 s)"))
        more.write(LINE.format("s2", "Took 2.50 seconds to spawn the instance on the hypervisor."))
        more.write(LINE.format("s2", "Took 3.10 seconds to build instance."))

        more.write(LINE.format("s3", "Built in 1.00 s (network 0.90 s)"))

    expected = {"spawn": 2.5, "built": 2.41, "container": 0.42, "network": 2.15}
    assert log.builds({"s2"}) == [expected]
    (spawn,) = log.spawns({"s2"})
    assert spawn.seconds == 2.5
    assert spawn.begin == datetime(2026, 11, 25, 14, 6, 29, 897000).timestamp()
