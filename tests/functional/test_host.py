"""What Nova and Placement learn of the host."""

from __future__ import annotations

import ovs.json
from nova.objects import fields

from tests.functional.base import ServerTestCase
from tests.functional.machine import POOL


def test_what_open_vswitch_says_of_its_ports_is_parsed_in_c():
    """os-vif reads the statistics of all ports of the host, every five seconds."""
    assert ovs.json.PARSER == ovs.json.PARSER_C


class HostTest(ServerTestCase):
    def test_hypervisor(self):
        (hypervisor,) = self.api.api_get("/os-hypervisors/detail").body["hypervisors"]
        assert hypervisor["hypervisor_type"] == fields.HVType.LXD
        assert hypervisor["hypervisor_hostname"] == "compute1"
        assert hypervisor["state"] == "up"
        version = self._machine.get("/1.0")["environment"]["server_version"]
        major, minor, patch = (int(number) for number in version.split("."))
        assert hypervisor["hypervisor_version"] == major * 1_000_000 + minor * 1000 + patch
        hypervisor = self.api.api_get(f"/os-hypervisors/{hypervisor['id']}").body["hypervisor"]
        assert "load average" in hypervisor["uptime"]

    def test_placement(self):
        provider = self._get_provider_uuid_by_host("compute1")
        inventory = self._get_provider_inventory(provider)
        assert inventory.keys() == {"VCPU", "MEMORY_MB", "DISK_GB"}
        space = self._machine.get(f"/1.0/storage-pools/{POOL}/resources")["space"]
        assert inventory["DISK_GB"]["total"] == space["total"] // 2**30
        resources = self._machine.get("/1.0/resources")
        assert inventory["VCPU"]["total"] == resources["cpu"]["total"]
        assert inventory["MEMORY_MB"]["total"] == resources["memory"]["total"] // 2**20
        traits = self._get_provider_traits(provider)
        assert "CUSTOM_LXD" in traits
        assert "COMPUTE_DEVICE_TAGGING" in traits
        assert "COMPUTE_IMAGE_TYPE_RAW" in traits
        assert "COMPUTE_TRUSTED_CERTS" in traits
        assert "COMPUTE_IMAGE_TYPE_QCOW2" not in traits

    def test_the_operators_ratios_survive_a_periodic_task(self):
        self.flags(cpu_allocation_ratio=3.0, reserved_host_memory_mb=777)
        self._run_periodics(raise_on_error=True)
        inventory = self._get_provider_inventory(self._get_provider_uuid_by_host("compute1"))
        assert inventory["VCPU"]["allocation_ratio"] == 3.0
        assert inventory["MEMORY_MB"]["reserved"] == 777

    def test_a_server_counts(self):
        server = self.boot(flavor=self.flavor(memory_mb=128, vcpus=1, disk=2))
        self._run_periodics(raise_on_error=True)
        held = self._get_allocations_by_server_uuid(server["id"])
        (allocation,) = held.values()
        assert allocation["resources"] == {"VCPU": 1, "MEMORY_MB": 128, "DISK_GB": 2}
        uuids = self.compute.manager.driver.list_instance_uuids()
        assert uuids == [server["id"]]
        assert self.compute.manager.driver.list_instances() == [self.name_of(server)]
