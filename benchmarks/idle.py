"""What nova-compute takes while nothing happens: our driver beside Nova's fake one.

Run as root against a cloud that was just brought up and that nobody else uses: threads that
earlier builds left waiting take their time in ours alone::

    eval "$(python3 aio env)"; python benchmarks/idle.py [-n 200] [--minutes 11]

A second nova-compute, with Nova's fake driver and else the same configuration, joins the cloud, and
each of the two gets as many servers.  Then nobody asks anything of the cloud, and minute by minute
the CPU time of both is read, that of privileged helpers included.  A figure is milliseconds of CPU
time in a second; the mean, under *CPU*, is the one with a power sync (every ten minutes) in it.

The servers have no ports, since the fake driver plugs none.  What os-vif takes to listen to Open
vSwitch is in the idle time of scale.py, whose servers have.  Like there, the host must have a range
of user ids for each server.  Writes benchmarks/results/idle.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import openstack

from aio.cloud import Cloud
from aio.process import Process
from aio.services import nova
from aio.settings import DEFAULT_STATE, Settings
from benchmarks import cloud as clouds
from benchmarks import room, usage
from benchmarks.contest import write
from benchmarks.scale import CALM, MINUTE, check_ids
from benchmarks.stats import Cost, Row, paired, table

NAME = f"{clouds.PREFIX}idle"
FAKE_HOST = NAME
CONFIGURATION = """\
[DEFAULT]
compute_driver = fake.FakeDriverWithoutFakeNodes
host = {host}
state_path = {folder}
instances_path = {folder}/instances

[oslo_concurrency]
lock_path = {folder}/lock
"""


def main() -> None:
    """Fill both hosts, wait, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=200, help="servers on each host")
    parser.add_argument("--minutes", type=int, default=11)
    options = parser.parse_args()
    check_ids(options.n, Path("/etc/subuid").read_text())
    settings = Settings(state=Path(os.environ.get("NOVA_LXD_AIO_STATE", DEFAULT_STATE)))
    api, cloud = openstack.connect(), Cloud(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(room.raised(api, 2 * options.n))
        flavor = stack.enter_context(room.flavor(api, NAME))
        fake = stack.enter_context(fake_compute(api, settings))
        stack.callback(clouds.delete_servers, api, 3600)
        _fill(api, flavor, (settings.host, FAKE_HOST), options.n)
        ours, its = _watch(cloud, fake, options.minutes)
    row = paired(f"nova-compute, {options.n} servers", ours, "fake driver", its, None)
    print(table([row]))
    results = Path(__file__).parent / "results" / "idle.json"
    write([row], results, more={"share_of_a_core": shares(row)})


def shares(row: Row) -> dict[str, float]:
    """Return how much of a core each took on the average."""
    means = {"ours": row.ours_cpu_ms, "fake driver": row.peer_cpu_ms}
    return {who: round(mean / 1000, 4) for who, mean in means.items() if mean is not None}


@contextlib.contextmanager
def fake_compute(api: Any, settings: Settings) -> Iterator[Process]:
    """Lend the cloud a second compute service, with Nova's fake driver."""
    with tempfile.TemporaryDirectory(prefix=NAME) as folder:
        file = Path(folder) / "fake.conf"
        file.write_text(CONFIGURATION.format(host=FAKE_HOST, folder=folder))
        process = Process(FAKE_HOST, Path(folder), settings.log, owner=str(settings.state))
        configs = [f"--config-file={settings.etc}/compute/nova.conf", f"--config-file={file}"]
        process.start([settings.program("nova-compute"), *configs])
        try:
            process.wait_ready(lambda: getattr(_service(api), "state", "") == "up", 300)
            nova.discover_hosts(settings)
            yield process
        finally:
            process.stop()
            if service := _service(api):
                api.compute.delete_service(service)


def _service(api: Any) -> Any:
    return next(iter(api.compute.services(binary="nova-compute", host=FAKE_HOST)), None)


def _fill(api: Any, flavor: str, hosts: tuple[str, ...], count: int) -> None:
    for host in hosts:
        clouds.order(api, NAME, flavor, "none", count, availability_zone=f"nova:{host}")
    clouds.until_built(api, clouds.DEADLINE + 20 * count)
    failed = [server.fault for server in clouds.servers(api) if server.status != "ACTIVE"]
    if failed:
        raise SystemExit(f"{len(failed)} servers failed, the first with {failed[0]}")
    time.sleep(CALM)


def _watch(cloud: Cloud, fake: Process, minutes: int) -> tuple[list[Cost], list[Cost]]:
    """Return what each of the two took of a second, minute by minute."""
    parts = usage.parts(cloud)
    assert fake.pid
    pids = {"ours": [*parts["nova-compute"], *parts.get("helpers", ())], "fake": [fake.pid]}
    found: dict[str, list[Cost]] = {"ours": [], "fake": []}
    for _ in range(minutes):
        _, taken = usage.watch(pids, MINUTE)
        for who, costs in found.items():
            costs.append(Cost(taken[who], taken[who]))
    return found["ours"], found["fake"]


if __name__ == "__main__":
    main()
