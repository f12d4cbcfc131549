"""A server boots as a cloud server should: address, name, key, user data, console."""

from __future__ import annotations

import json

from tests.cloud.world import MTU, READY

METADATA = "http://169.254.169.254/openstack/latest/meta_data.json"


def test_address_is_neutrons(web, tenant):
    (port,) = tenant.ports(web.server)
    shown = web.run("ip -4 -o address show eth0").split()
    assert shown[3] == f"{port['fixed_ips'][0]['ip_address']}/24"
    assert web.run("cat /sys/class/net/eth0/address") == port["mac_address"]


def test_mtu_is_the_networks(web):
    assert web.run("cat /sys/class/net/eth0/mtu") == str(MTU)


def test_name_is_the_servers(web):
    assert web.run("hostname") == "ring-web"


def test_key_gets_in_and_another_does_not(web, world):
    assert web.run("id -u") == "0"
    assert web.run("id -un", user="cloud") == "cloud"
    assert not web.lets_in(key=world.other_key)


def test_user_data_ran_once(web):
    assert web.run("cat /root/user-data-ran") == "ran on ring-web"


def test_metadata_is_of_this_server(web):
    metadata = json.loads(web.run(f"wget -q -O - {METADATA}"))
    assert metadata["uuid"] == web.server
    assert metadata["name"] == "ring-web"


def test_console_tells_the_boot_each_time_it_is_read(web, tenant):
    first, second = tenant.console(web.server), tenant.console(web.server)
    assert READY in first
    assert READY in second


def test_console_can_be_cut_to_its_end(web, tenant):
    whole = tenant.console(web.server)
    answer = tenant.act(web.server, "os-getConsoleOutput", {"length": 3})
    assert answer["output"] == "\n".join(whole.split("\n")[-3:])


def test_console_shows_any_text(web, tenant):
    web.run("printf 'caf\\303\\251 \\342\\200\\246 \\377 end of it\\n' > /dev/console")
    assert "end of it" in tenant.console(web.server)


def test_container_is_unprivileged(web):
    first, host, _ = web.run("cat /proc/self/uid_map").split()[:3]
    assert first == "0"
    assert int(host) >= 100000
