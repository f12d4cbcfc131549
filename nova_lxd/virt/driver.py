"""LXDDriver: Nova's signatures, and nothing but the way to where the work is done."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import nova.conf
import os_resource_classes as orc
import os_vif
from nova import utils
from nova.compute import power_state, task_states
from nova.console import type as console_type
from nova.objects import fields
from nova.virt import driver, hardware
from os_brick.initiator import connector
from oslo_log import log as logging

from nova_lxd import conf, exception
from nova_lxd.virt import diagnostics, network
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt.ageing import Ageing
from nova_lxd.virt.configdrive import ConfigDrives
from nova_lxd.virt.console import ConsoleLogs
from nova_lxd.virt.container import Containers
from nova_lxd.virt.event import Events
from nova_lxd.virt.guest import Guests
from nova_lxd.virt.host import Capacity, Host, open_session
from nova_lxd.virt.idmap import IdRanges
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.interface import Interfaces
from nova_lxd.virt.lifecycle import Lifecycle
from nova_lxd.virt.migration import Migration
from nova_lxd.virt.model import HostFacts, InstanceState
from nova_lxd.virt.power import Power
from nova_lxd.virt.rescue import Rescue
from nova_lxd.virt.serial import SerialConsoles
from nova_lxd.virt.snapshot import Snapshots
from nova_lxd.virt.startup import Startup
from nova_lxd.virt.translation import (
    ATTACH_ERRORS,
    DETACH_ERRORS,
    PASSWORD_ERRORS,
    RESCUE_ERRORS,
    RESIZE_ERRORS,
    SNAPSHOT_ERRORS,
    SPAWN_ERRORS,
    translated,
)

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

conf.register_opts(CONF)

_POWER_STATES: dict[str, int] = {
    "running": power_state.RUNNING,
    "paused": power_state.PAUSED,
    "shutdown": power_state.SHUTDOWN,
    "crashed": power_state.CRASHED,
    "pending": power_state.NOSTATE,
}

_BUILT = (task_states.SPAWNING, task_states.REBUILD_SPAWNING)
"""Tasks in which Nova asks how a server is that it has just built.  An error would fail the build,
and after an unshelving the image is gone by then; the next sync of the power asks again."""

_TRAITS = ("CUSTOM_LXD",)


class LXDDriver(driver.ComputeDriver):  # type: ignore[misc]
    """Runs servers as LXD system containers."""

    capabilities: ClassVar[dict[str, bool]] = {
        **driver.ComputeDriver.capabilities,
        "has_imagecache": True,
        "supports_attach_interface": True,
        "supports_device_tagging": True,
        "supports_image_type_raw": True,
        "supports_tagged_attach_interface": True,
        "supports_trusted_certs": True,
    }

    def __init__(self, virtapi: Any) -> None:
        super().__init__(virtapi)
        self._session = open_session()
        self._host = Host(self._session)
        self._consoles = ConsoleLogs(self._session)
        self._events = Events(self._session, self.emit_event)
        self._serial = SerialConsoles(self._session)
        self._facts: HostFacts

    @translated()
    def init_host(self, host: str) -> None:
        self._facts = self._host.check()
        os_vif.initialize()
        network.start_helpers()
        self._make_services()
        self._serial.start()
        LOG.info(
            "LXD %s at %s, project %s, pool %s (%s)",
            self._facts.server_version,
            self._session.endpoint,
            self._session.project,
            self._facts.pool,
            self._facts.pool_driver,
        )

    def _make_services(self) -> None:
        session, facts = self._session, self._facts
        images = self._images = ImageCache(session, facts)
        images.discard_unfinished()
        containers = self._containers = Containers(session, facts)
        self._power = Power(session, containers, self._consoles)
        self._lifecycle = Lifecycle(
            session,
            facts,
            containers,
            images,
            IdRanges(session, facts.id_range),
            self._consoles,
            ConfigDrives(session, facts),
            self.virtapi,
        )
        self._interfaces = Interfaces(session, containers)
        self._migration = Migration(session, facts, containers, self._power)
        self._guests = Guests(session, containers)
        self._rescue = Rescue(session, facts, containers, images, self._power, self._guests)
        self._snapshots = Snapshots(session, facts, containers, images)
        self._startup = Startup(session, containers, self._lifecycle, self._migration)
        self._diagnostics = diagnostics.Diagnostics(session, containers)
        self._ageing = Ageing(session, images)

    def cleanup_host(self, host: str) -> None:
        self._events.stop()
        self._serial.stop()

    def register_event_listener(self, callback: Any) -> None:
        super().register_event_listener(callback)
        if callback:
            self._events.start()
        else:
            self._events.stop()

    @translated()
    def process_instances_at_startup(self, context: Any, instances: Any) -> Any:
        return self._startup.recover(context, instances)

    # -- the servers that there are

    @translated()
    def list_instances(self) -> list[str]:
        return list(instance_translator.servers(self._session.states()).values())

    @translated()
    def list_instance_uuids(self) -> list[str]:
        return list(instance_translator.servers(self._session.states()))

    @translated()
    def get_num_instances(self) -> int:
        return len(instance_translator.servers(self._session.states()))

    @translated()
    def instance_exists(self, instance: Any) -> bool:
        return self._containers.exists(instance.name)

    @translated()
    def get_info(self, instance: Any, use_cache: bool = True) -> Any:
        # Nova's power sync alone takes what was read before: it counts the servers first, and that
        # one request tells of them all.  What it would act on, LXD is asked again.
        recent = self._containers.recent(instance) if use_cache else None
        if recent and _power_state(recent) == instance.power_state:
            return hardware.InstanceInfo(state=instance.power_state)
        try:
            state = _power_state(self._containers.current(instance))
        except exception.NotFound:
            raise
        except exception.LXDDriverError:
            if instance.task_state not in _BUILT:
                raise
            state = power_state.NOSTATE
        return hardware.InstanceInfo(state=state)

    # -- the life of a server

    @translated(SPAWN_ERRORS)
    def spawn(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        injected_files: Any,
        admin_password: Any,
        allocations: Any,
        network_info: Any = None,
        block_device_info: Any = None,
        power_on: bool = True,
        accel_info: Any = None,
    ) -> None:
        self._lifecycle.spawn(
            context,
            instance,
            image_meta,
            network_info,
            block_device_info,
            injected_files,
            admin_password,
            power_on,
        )

    @translated(SPAWN_ERRORS)
    def rebuild(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        injected_files: Any,
        admin_password: Any,
        allocations: Any,
        bdms: Any,
        detach_block_devices: Any,
        attach_block_devices: Any,
        network_info: Any = None,
        evacuate: bool = False,
        block_device_info: Any = None,
        preserve_ephemeral: bool = False,
        accel_uuids: Any = None,
        reimage_boot_volume: bool = False,
    ) -> None:
        if not evacuate:
            self._lifecycle.check_rebuild(
                context, instance, image_meta, network_info, block_device_info, injected_files
            )
        raise NotImplementedError("Nova's own way from here on: destroy, and spawn")

    @translated()
    def destroy(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        destroy_disks: bool = True,
        destroy_secrets: bool = True,
    ) -> None:
        self._lifecycle.destroy(instance, network_info, disks=destroy_disks)

    @translated()
    def cleanup(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        destroy_disks: bool = True,
        migrate_data: Any = None,
        destroy_vifs: bool = True,
        destroy_secrets: bool = True,
    ) -> None:
        self._lifecycle.destroy(instance, network_info, disks=destroy_disks, vifs=destroy_vifs)

    @translated()
    def power_on(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        accel_info: Any = None,
        share_info: Any = None,
    ) -> None:
        self._power.on(instance, network_info)

    @translated()
    def power_off(self, instance: Any, timeout: int = 0, retry_interval: int = 0) -> None:
        self._power.off(instance, timeout, retry_interval)

    @translated()
    def reboot(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        reboot_type: str,
        block_device_info: Any = None,
        bad_volumes_callback: Any = None,
        accel_info: Any = None,
        share_info: Any = None,
    ) -> None:
        self._power.reboot(context, instance, network_info, hard=reboot_type == "HARD")

    @translated()
    def resume_state_on_host_boot(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        share_info: Any,
        block_device_info: Any = None,
    ) -> None:
        self._power.on(instance, network_info)

    @translated()
    def pause(self, instance: Any) -> None:
        self._power.pause(instance)

    @translated()
    def unpause(self, instance: Any) -> None:
        self._power.unpause(instance)

    @translated()
    def suspend(self, context: Any, instance: Any) -> None:
        self._power.pause(instance)

    @translated()
    def resume(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        share_info: Any = None,
    ) -> None:
        self._power.resume(instance, network_info)

    @translated(RESCUE_ERRORS)
    def rescue(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        image_meta: Any,
        rescue_password: Any,
        block_device_info: Any,
        share_info: Any,
    ) -> None:
        self._rescue.rescue(context, instance, network_info, image_meta, rescue_password)

    @translated()
    def unrescue(self, context: Any, instance: Any) -> None:
        self._rescue.unrescue(context, instance)

    @translated(SNAPSHOT_ERRORS)
    def snapshot(self, context: Any, instance: Any, image_id: str, update_task_state: Any) -> None:
        self._snapshots.take(context, instance, image_id, update_task_state)

    @translated()
    def cache_image(self, context: Any, image_id: str) -> bool:
        return self._images.prefetch(context, image_id)

    # -- another flavor

    @translated(RESIZE_ERRORS)
    def migrate_disk_and_power_off(
        self,
        context: Any,
        instance: Any,
        dest: str,
        flavor: Any,
        network_info: Any,
        block_device_info: Any = None,
        timeout: int = 0,
        retry_interval: int = 0,
    ) -> str:
        self._migration.prepare(instance, dest, flavor, network_info, timeout, retry_interval)
        return ""

    @translated()
    def finish_migration(
        self,
        context: Any,
        migration: Any,
        instance: Any,
        disk_info: Any,
        network_info: Any,
        image_meta: Any,
        resize_instance: bool,
        allocations: Any,
        block_device_info: Any = None,
        power_on: bool = True,
        share_info: Any = None,
    ) -> None:
        self._migration.finish(context, instance, network_info, image_meta, power_on)

    @translated()
    def confirm_migration(
        self, context: Any, migration: Any, instance: Any, network_info: Any
    ) -> None:
        self._migration.confirm(instance)

    @translated()
    def finish_revert_migration(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        migration: Any,
        block_device_info: Any = None,
        power_on: bool = True,
        share_info: Any = None,
    ) -> None:
        self._migration.revert(context, instance, network_info, power_on)

    def check_instance_shared_storage_local(self, context: Any, instance: Any) -> dict[str, str]:
        # The end of a resize on this host: Nova asks whether removing the new half of the server
        # would take the old one away as well, and it would.
        return {"host": CONF.host}

    def check_instance_shared_storage_remote(self, context: Any, data: dict[str, str]) -> bool:
        return bool(data["host"] == CONF.host)

    # -- a look inside

    @translated(PASSWORD_ERRORS)
    def set_admin_password(self, instance: Any, new_pass: str) -> None:
        self._guests.set_password(instance, new_pass)

    @translated()
    def get_diagnostics(self, instance: Any) -> dict[str, Any]:
        return self._diagnostics.read(instance)

    @translated()
    def get_instance_diagnostics(self, instance: Any) -> Any:
        return self._diagnostics.read_object(instance)

    @translated()
    def get_console_output(self, context: Any, instance: Any) -> str:
        current = functools.partial(self._containers.current, instance)
        return self._consoles.read(current, instance.uuid)

    @translated()
    def get_serial_console(self, context: Any, instance: Any) -> Any:
        current = functools.partial(self._containers.current, instance)
        return console_type.ConsoleSerial(*self._serial.open(current, instance.uuid))

    # -- ports

    @translated()
    def plug_vifs(self, instance: Any, network_info: Any) -> None:
        network.plug(instance, network_info)

    @translated()
    def unplug_vifs(self, instance: Any, network_info: Any) -> None:
        network.unplug(instance, network_info)

    @translated(ATTACH_ERRORS)
    def attach_interface(self, context: Any, instance: Any, image_meta: Any, vif: Any) -> None:
        self._interfaces.attach(context, instance, vif)

    @translated(DETACH_ERRORS)
    def detach_interface(self, context: Any, instance: Any, vif: Any) -> None:
        self._interfaces.detach(instance, vif)

    # -- the host

    def get_available_nodes(self, refresh: bool = False) -> list[str]:
        # CONF.host and not the kernel's host name: it must never change, and two services with an
        # LXD each can run on one machine.
        return [CONF.host]

    @translated()
    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        capacity = self._host.capacity()
        return {
            "vcpus": capacity.vcpus,
            "memory_mb": capacity.memory_mb,
            "local_gb": capacity.disk_gb,
            "vcpus_used": 0,
            "memory_mb_used": capacity.memory_mb_used,
            "local_gb_used": capacity.disk_gb_used,
            "disk_available_least": capacity.disk_gb - capacity.disk_gb_used,
            "hypervisor_type": fields.HVType.LXD,
            "hypervisor_version": self._host.version,
            "hypervisor_hostname": nodename,
            "cpu_info": capacity.cpu_info,
            "supported_instances": [
                (fields.Architecture.canonicalize(name), fields.HVType.LXD, fields.VMMode.EXE)
                for name in self._facts.architectures
            ],
            "numa_topology": None,
            # Nova shows the host's uptime from here alone.
            "stats": {"uptime": self.get_host_uptime()},
        }

    @translated()
    def update_provider_tree(
        self, provider_tree: Any, nodename: str, allocations: Any = None
    ) -> None:
        ratios = self._get_allocation_ratios(provider_tree.data(nodename).inventory)
        reserved_gb = self._get_reserved_host_disk_gb_from_config()
        inventory = _inventory(self._host.last_capacity(), ratios, reserved_gb)
        provider_tree.update_inventory(nodename, inventory)
        provider_tree.add_traits(nodename, *_TRAITS)

    def get_host_ip_addr(self) -> str:
        return str(CONF.my_ip)

    def get_host_uptime(self) -> str:
        return diagnostics.host_uptime()

    def get_host_cpu_stats(self) -> dict[str, int]:
        return diagnostics.host_cpu_stats()

    @translated()
    def manage_image_cache(self, context: Any, all_instances: Any) -> None:
        self._snapshots.drop_left()
        self._ageing.update(context, all_instances)

    def get_volume_connector(self, instance: Any) -> Any:
        return connector.get_connector_properties(
            utils.get_root_helper(),
            CONF.my_block_storage_ip,
            multipath=False,
            enforce_multipath=True,
            host=CONF.host,
        )


def _power_state(container: InstanceState) -> int:
    return _POWER_STATES[instance_translator.power(container.status)]


def _inventory(
    capacity: Capacity, ratios: dict[str, float], reserved_gb: int
) -> dict[str, dict[str, Any]]:
    """Offer Placement what the host has; a class of which there is none is left out."""
    totals = {
        orc.VCPU: (capacity.vcpus, CONF.reserved_host_cpus),
        orc.MEMORY_MB: (capacity.memory_mb, CONF.reserved_host_memory_mb),
        orc.DISK_GB: (capacity.disk_gb, reserved_gb),
    }
    return {
        name: {
            "total": total,
            "reserved": reserved,
            "min_unit": 1,
            "max_unit": total,
            "step_size": 1,
            "allocation_ratio": ratios[name],
        }
        for name, (total, reserved) in totals.items()
        if total
    }
