"""A compute host for tests: the whole driver on a fake LXD, one server ordered."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import ClassVar
from unittest import mock

import nova.conf
from nova import exception as nova_exception
from nova import objects
from nova.compute import vm_states
from nova.virt import fake as nova_fake

from nova_lxd.virt.driver import LXDDriver
from nova_lxd.virt.session import Timeouts
from tests.fake_lxd import FakeLXD

from . import servers
from .ports import Ports

CONF = nova.conf.CONF
PROJECT = "nova"


class Glance:
    """An image that is made: what Glance and Nova are told of it.

    :ivar content: what was uploaded
    :ivar known: whether Glance still has it
    """

    images: ClassVar[dict[str, Glance]] = {}

    def __init__(self) -> None:
        self.id = str(uuid.uuid4())
        self.metadata = {"id": self.id, "name": "web-backup"}
        self.content = b""
        self.known = True
        self.said: list[str] = []
        self.images[self.id] = self

    def update_task_state(self, task_state, expected_state=None):
        self.said.append(task_state)


class GlanceAPI:
    """What the driver asks of Nova's ``glance.API``; tests build servers in many threads."""

    def download(self, context, image_id, trusted_certs=None):
        """Give the content in two pieces; an image that was not made here is the tiny one."""
        image = Glance.images.get(image_id)
        content = image.content if image else servers.ROOTFS
        return iter([content[:1000], content[1000:]])

    def get(self, context, image_id):
        return Glance.images[image_id].metadata

    def update(self, context, image_id, metadata, data, purge_props):
        image = Glance.images[image_id]
        content = data.read()
        image.metadata |= metadata
        image.content = content

    def delete(self, context, image_id):
        image = Glance.images[image_id]
        if not image.known:
            raise nova_exception.ImageNotFound(image_id=image_id)
        image.known = False


