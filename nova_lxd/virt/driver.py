"""LXDDriver: Nova's signatures, and nothing but the way to where the work is done."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import nova.conf
import os_resource_classes as orc
import os_vif
from nova import exception as nova_exception
from nova import utils
from nova.compute import power_state
from nova.objects import fields
from nova.virt import driver, hardware
from os_brick.initiator import connector
from oslo_concurrency import processutils
from oslo_log import log as logging

from nova_lxd import conf, exception
from nova_lxd.virt import instance as instance_translator
from nova_lxd.virt import network
from nova_lxd.virt.console import ConsoleLogs
from nova_lxd.virt.host import Capacity, Host, open_session
from nova_lxd.virt.idmap import IdRanges
from nova_lxd.virt.imagecache import ImageCache
from nova_lxd.virt.lifecycle import Lifecycle
from nova_lxd.virt.model import HostFacts

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

conf.register_opts(CONF)

_POWER_STATES = {
    "running": power_state.RUNNING,
    "paused": power_state.PAUSED,
    "shutdown": power_state.SHUTDOWN,
    "crashed": power_state.CRASHED,
    "pending": power_state.NOSTATE,
}

_TRAITS = ("CUSTOM_LXD",)

Method = TypeVar("Method", bound=Callable[..., Any])
Translation = Callable[[Any, Any], Exception]


def _with_message(kind: Callable[..., Exception]) -> Translation:
    return lambda error, instance: kind(str(error))


def _with_reason(kind: Callable[..., Exception]) -> Translation:
    return lambda error, instance: kind(reason=str(error))


_NOVA_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    exception.ConfigurationError: _with_message(nova_exception.InvalidConfiguration),
    exception.LXDUnreachable: _with_message(nova_exception.HypervisorUnavailable),
    exception.NotFound: lambda error, instance: nova_exception.InstanceNotFound(
        instance_id=getattr(instance, "uuid", "unknown")
    ),
    exception.AlreadyExists: lambda error, instance: nova_exception.InstanceExists(
        name=getattr(instance, "name", "unknown")
    ),
    exception.IdRangeExhausted: _with_reason(nova_exception.ComputeResourcesUnavailable),
    exception.VifPlugFailed: _with_message(nova_exception.VirtualInterfacePlugException),
    exception.VifRefused: _with_message(nova_exception.VirtualInterfacePlugException),
    exception.DiskTooSmall: lambda error, instance: nova_exception.FlavorDiskSmallerThanImage(
        flavor_size=error.flavor_bytes, image_size=error.image_bytes
    ),
    exception.ImageRefused: lambda error, instance: nova_exception.ImageUnacceptable(
        image_id=error.image_id, reason=error.reason
    ),
    exception.Refused: _with_reason(nova_exception.InvalidInput),
    exception.LXDDriverError: _with_message(nova_exception.NovaException),
}
"""Our errors in Nova's words; the nearest ancestor in an error's family counts."""


def _abort(error: Any, instance: Any) -> Exception:
    abort: Exception = nova_exception.BuildAbortException(
        instance_uuid=instance.uuid, reason=str(error)
    )
    return abort


_SPAWN_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    # Nova takes InstanceNotFound out of spawn for a server that was deleted meanwhile.
    exception.NotFound: _with_message(nova_exception.NovaException),
    # Nova keeps the reason of VirtualInterfaceCreateException from the tenant.
    exception.VifPlugFailed: _abort,
    exception.VifRefused: _abort,
    # Something may be left here that nobody would remove once the server ran on another host; and
    # the tenant is to read why, not that every host was tried.
    exception.LXDUnreachable: _abort,
    exception.DeadlineExceeded: _abort,
}
"""What differs in spawn; an abort is an error that no other host is asked about."""


def _translated(
    special: dict[type[exception.LXDDriverError], Translation] | None = None,
) -> Callable[[Method], Method]:
    """Let a driver method raise Nova's errors where the layers below raise ours."""
    table = _NOVA_ERRORS | (special or {})

    def decorate(method: Method) -> Method:
        signature = inspect.signature(method)

        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except exception.LXDDriverError as error:
                instance = signature.bind(*args, **kwargs).arguments.get("instance")
                kind = next(kind for kind in type(error).__mro__ if kind in table)
                raise table[kind](error, instance) from error

        # Nova compares getfullargspec, which does not follow __wrapped__.
        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        return wrapper  # type: ignore[return-value]

    return decorate


