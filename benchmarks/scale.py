"""A host that fills up: servers are ordered by the hundred through the real Nova API.

Run as root against a running cloud that nobody else uses::

    eval "$(python3 aio env)"; python benchmarks/scale.py [--steps 10,50,100,200,300] [--until 500]

Each step orders the servers that are missing at once (one request of Nova's API).  It tells how
many a second came; after what time each was ACTIVE (its ``launched_at``, whole seconds, less the
moment of the order, read in one request at the end, since asking often would slow them down); the
memory (proportional set size) of each part of the cloud, and per server what is more than without
servers; what our part of each periodic task asks of LXD and how long it takes, beside a bare client
that only asks for the same; and for a minute without work the CPU time of all parts and the
requests that LXD got.  With ``--idle-at`` servers that lasts as long as one sync of the power
states takes to come round.  At last all are deleted at once.

Until its end the benchmark raises the tenant's quotas, and how much Placement lets the host be
overcommitted.  Nova's intervals stay as they are.  The host must have as many ranges of user ids as
servers (/etc/subuid and /etc/subgid).  Writes benchmarks/results/scale.json and ends with status 1
when a server failed, two id maps overlap or lie outside root's range, or something is left behind.

It does not show what the machine would do if Nova's and Neutron's services ran elsewhere: here they
share the two cores with the containers, and the rates are theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import openstack

from aio.cloud import Cloud
from aio.settings import DEFAULT_STATE, Settings
from benchmarks import cloud as clouds
from benchmarks import contest as contests
from benchmarks import cycles, inventory, room, usage
from benchmarks.passes import Periodic, periodic
from benchmarks.stats import Row, percentile, table
from benchmarks.usage import RequestLog
from nova_lxd.virt import idmap
from nova_lxd.virt.model import IdRange

NAME = f"{clouds.PREFIX}scale"
WARM_UPS = 16
ROUNDS = 30
MINUTE = 60.0
LONG = 630.0
"""Seconds: a sync of the power states every 600, and some to spare."""
CALM = 30.0
"""Seconds for the agents to finish what the last server began."""
IDLE_TARGET = 0.02
"""Share of one core that an idle nova-compute may take."""
_PORT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{2}")
"""The part of a device's name that is its port's."""
STANDING_OPEN = "open files"
"""How many connections nova-compute keeps depends on how much it did at a time."""


def main() -> int:
    """Fill the host, empty it, and tell."""
    options = _options()
    check_ids(max(options.steps), Path("/etc/subuid").read_text())
    settings = Settings(state=Path(os.environ.get("NOVA_LXD_AIO_STATE", DEFAULT_STATE)))
    os.environ["PATH"] = settings.path  # the firewall of the flavour that Neutron's agent uses
    run = Run(openstack.connect(), Cloud(settings), options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(room.raised(run.api, max(options.steps)))
        run.network = stack.enter_context(clouds.network(run.api, "10.96.0.0/20"))
        run.flavor = stack.enter_context(room.flavor(run.api, NAME))
        run.driver = stack.enter_context(periodic(run.cloud.lxd))
        run.fill()
    print(table(run.rows))
    print(json.dumps(run.report, indent=1))
    contests.write(run.rows, options.output, more=run.report)
    return 0 if run.is_good() else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=_numbers, default="10,50,100,200,300")
    parser.add_argument("--until", type=int, default=0, help="go on by hundreds up to this many")
    parser.add_argument("--idle-at", type=int, default=200, help="servers at the long idle time")
    text = "how long that is; a sync of the power states comes every 600"
    parser.add_argument("--idle-seconds", type=float, default=LONG, help=text)
    results = Path(__file__).parent / "results" / "scale.json"
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    options.steps = steps(options.steps, options.until)
    return options


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def steps(chosen: Sequence[int], until: int) -> list[int]:
    """Go on by hundreds behind the last of the steps."""
    return [*chosen, *range(chosen[-1] + 100, until + 1, 100)]


class Run:
    """One run: the cloud, what it lends, and what was found."""

    network: str
    flavor: str
    driver: Periodic

    def __init__(self, api: Any, cloud: Cloud, options: argparse.Namespace) -> None:
        self.api = api
        self.cloud = cloud
        self.options = options
        self.rows: list[Row] = []
        self.series: list[dict[str, Any]] = []
        self.report: dict[str, Any] = {"series": self.series}
        self._log = RequestLog(str(cloud.lxd.socket))

    def is_good(self) -> bool:
        """Tell whether everything came, was apart from the others, and went."""
        bad = ("failed", "overlaps", "outside", "left_behind")
        return not any(self.report[key] for key in bad)

    # -- the story

    def fill(self) -> None:
        """Warm up, grow step by step, delete all."""
        self._grow(WARM_UPS)
        clouds.delete_servers(self.api)
        before = cycles.at_rest(self._take)
        self.series.append({"servers": 0, "memory_mib": self._memory(), "idle": self._idle(MINUTE)})
        for target in self.options.steps:
            step = self._step(target)
            print(json.dumps(step), flush=True)
            self.series.append(step)
            if step["servers"] < target / 2 or not step["came"]:
                break  # the machine refuses
        ranges = id_ranges(self.cloud)
        self.report |= {"id_maps": len(ranges), "overlaps": overlaps(ranges)}
        self.report |= {"outside": outside(ranges, Path("/etc/subuid").read_text())}
        self.report["failed"] = sum(sum(step["failed"].values()) for step in self.series[1:])
        self.report["limits"] = limits(self.series, self.options.idle_at)
        self.report["deletion"] = self._deletion()
        after = cycles.settled(self._take, before)
        self.report["left_behind"] = kinds(inventory.differences(before, after))

    def _take(self) -> inventory.Inventory:
        taken = inventory.take(self.cloud.settings)
        del taken[STANDING_OPEN]
        return taken

    def _step(self, target: int) -> dict[str, Any]:
        """Order what is missing, and measure when it is there."""
        missing = target - len(clouds.servers(self.api))
        begun = time.time()
        self._grow(missing)
        servers = clouds.servers(self.api)
        came = arrivals(servers, begun)
        failed = Counter(_fault(s) for s in servers if s.status != "ACTIVE")
        for server in servers:
            if server.status != "ACTIVE":
                self.api.compute.delete_server(server)
        count = len(servers) - failed.total()
        time.sleep(CALM)
        memory = self._memory()
        tasks, rows = self.driver.measure(ROUNDS)
        self.rows += rows
        return {
            "servers": count,
            "ordered": missing,
            "came": len(came),
            "failed": dict(failed),
            **rates(came),
            "memory_mib": memory,
            "memory_per_server_mib": per_server(self.series[0]["memory_mib"], memory, count),
            "periodic": tasks,
            "idle": self._idle(
                self.options.idle_seconds if target == self.options.idle_at else MINUTE
            ),
        }

    def _grow(self, count: int) -> None:
        clouds.order(self.api, NAME, self.flavor, [{"uuid": self.network}], count)
        clouds.until_built(self.api, clouds.DEADLINE + 10 * count)

    def _memory(self) -> dict[str, float]:
        return usage.memory_mib(usage.parts(self.cloud)) | {"host": usage.used_mib()}

    def _idle(self, seconds: float) -> dict[str, Any]:
        """Look on while nobody asks anything of the cloud."""
        parts = usage.parts(self.cloud)
        with self._log.counted() as seen:
            taken, shares = usage.watch(parts, seconds)
        return {"seconds": round(taken), "cpu_share": shares, "requests": dict(seen)}

    def _deletion(self) -> dict[str, Any]:
        count = len(clouds.servers(self.api))
        start = time.monotonic()
        clouds.delete_servers(self.api, 3600)
        seconds = time.monotonic() - start
        per_second = round(count / seconds, 2)
        return {"servers": count, "seconds": round(seconds, 1), "per_second": per_second}


# -- what the figures mean


def arrivals(servers: Sequence[Any], begun: float) -> list[float]:
    """Return after how many seconds each server of an order was ACTIVE, the first one first."""
    launched = [
        datetime.fromisoformat(server.launched_at).replace(tzinfo=UTC).timestamp()
        for server in servers
        if server.status == "ACTIVE"
    ]
    return sorted(when - begun for when in launched if when >= begun)


def rates(came: Sequence[float]) -> dict[str, float | None]:
    """Say how fast the servers of an order came."""
    if not came:
        return {"create_per_second": None, "active_p50_s": None, "active_p95_s": None}
    return {
        "create_per_second": round(len(came) / came[-1], 2),
        "active_p50_s": round(statistics.median(came), 1),
        "active_p95_s": round(percentile(came, 0.95), 1),
    }


def _fault(server: Any) -> str:
    return str((server.fault or {}).get("message", server.status))[:200]


def per_server(base: dict[str, float], now: dict[str, float], servers: int) -> dict[str, float]:
    """Return what each part has more than without servers, per server."""
    return {name: round((now[name] - base.get(name, 0.0)) / servers, 3) for name in now}


def limits(series: Sequence[dict[str, Any]], idle_at: int) -> list[dict[str, Any]]:
    """Hold the figures against what they must not exceed."""
    found = []
    for step in series:
        if step["servers"] == idle_at:
            shares = step["idle"]["cpu_share"]
            what = f"CPU of an idle nova-compute with {idle_at} servers, share of a core"
            value = round(shares["nova-compute"] + shares.get("helpers", 0.0), 4)
            found.append({"what": what, "value": value, "limit": IDLE_TARGET})
    asked = sum(series[-1]["periodic"]["power sync"]["requests"].values())
    what = f"requests of a power sync of {series[-1]['servers']} servers"
    return [*found, {"what": what, "value": asked, "limit": 1}]


# -- the servers' user ids


def id_ranges(cloud: Cloud) -> list[tuple[int, int]]:
    """List where the servers' user ids begin on the host, and how many there are."""
    get = inventory.gather.lxd(str(cloud.lxd.socket))
    ranges = []
    for instance in get(f"/1.0/instances?project={cloud.settings.lxd_project}&recursion=1"):
        maps = json.loads(instance["config"]["volatile.idmap.current"])
        ranges += [(entry["Hostid"], entry["Maprange"]) for entry in maps if entry["Isuid"]]
    return sorted(ranges)