class Host:
    """A compute host: our driver on a fake LXD of its own."""

    def __init__(self, folder, ports: Ports, virtapi=None) -> None:
        self.lxd = FakeLXD(folder)
        self.lxd.start()
        self.ports = ports
        CONF.set_override("endpoint", str(self.lxd.socket), group="lxd")
        self.driver = LXDDriver(virtapi or nova_fake.FakeVirtAPI())
        self.driver.init_host("host")
        self.order = servers.order()
        self._session = self.driver._session
        self._patience = self._session.timeouts

    def spawn(self) -> None:
        order = self.order
        self.driver.spawn(
            order.context, order.instance, order.image_meta, [], "", {}, order.network_info
        )

    def destroy(self) -> None:
        order = self.order
        self.driver.destroy(order.context, order.instance, order.network_info)

    def power_on(self) -> None:
        order = self.order
        self.driver.power_on(order.context, order.instance, order.network_info)

    def power_off(self) -> None:
        self.driver.power_off(self.order.instance)

    def shut_down(self) -> None:
        self.driver.power_off(self.order.instance, timeout=1, retry_interval=1)

    def reboot(self, kind: str = "HARD") -> None:
        order = self.order
        self.driver.reboot(order.context, order.instance, order.network_info, kind)

    def pause(self) -> None:
        self.driver.pause(self.order.instance)

    def unpause(self) -> None:
        self.driver.unpause(self.order.instance)

    def rescue(self, image_meta=None) -> None:
        order = self.order
        image_meta = image_meta or order.image_meta
        shares = objects.ShareMappingList()
        self.driver.rescue(
            order.context, order.instance, order.network_info, image_meta, "", None, shares
        )

    def rescued(self) -> None:
        """Stop the server, put it into rescue and say so, as Nova does."""
        self.power_off()
        self.rescue()
        self.order.instance.vm_state = vm_states.RESCUED

    def unrescue(self) -> None:
        self.driver.unrescue(self.order.context, self.order.instance)

    def resize(self) -> None:
        self.prepare()
        self.finish()

    def prepare(self) -> None:
        """Do the first half of a resize."""
        order = self.order
        self.driver.migrate_disk_and_power_off(
            order.context, order.instance, CONF.my_ip, order.instance.flavor, order.network_info
        )

    def finish(self) -> None:
        """Do the second half of a resize."""
        order = self.order
        order.instance.old_flavor = order.instance.flavor
        args = (order.instance, "", order.network_info, order.image_meta, True, {})
        self.driver.finish_migration(order.context, None, *args)

    def confirm(self) -> None:
        order = self.order
        self.driver.confirm_migration(order.context, None, order.instance, order.network_info)

    def revert(self) -> None:
        order = self.order
        self.driver.finish_revert_migration(order.context, order.instance, order.network_info, None)

    def snapshot(self) -> None:
        """Make an image of the server; ``glance`` is what Glance has of it."""
        order = self.order
        self.glance = Glance()
        self.driver.snapshot(
            order.context, order.instance, self.glance.id, self.glance.update_task_state
        )

    def manage_images(self, *instances) -> None:
        """Let the driver look at its images, as Nova does from time to time."""
        found = objects.InstanceList(objects=list(instances))
        bdms = "nova.objects.BlockDeviceMappingList.bdms_by_instance_uuid"
        with mock.patch(bdms, return_value={}):
            self.driver.manage_image_cache(self.order.context, found)

    def stored(self) -> dict[str, str]:
        """Return the fingerprints of the images that LXD knows by a Glance id, by that id."""
        aliases = self.lxd.state.projects[PROJECT].aliases
        return {name: alias.target for name, alias in aliases.items()}

    def forget_image(self) -> None:
        project = self.lxd.state.projects[PROJECT]
        project.images.clear()
        project.aliases.clear()

    def power_state(self) -> int:
        return self.driver.get_info(self.order.instance, use_cache=False).state

    def close(self) -> None:
        """End the fake LXD."""
        self.lxd.__exit__(None, None, None)

    def be_impatient(self) -> None:
        """Wait for LXD a second at most."""
        self._session.timeouts = Timeouts(1, 1, 1)

    def recover(self) -> None:
        """End the faults, wait for what LXD still does, and be patient again."""
        self._session.timeouts = self._patience
        self.lxd.faults.clear()
        deadline = time.monotonic() + 30
        while self.lxd.state.operations.running():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def snapshot_remains(self) -> list[str]:
        """Name what of a snapshot is left in LXD."""
        return self.snapshots() + [thing for thing in self.remains() if "image" in thing]

    def rescue_remains(self) -> list[str]:
        """Name what of a rescue is left, and what the server's own container lacks."""
        instances = self.lxd.state.projects[PROJECT].instances
        left = [f"instance {name}" for name in instances if name != self.order.name]
        has = {name for name, device in instances[self.order.name].devices.items()}
        wanted = {f"tap{port[:11]}" for port in self.order.port_ids}
        return left + [f"the server without its NIC {name}" for name in wanted - has]

    def snapshots(self) -> list[str]:
        """Name the server's snapshots."""
        instance = self.lxd.state.projects[PROJECT].instances[self.order.name]
        return [f"snapshot {name}" for name in instance.snapshots]

    def remains(self, *, images: bool = True) -> list[str]:
        """Name what is left of the server."""
        state = self.lxd.state
        project = state.projects[PROJECT]
        named = {alias.target for alias in project.aliases.values()}
        left = [f"instance {name}" for name in project.instances]
        left += [f"profile {name}" for name in project.profiles if name != "default"]
        if images:
            left += [f"nameless image {image}" for image in project.images if image not in named]
        left += [f"port {port}" for port in self.order.port_ids if port in self.ports.plugged]
        return left


def attempt(action: Callable[[], None]) -> Exception | None:
    try:
        action()
    except Exception as error:  # noqa: BLE001 -- its type is what is tested
        return error
    return None


def check_destroy_at_last(host: Host) -> list[str]:
    """Destroy the server on a host that is well again; say what is wrong after that."""
    error = attempt(host.destroy)
    if error:
        return [f"destroy failed on a sound host: {error!r}"]
    return [f"destroy left {thing}" for thing in host.remains(images=False)]


def check_images(host: Host) -> list[str]:
    """An image belongs to no server: what LXD was left with goes when the service starts."""
    if host.remains():
        host.driver.init_host("host")
    return [f"a restart of the service left {thing}" for thing in host.remains()]