class LXDDriver(driver.ComputeDriver):  # type: ignore[misc]
    """Runs servers as LXD system containers."""

    capabilities: ClassVar[dict[str, bool]] = {
        **driver.ComputeDriver.capabilities,
        "supports_image_type_raw": True,
    }

    def __init__(self, virtapi: Any) -> None:
        super().__init__(virtapi)
        self._session = open_session()
        self._host = Host(self._session)
        self._consoles = ConsoleLogs(self._session)
        self._facts: HostFacts
        self._lifecycle: Lifecycle

    @_translated()
    def init_host(self, host: str) -> None:
        self._facts = self._host.check()
        os_vif.initialize()
        network.start_helpers()
        images = ImageCache(self._session, self._facts)
        images.discard_unfinished()
        ids = IdRanges(self._session, self._facts.id_range)
        self._lifecycle = Lifecycle(
            self._session, self._facts, images, ids, self._consoles, self.virtapi
        )
        LOG.info(
            "LXD %s at %s, project %s, pool %s (%s)",
            self._facts.server_version,
            self._session.endpoint,
            self._session.project,
            self._facts.pool,
            self._facts.pool_driver,
        )

    # -- the servers that there are

    @_translated()
    def list_instances(self) -> list[str]:
        return [state.name for state in self._session.states() if state.uuid]

    @_translated()
    def list_instance_uuids(self) -> list[str]:
        return [state.uuid for state in self._session.states() if state.uuid]

    @_translated()
    def get_num_instances(self) -> int:
        return len([state for state in self._session.states() if state.uuid])

    @_translated()
    def instance_exists(self, instance: Any) -> bool:
        return self._lifecycle.exists(instance.name)

    @_translated()
    def get_info(self, instance: Any, use_cache: bool = True) -> Any:
        status = self._session.state(instance.name).status
        return hardware.InstanceInfo(state=_POWER_STATES[instance_translator.power(status)])

    # -- the life of a server

    @_translated(_SPAWN_ERRORS)
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
            power_on,
        )

    @_translated()
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

    @_translated()
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

    @_translated()
    def power_on(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        accel_info: Any = None,
        share_info: Any = None,
    ) -> None:
        self._lifecycle.power_on(instance, network_info)

    @_translated()
    def power_off(self, instance: Any, timeout: int = 0, retry_interval: int = 0) -> None:
        self._lifecycle.power_off(instance, timeout, retry_interval)

    @_translated()
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
        self._lifecycle.reboot(instance, network_info, hard=reboot_type == "HARD")

    @_translated()
    def resume_state_on_host_boot(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        share_info: Any,
        block_device_info: Any = None,
    ) -> None:
        self._lifecycle.power_on(instance, network_info)

    @_translated()
    def pause(self, instance: Any) -> None:
        self._lifecycle.pause(instance)

    @_translated()
    def unpause(self, instance: Any) -> None:
        self._lifecycle.unpause(instance)

    @_translated()
    def get_console_output(self, context: Any, instance: Any) -> str:
        return self._consoles.read(instance.name, instance.uuid)

    # -- ports

    @_translated()
    def plug_vifs(self, instance: Any, network_info: Any) -> None:
        network.plug(instance, network_info)

    @_translated()
    def unplug_vifs(self, instance: Any, network_info: Any) -> None:
        network.unplug(instance, network_info)

    # -- the host

    def get_available_nodes(self, refresh: bool = False) -> list[str]:
        # CONF.host and not the kernel's host name: it must never change, and two services with an
        # LXD each can run on one machine.
        return [CONF.host]

    @_translated()
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

    @_translated()
    def update_provider_tree(
        self, provider_tree: Any, nodename: str, allocations: Any = None
    ) -> None:
        ratios = self._get_allocation_ratios(provider_tree.data(nodename).inventory)
        reserved_gb = self._get_reserved_host_disk_gb_from_config()
        inventory = _inventory(self._host.capacity(), ratios, reserved_gb)
        provider_tree.update_inventory(nodename, inventory)
        provider_tree.add_traits(nodename, *_TRAITS)

    def get_host_ip_addr(self) -> str:
        return str(CONF.my_ip)

    def get_host_uptime(self) -> str:
        output, _ = processutils.execute("env", "LANG=C", "uptime")
        return str(output)

    def get_volume_connector(self, instance: Any) -> Any:
        return connector.get_connector_properties(
            utils.get_root_helper(),
            CONF.my_block_storage_ip,
            multipath=False,
            enforce_multipath=True,
            host=CONF.host,
        )


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
