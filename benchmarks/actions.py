"""Each action of the driver against the LXD calls that it needs: same image, pool, limits, no NIC.

Run as root from the repository root with the cloud's virtual environment::

    eval "$(python3 aio env)"; python benchmarks/actions.py [-n 30] [--output FILE]

It starts a LXD of its own and removes it.  Two containers go through the same round of actions,
one by the driver's methods and one by a bare client's requests; the two take turns, and what only
brings them where an action begins is not timed.  Without NICs os-vif has no part in it.  The ratio
is the median of the rounds' ratios.

The bare client does what Nova's words need of anybody, and nothing more.  A console's log is gone
once it was read, and reads otherwise when the guest has stopped: so it asks for the state too, and
keeps what it reads.  A rescue container can have the server's NICs only when the server's own has
none (LXD refuses a MAC address twice): so it changes that one, too, when a rescue begins and ends.
A resize can be taken back, so it takes a snapshot first, and drops it when that was done; and
what a server uses does not tell which NIC is which port, so diagnostics ask for its devices, too.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nova.conf
from nova import context as nova_context

from benchmarks import contest as contests
from benchmarks.contest import (
    PROJECT,
    RAW,
    Contest,
    Step,
    raw_create,
    raw_delete,
    raw_destroy,
    raw_spawn,
    raw_state,
)
from benchmarks.stats import Row, table

CONF = nova.conf.CONF
WARM_UPS = 3
TARGET = 1.2
PATIENCE = 20
_SNAPSHOT = "resize"
_SIGPWR = 1 << 29
"""The bit of LXD's shutdown signal in a process's mask of signals that it catches."""


def main() -> None:
    """Run the benchmark and write its results."""
    results = Path(__file__).parent / "results" / "actions.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=30, help="counted rounds")
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    with contests.contest() as contest:
        rows = _measure(contest, options.n)
    print(table(rows))
    contests.write(rows, options.output)


def _measure(contest: Contest, rounds: int) -> list[Row]:
    def steps(number: int) -> Iterator[Step]:
        return _round(contest, contests.server(number))

    return contests.duel(steps, "raw LXD", TARGET, rounds=rounds, warm_ups=WARM_UPS)


def _round(contest: Contest, server: Any) -> Iterator[Step]:
    yield Step("", lambda: contests.spawn(contest.driver, server), lambda: raw_spawn(contest))
    yield from _looks(contest, server)
    yield from _power(contest, server)
    yield from _rescue(contest, server)
    yield from _resize(contest, server)
    yield from _ends(contest, server)


def _looks(contest: Contest, server: Any) -> Iterator[Step]:
    driver, instance = contest.driver, contest.client.api.instances[RAW]
    context = nova_context.get_admin_context()
    guest = contest.client.instances.get(RAW)
    log = Path(CONF.instances_path).with_name("raw.log")

    def raw_console() -> None:
        instance.get(params=PROJECT)
        with log.open("ab") as file:
            file.write(instance.console.get(params=PROJECT, is_api=False).content)

    yield Step("get_info", lambda: driver.get_info(server), lambda: instance.get(params=PROJECT))
    yield Step(
        "diagnostics",
        lambda: driver.get_diagnostics(server),
        lambda: (instance.get(params=PROJECT), instance.state.get(params=PROJECT)),
    )
    yield Step(
        "console output",
        lambda: driver.get_console_output(context, server),
        raw_console,
    )
    yield Step(
        "set password",
        lambda: driver.set_admin_password(server, "secret"),
        lambda: guest.execute(["chpasswd"], stdin_payload="root:secret\n"),
        lambda: _both_ready(contest, server),
    )


def _power(contest: Contest, server: Any) -> Iterator[Step]:
    driver, context = contest.driver, nova_context.get_admin_context()

    def raw(action: str, **more: Any) -> Callable[[], None]:
        return lambda: raw_state(contest, RAW, action, **more)

    def raw_reboot(**more: Any) -> None:
        raw_state(contest, RAW, "stop", **more)
        raw_state(contest, RAW, "start")

    def on() -> None:
        driver.power_on(context, server, None)

    ready = functools.partial(_both_ready, contest, server)
    yield Step("pause", lambda: driver.pause(server), raw("freeze"))
    yield Step("unpause", lambda: driver.unpause(server), raw("unfreeze"))
    yield Step("suspend", lambda: driver.suspend(context, server), raw("freeze"))
    yield Step("resume", lambda: driver.resume(context, server, None), raw("unfreeze"))
    yield Step(
        "soft reboot",
        lambda: driver.reboot(context, server, None, "SOFT"),
        lambda: raw_reboot(timeout=PATIENCE),
        ready,
    )
    yield Step(
        "hard reboot",
        lambda: driver.reboot(context, server, None, "HARD"),
        lambda: raw_reboot(force=True),
    )
    yield Step(
        "stop, clean",
        lambda: driver.power_off(server, PATIENCE, 10),
        raw("stop", timeout=PATIENCE),
        ready,
    )
    yield Step("start", on, raw("start"))
    yield Step("stop, forced", lambda: driver.power_off(server), raw("stop", force=True))
    yield Step("", on, raw("start"))


def _rescue(contest: Contest, server: Any) -> Iterator[Step]:
    driver, context = contest.driver, nova_context.get_admin_context()
    folder = Path(CONF.lxd.endpoint).parent
    root = {
        "type": "disk",
        "path": "/mnt/rescued",
        "source": f"{folder}/storage-pools/default/containers/nova_{RAW}/rootfs",
    }
    twin = f"{RAW}-rescue"

    def raw_lend(role: str) -> None:
        body = contest.client.api.instances[RAW].get(params=PROJECT).json()["metadata"]
        _put(contest, body | {"config": body["config"] | {"user.role": role}})

    def raw_rescue() -> None:
        raw_state(contest, RAW, "stop", force=True)
        raw_lend("rescued")
        raw_create(contest, twin, {"rescued": root})
        raw_state(contest, twin, "start")

    def raw_unrescue() -> None:
        raw_state(contest, twin, "stop", force=True)
        raw_delete(contest, twin)
        raw_lend("")
        raw_state(contest, RAW, "start")

    yield Step(
        "rescue",
        lambda: driver.rescue(context, server, None, contests.image_meta(), "", None, None),
        raw_rescue,
    )
    yield Step("unrescue", lambda: driver.unrescue(context, server), raw_unrescue)


def _resize(contest: Contest, server: Any) -> Iterator[Step]:
    driver, context = contest.driver, nova_context.get_admin_context()
    small, large = server.flavor, server.flavor.obj_clone()
    large.memory_mb = 80

    def ours() -> None:
        driver.migrate_disk_and_power_off(context, server, CONF.my_ip, large, None)
        server.old_flavor, server.flavor = small, large
        meta = contests.image_meta()
        driver.finish_migration(context, None, server, "", None, meta, True, {})

    def confirm() -> None:
        driver.confirm_migration(context, None, server, None)

    def revert() -> None:
        server.flavor = small
        driver.finish_revert_migration(context, server, None, None)

    yield Step("resize", ours, lambda: _raw_resize(contest, "80MiB"))
    yield Step("confirm", confirm, lambda: _raw_confirm(contest))
    server.flavor = small
    yield Step("", ours, lambda: _raw_resize(contest, "96MiB"))
    yield Step("revert", revert, lambda: _raw_revert(contest))


def _raw_snapshot(contest: Contest) -> None:
    body = {"name": _SNAPSHOT, "stateful": False}
    snapshots = contest.client.api.instances[RAW].snapshots
    contests.finish(contest.client, snapshots.post(json=body, params=PROJECT))


def _raw_resize(contest: Contest, memory: str) -> None:
    raw_state(contest, RAW, "stop", force=True)
    _raw_snapshot(contest)
    body = contest.client.api.instances[RAW].get(params=PROJECT).json()["metadata"]
    _put(contest, body | {"config": body["config"] | {"limits.memory": memory}})
    raw_state(contest, RAW, "start")


def _raw_confirm(contest: Contest) -> None:
    snapshot = contest.client.api.instances[RAW].snapshots[_SNAPSHOT]
    contests.finish(contest.client, snapshot.delete(params=PROJECT))


def _raw_revert(contest: Contest) -> None:
    raw_state(contest, RAW, "stop", force=True)
    _put(contest, {"restore": _SNAPSHOT, "stateful": False})
    _raw_confirm(contest)
    raw_state(contest, RAW, "start")


def _ends(contest: Contest, server: Any) -> Iterator[Step]:
    """Yield what Nova makes of a rebuild, since the driver leaves it to Nova, and the end."""
    driver = contest.driver

    def rebuild() -> None:
        driver.destroy(None, server, None)
        contests.spawn(driver, server)

    def raw_rebuild() -> None:
        raw_destroy(contest)
        raw_spawn(contest)

    yield Step("rebuild", rebuild, raw_rebuild)
    yield Step("destroy", lambda: driver.destroy(None, server, None), lambda: raw_destroy(contest))


def _put(contest: Contest, body: dict[str, Any]) -> None:
    instance = contest.client.api.instances[RAW]
    contests.finish(contest.client, instance.put(json=body, params=PROJECT))


def _both_ready(contest: Contest, server: Any) -> None:
    """Wait until both guests have come far enough to hear that they are to stop."""
    _wait_ready(contest, server.name)
    _wait_ready(contest, RAW)


def _wait_ready(contest: Contest, name: str) -> None:
    """Wait until the guest's first process catches the signal that asks it to stop."""
    state = contest.client.api.instances[name].state.get(params=PROJECT).json()["metadata"]
    status = Path(f"/proc/{state['pid']}/status")
    deadline = time.monotonic() + PATIENCE
    while not int(_field(status, "SigCgt"), 16) & _SIGPWR:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} has not come up in {PATIENCE} s")
        time.sleep(0.01)


def _field(file: Path, name: str) -> str:
    lines = file.read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
