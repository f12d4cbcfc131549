"""What a port adds to a server: the driver against the raw LXD API and os-vif on the same switch.

Run as root from the repository root with the cloud's virtual environment::

    eval "$(python3 aio env)"; python benchmarks/ports.py [-n 30] [--wiring hybrid|native]

It starts a LXD and an Open vSwitch of its own and removes them.  Two containers go through the same
round, one by the driver's methods and one by a bare client's requests and calls of os-vif, each
after the other's end; the two take turns.  Both use the same privileged helpers.  The bare client
does not make its ports safe (IPv6 of the host), nor TCP work on this switch's datapath (checksums).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nova import context as nova_context
from nova.network import model as network_model

from benchmarks import contest as contests
from benchmarks import wires as wirings
from benchmarks.contest import PROJECT, Contest, Step
from benchmarks.stats import Row, table
from benchmarks.wires import WIRINGS, Wires

WARM_UPS = 5
TARGET = 1.15
RAW = "raw"


def main() -> None:
    """Run the benchmark and write its results."""
    results = Path(__file__).parent / "results" / "ports.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=30, help="counted rounds")
    parser.add_argument("--wiring", choices=WIRINGS, help="only this one")
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    with wirings.wires() as wires, contests.contest() as contest:
        chosen = [options.wiring] if options.wiring else WIRINGS
        rows = _measure(contest, wires, chosen, options.n)
    print(table(rows))
    contests.write(rows, options.output)


def _measure(contest: Contest, wires: Wires, chosen: Sequence[str], rounds: int) -> list[Row]:
    def steps(number: int) -> Iterator[Step]:
        for wiring in chosen:
            yield from _round(contest, wires, wiring, number)

    return contests.duel(steps, "raw LXD + os-vif", TARGET, rounds=rounds, warm_ups=WARM_UPS)


def _round(contest: Contest, wires: Wires, wiring: str, number: int) -> Iterator[Step]:
    driver, context = contest.driver, nova_context.get_admin_context()
    server, meta = contests.server(number), contests.image_meta()
    first, second, raw_first, raw_second = (
        wires.port(wiring, len(WIRINGS) * 4 * number + 4 * WIRINGS.index(wiring) + index)
        for index in range(4)
    )
    ports = network_model.NetworkInfo([first])
    yield Step(
        f"spawn, {wiring}",
        lambda: contests.spawn(driver, server, first),
        lambda: _raw_spawn(contest, server, raw_first),
    )
    yield Step(
        f"attach, {wiring}",
        lambda: driver.attach_interface(context, server, meta, second),
        lambda: _raw_attach(contest, server, raw_second),
    )
    yield Step(
        f"detach, {wiring}",
        lambda: driver.detach_interface(context, server, second),
        lambda: _raw_detach(contest, server, raw_second),
    )
    yield Step(
        f"destroy, {wiring}",
        lambda: driver.destroy(context, server, ports),
        lambda: _raw_destroy(contest, server, raw_first),
    )


def _raw_spawn(contest: Contest, server: Any, vif: network_model.VIF) -> None:
    wirings.raw_plug(server, vif)
    contests.raw_create(contest, RAW, {vif["devname"]: wirings.nic(vif)})
    contests.raw_state(contest, RAW, "start")


def _raw_attach(contest: Contest, server: Any, vif: network_model.VIF) -> None:
    wirings.raw_plug(server, vif)
    body = {"devices": {vif["devname"]: wirings.nic(vif, "eth1")}}
    contest.client.api.instances[RAW].patch(json=body, params=PROJECT)


def _raw_detach(contest: Contest, server: Any, vif: network_model.VIF) -> None:
    """Take the NIC out of the whole, since LXD's PATCH can only add."""
    instance = contest.client.api.instances[RAW]
    body = instance.get(params=PROJECT).json()["metadata"]
    del body["devices"][vif["devname"]]
    contests.finish(contest.client, instance.put(json=body, params=PROJECT))
    wirings.raw_unplug(server, vif)


def _raw_destroy(contest: Contest, server: Any, vif: network_model.VIF) -> None:
    contests.raw_state(contest, RAW, "stop", force=True)
    contests.raw_delete(contest, RAW)
    wirings.raw_unplug(server, vif)


if __name__ == "__main__":
    main()