def overlaps(ranges: Sequence[tuple[int, int]]) -> list[str]:
    """Name the neighbours that share ids."""
    return [f"{a} and {b}" for a, b in itertools.pairwise(ranges) if a[0] + a[1] > b[0]]


def outside(ranges: Sequence[tuple[int, int]], subuid: str) -> list[str]:
    """Name those that are not within root's range in /etc/subuid."""
    low, size = _of_root(subuid)
    return [str(r) for r in ranges if r[0] < low or r[0] + r[1] > low + size]


def kinds(differences: Sequence[str]) -> dict[str, int]:
    """Count what differs in the names of ports alone, of which there may be hundreds."""
    return dict(Counter(_PORT.sub("*", difference) for difference in differences))


def check_ids(servers: int, subuid: str) -> None:
    """Refuse to begin what would end for want of user ids."""
    room_for = idmap.capacity(IdRange(*_of_root(subuid)))
    if servers > room_for:
        raise SystemExit(
            f"root's range in /etc/subuid is enough for {room_for} servers, not for {servers}: "
            "write root:100000:1000000000 into /etc/subuid and /etc/subgid, and bring the cloud "
            "down and up again; or choose other --steps"
        )


def _of_root(subuid: str) -> tuple[int, int]:
    """Return where root's range of ids begins, and how many there are."""
    lines = subuid.splitlines()
    low, size = next(map(int, line.split(":")[1:]) for line in lines if line.startswith("root:"))
    return low, size


if __name__ == "__main__":
    sys.exit(main())
