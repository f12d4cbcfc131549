"""A server's life, through Nova's API, as a real container."""

from __future__ import annotations

from aio.run import run
from tests.functional.base import ServerTestCase, wait_for


class LifecycleTest(ServerTestCase):
    def test_a_server_becomes_a_container(self):
        server = self.boot(flavor=self.flavor(memory_mb=96, vcpus=2, disk=2))
        self.assert_clean()

        instance = self.lxd_instance(server)
        assert instance["status"] == "Running"
        assert instance["type"] == "container"
        (profile,) = instance["profiles"]
        assert profile.startswith("flavor-")
        config = instance["expanded_config"]
        assert config["limits.memory"] == "96MiB"
        assert config["limits.cpu"] == "2"
        assert int(config["limits.processes"]) > 0
        assert config["security.devlxd"] == "false"
        assert config["boot.autostart"] == "false"
        assert config["environment.product_name"] == "OpenStack Nova"
        assert config["user.nova.uuid"] == server["id"]
        assert config["user.nova.project_id"] == server["tenant_id"]
        assert instance["expanded_devices"]["root"]["size"] == "2GiB"
        assert instance["expanded_devices"]["root"]["pool"] == "default"

        (port,) = self.neutron.ports_of(server["id"])
        assert port["status"] == "ACTIVE"
        assert self.guest(server, "cat", "/sys/class/net/eth0/address") == port["mac_address"]
        assert self.guest(server, "cat", "/sys/class/net/eth0/mtu") == "1450"
        # Userspace OVS forwards unfinished checksums, and TCP hangs.
        features = run("ethtool", "--show-features", f"qvb{port['id'][:11]}")
        assert "tx-checksumming: off" in features

        self.delete(server)
        self.assert_nothing_on_host()
        assert len(self.lxd_names("images")) == 1

    def test_nics_keep_their_order(self):
        ports = [self.neutron.create_port()["port"] for _ in range(3)]
        server = self.boot(networks=[{"port": port["id"]} for port in ports])
        for index, port in enumerate(ports):
            address = self.guest(server, "cat", f"/sys/class/net/eth{index}/address")
            assert address == port["mac_address"]

    def test_a_server_without_a_port(self):
        server = self.boot(networks="none")
        devices = self.lxd_instance(server)["expanded_devices"].values()
        assert [device for device in devices if device["type"] == "nic"] == []

    def test_power(self):
        server = self.boot()
        first = self.boot_time(server)

        self.act(server, {"os-stop": None}, "SHUTOFF")
        assert self.lxd_instance(server)["status"] == "Stopped"
        self.assert_clean()
        self.act(server, {"os-start": None}, "ACTIVE")
        self.assert_clean()
        second = self.boot_time(server)
        assert second > first

        self.act(server, {"reboot": {"type": "SOFT"}}, "ACTIVE")
        self.assert_clean()
        third = self.boot_time(server)
        assert third > second
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        self.assert_clean()
        assert self.boot_time(server) > third

    def test_pause(self):
        server = self.boot()
        first = self.boot_time(server)
        self.act(server, {"pause": None}, "PAUSED")
        assert self.lxd_instance(server)["status"] == "Frozen"
        self.assert_clean()
        self.act(server, {"unpause": None}, "ACTIVE")
        assert self.lxd_instance(server)["status"] == "Running"
        assert self.boot_time(server) == first

    def test_a_paused_and_a_stopped_server_can_be_deleted(self):
        paused = self.boot()
        stopped = self.boot()
        self.act(paused, {"pause": None}, "PAUSED")
        self.act(stopped, {"os-stop": None}, "SHUTOFF")
        self.delete(paused, stopped)
        self.assert_nothing_on_host()

    def test_a_server_is_deleted_while_it_waits_for_its_network(self):
        self.agent.deaf = True
        server = self.request_server()
        wait_for(lambda: self.lxd_names("instances"), "the container to be made")
        self.api.delete_server(server["id"])
        self.agent.deaf = False
        self.wait_gone(server["id"])
        wait_for(lambda: not self.lxd_names("instances"), "the container to go")
        self.assert_nothing_on_host()

    def test_console(self):
        server = self.boot(networks="none")

        def console():
            action = {"os-getConsoleOutput": {"length": 50}}
            return self.api.post_server_action(server["id"], action)["output"]

        first = "nova-lxd: no network card"
        wait_for(lambda: first in console(), "the guest to write to its console")
        assert first in console(), "a second look must show it again"
        # systemd writes characters that latin-1 lacks.
        self.guest(server, "sh", "-c", "echo 'Starting… 中' >/dev/console")
        wait_for(lambda: "Starting" in console(), "the guest's words to arrive")
        assert first in console()
        self.act(server, {"os-stop": None}, "SHUTOFF")
        assert first in console(), "a stopped server still has its log"

    def test_two_servers_reach_each_other(self):
        one, two = self.boot(), self.boot()
        self.guest(one, "ip", "address", "add", "10.9.9.1/24", "dev", "eth0")
        self.guest(two, "ip", "address", "add", "10.9.9.2/24", "dev", "eth0")
        for server in (one, two):
            self.guest(server, "ip", "link", "set", "eth0", "up")
        # 1400 bytes fill the network's MTU of 1450: bridges that cut frames would show here.
        answer = self.guest(one, "ping", "-c", "3", "-W", "20", "-s", "1400", "10.9.9.2")
        assert " 0% packet loss" in answer

    def test_a_second_server_does_not_ask_glance_again(self):
        image = self.busybox_image()
        self.boot(image=image)
        self.glance._imagedata[image] = b"a second download would fail"
        self.boot(image=image)

    def test_a_privileged_flavor(self):
        flavor = self.flavor(extra_specs={"lxd:privileged_allowed": "true"})
        server = self.boot(flavor=flavor)
        assert self.lxd_instance(server)["expanded_config"]["security.privileged"] == "true"
