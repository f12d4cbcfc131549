"""Nova's own generic driver suite, for our driver on the fake and on a real LXD."""

from __future__ import annotations

import contextlib
import gzip

import fixtures
import nova.conf
import pytest
from nova import objects
from nova.image import glance
from nova.network import model as network_model
from nova.tests import fixtures as nova_fixtures
from nova.tests.unit import utils as test_utils
from nova.tests.unit.virt import test_virt_drivers

from nova_lxd import conf

from .lxd_contract import guests
from .ports import Ports
from .pytest_friendly import PytestFriendly

conf.register_opts(nova.conf.CONF)

NOT_OFFERED = {
    # Nova's test -> what this release of the driver does not offer
    "test_attach_detach_different_power_states": "attach_volume",
    "test_attach_detach_volume": "attach_volume",
    "test_block_stats": "block_stats",
    "test_get_device_name_for_instance": "get_device_name_for_instance",
    "test_get_instance_disk_info": "get_instance_disk_info",
    "test_get_mks_console": "get_mks_console",
    "test_get_spice_console": "get_spice_console",
    "test_get_vnc_console": "get_vnc_console",
    "test_host_power_action_reboot": "host_power_action",
    "test_host_power_action_shutdown": "host_power_action",
    "test_host_power_action_startup": "host_power_action",
    "test_live_migration_abort": "live_migration_abort",
    "test_live_migration_force_complete": "live_migration_force_complete",
    "test_poll_rebooting_instances": "poll_rebooting_instances",
    "test_restore_running": "restore",
    "test_restore_soft_deleted": "soft_delete",
    "test_set_host_enabled": "set_host_enabled",
    "test_soft_delete": "soft_delete",
    "test_swap_volume": "attach_volume",
    "test_trigger_crash_dump": "trigger_crash_dump",
}


class DriverSuite(PytestFriendly, test_virt_drivers._VirtDriverTestCase):
    """Subclasses give ``start_lxd``, which says where LXD listens and which project to use."""

    driver_module = "nova.virt.lxd.LXDDriver"
    port_id = "51a9642b-1414-4bd6-9a92-1320ddc55a63"

    def start_lxd(self) -> tuple[str, str]:
        """Return the socket's path and the LXD project."""
        raise NotImplementedError

    def make_ports(self) -> Ports:
        """Return what stands in for os-vif."""
        return Ports()

    def _setup_fakelibvirt(self):
        # Nova's suite calls this between its own set-up and the making of the driver.
        self.flags(instances_path=self.useFixture(fixtures.TempDir()).path)
        self.useFixture(nova_fixtures.OSBrickFixture())
        stack = self.enterContext(contextlib.ExitStack())
        self.ports = stack.enter_context(self.make_ports().installed())
        endpoint, self.lxd_project = self.start_lxd()
        self.flags(endpoint=endpoint, project=self.lxd_project, pool="default", group="lxd")
        self.flags(request_timeout=30, operation_timeout=60, image_timeout=120, group="lxd")

    def _teardown_fakelibvirt(self):
        """Nothing of libvirt was put in place."""

    def setUp(self):
        super().setUp()
        self.connection.init_host("myhostname")
        self.addCleanup(self.connection.cleanup_host, "myhostname")
        self.addCleanup(self._check_what_is_offered)

    def _get_running_instance(self, obj=True):
        flavor = test_utils.get_test_flavor(
            self.ctxt,
            {
                "name": "tiny", "flavorid": "tiny", "vcpus": 1, "memory_mb": 64, "root_gb": 1,
                "ephemeral_gb": 0, "swap": 0,
            },
        )  # fmt: skip
        instance = test_utils.get_test_instance(self.ctxt, flavor, obj=obj)
        content = gzip.compress(guests.rootfs(deaf=False), 1)
        # Nova's double of Glance gives nothing to whoever wants a stream.
        download = fixtures.MockPatchObject(glance.API, "download", return_value=[content])
        self.useFixture(download)
        self.image_service.images[instance.image_ref] |= {
            "container_format": "bare",
            "disk_format": "raw",
            "size": len(content),
            "properties": {},
        }
        image_meta = test_utils.get_test_image_object(None, instance)
        network_info = self._network_info()
        self.connection.spawn(
            self.ctxt, instance, image_meta, [], "herp", {}, network_info=network_info
        )
        return instance, network_info

    def _network_info(self):
        network_info = test_utils.get_test_network_info()
        for vif in network_info:
            vif["id"] = self.port_id
            vif["devname"] = f"tap{self.port_id[:11]}"
            vif["details"] = {network_model.VIF_DETAILS_OVS_HYBRID_PLUG: True}
            vif["network"]["meta"] = {"mtu": 1450}
        return network_info

    def _check_what_is_offered(self):
        """Nova's decorator swallows NotImplementedError: every gap must be one we know."""
        missing = [
            line.split("does not implement ")[1].split()[0]
            for line in self.stdlog.logger.output.splitlines()
            if "does not implement " in line
        ]
        known = NOT_OFFERED.get(self._testMethodName)
        assert ([known] if known else []) == missing

    @test_virt_drivers.catch_notimplementederror
    def test_unrescue_rescued_instance(self):
        # Nova's takes os.unlink away from everybody, also from the image's download.
        instance, network_info = self._get_running_instance()
        image_meta = objects.ImageMeta.from_dict({})
        shares = objects.ShareMappingList()
        self.connection.rescue(self.ctxt, instance, network_info, image_meta, "", None, shares)
        self.connection.unrescue(self.ctxt, instance)

    @test_virt_drivers.catch_notimplementederror
    def test_migrate_disk_and_power_off(self):
        # Nova's names another host.
        instance, network_info = self._get_running_instance()
        self.connection.migrate_disk_and_power_off(
            self.ctxt, instance, nova.conf.CONF.my_ip, instance.flavor, network_info
        )

    @test_virt_drivers.catch_notimplementederror
    def test_live_migration_force_complete(self):
        # Nova's looks into libvirt's driver.
        self.connection.live_migration_force_complete(None)

    def test_live_migration(self):
        """Containers do not migrate live."""
        with pytest.raises(NotImplementedError):
            self.connection.live_migration(self.ctxt, None, "otherhost", None, None)

    def test_spawn_and_destroy_leave_nothing(self):
        instance, network_info = self._get_running_instance()
        assert {self.port_id} == self.ports.plugged
        assert [instance.uuid] == self.connection.list_instance_uuids()
        self.connection.destroy(self.ctxt, instance, network_info)
        assert self.connection.list_instances() == []
        assert set() == self.ports.plugged

    def test_power_states(self):
        instance, network_info = self._get_running_instance()
        states = objects.fields.InstancePowerState

        def state():
            return states.from_index(self.connection.get_info(instance, use_cache=False).state)

        assert state() == "running"
        self.connection.pause(instance)
        assert state() == "paused"
        self.connection.unpause(instance)
        self.connection.power_off(instance, 10, 2)
        assert state() == "shutdown"
        self.connection.power_on(self.ctxt, instance, network_info)
        self.connection.reboot(self.ctxt, instance, network_info, "HARD")
        assert state() == "running"
