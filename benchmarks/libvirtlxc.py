"""Nova's own libvirt driver with libvirt-lxc, called as Nova calls it."""

from __future__ import annotations

import contextlib
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nova.privsep
from nova import context as nova_context
from nova import objects
from nova.network import model as network_model

from benchmarks import contest as contests
from benchmarks.libvirtd import Libvirtd

_IMAGE_SIZE = "16m"  # Nova grows each server's copy to the flavor's root disk
_UNSET = (
    "architecture",
    "default_ephemeral_device",
    "default_swap_device",
    "ephemeral_key_uuid",
    "key_data",
    "migration_context",
    "numa_topology",
    "os_type",
    "resources",
    "root_device_name",
    "vcpu_model",
    "vm_mode",
)
_OPTIONS = {"virt_type": "lxc", "images_type": "raw"}


@contextlib.contextmanager
def libvirt_lxc(daemon: Libvirtd, rootfs: Path) -> Iterator[Any]:
    """Give Nova's driver, with the image in its cache.

    Its privileged functions run in this process. Nova's conductor costs it nothing: what it would
    save and ask there is left out.

    :param rootfs: folder with what the image holds
    """
    from nova.virt.libvirt import driver as libvirt_driver
    from nova.virt.libvirt import imagecache

    # The flood of warnings at every server would be part of what is measured.
    logging.getLogger("nova.virt.libvirt").setLevel(logging.ERROR)
    contests.CONF.set_override("instances_path", str(daemon.folder / "instances"))
    options = {**_OPTIONS, "connection_uri": daemon.uri("lxc")}
    for name, value in options.items():
        contests.CONF.set_override(name, value, "libvirt")
    base = Path(contests.CONF.instances_path, contests.CONF.image_cache.subdirectory_name)
    base.mkdir(parents=True)
    image = base / imagecache.get_cache_fname(contests.IMAGE_ID)
    mkfs = ["mkfs.ext4", "-q", "-F", "-d", str(rootfs), str(image), _IMAGE_SIZE]
    subprocess.run(mkfs, check=True, stdout=subprocess.DEVNULL)
    nova.privsep.sys_admin_pctxt.set_client_mode(False)
    driver = libvirt_driver.LibvirtDriver(mock.MagicMock())
    with (
        mock.patch.object(driver, "_set_host_enabled"),
        mock.patch.object(driver, "_build_device_metadata", return_value=None),
        mock.patch.object(driver, "_register_undefined_instance_details"),
        mock.patch.object(objects.Instance, "save"),
    ):
        driver.init_host("benchmark")
        try:
            yield driver
        finally:
            driver.cleanup_host("benchmark")


def server(number: int) -> objects.Instance:
    """Order the same server as from the other drivers, with what only this driver asks for."""
    instance = contests.server(number)
    for name in _UNSET:
        setattr(instance, name, None)
    flavor = instance.flavor
    flavor.id, flavor.flavorid, flavor.rxtx_factor, flavor.vcpu_weight = 1, "bench", 1.0, 0
    for name in ("ephemeral_gb", "memory_mb", "root_gb", "vcpus"):
        setattr(instance, name, getattr(flavor, name))
    instance.display_name = instance.hostname = "bench"
    instance.kernel_id = instance.ramdisk_id = ""
    instance.host = instance.node = "benchmark"
    instance.metadata = {}
    instance.pci_devices = objects.PciDeviceList(objects=[])
    instance.pci_requests = objects.InstancePCIRequests(requests=[])
    instance.keypairs = objects.KeyPairList(objects=[])
    return instance


def spawn(driver: Any, instance: objects.Instance) -> None:
    """Build a server without ports; it runs when this returns."""
    context = nova_context.get_admin_context()
    image = contests.image_meta()
    driver.spawn(context, instance, image, [], "", {}, network_model.NetworkInfo(), {})


def destroy(driver: Any, instance: objects.Instance) -> None:
    """Stop and remove a server with its disk."""
    context = nova_context.get_admin_context()
    driver.destroy(context, instance, network_model.NetworkInfo(), {})
