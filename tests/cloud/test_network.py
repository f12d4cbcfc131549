"""Packets go where Neutron says, and nowhere else."""

from __future__ import annotations


def test_group_closes_opens_and_closes_again(world, tenant):
    group = tenant.group("ring-shut")
    guest = world.guest(tenant, world.boot(tenant, "ring-shut", group=group))
    assert not guest.answers_ping()
    assert not guest.lets_in()

    ping = tenant.allow(group["id"], "icmp")
    guest.wait_for_ping()
    assert not guest.lets_in()

    tenant.allow(group["id"], "tcp", 22)
    guest.wait_for_ssh()

    tenant.delete("neutron", "/security-group-rules", ping["id"])
    guest.wait_for_silence()
    assert guest.lets_in()


def test_two_cards_in_order(world, tenant):
    nets = [world.front, world.back]
    server = world.boot(tenant, "ring-two", group=world.open_group, nets=nets)
    guest = world.guest(tenant, server)
    guest.wait_for_ssh()
    ports = {port["network_id"]: port for port in tenant.ports(server["id"])}
    for number, network in enumerate(nets):
        port, card = ports[network["id"]], f"/sys/class/net/eth{number}"
        assert guest.run(f"cat {card}/address") == port["mac_address"]
        assert guest.run(f"cat {card}/mtu") == str(network["mtu"])
        address = port["fixed_ips"][0]["ip_address"]
        assert f" {address}/24 " in guest.run(f"ip -4 -o address show eth{number}")


def test_way_out_is_through_the_router(web, world):
    web.run(f"ping -c 1 -W 10 {world.settings.public_gateway}")


def test_address_without_floating_ip_is_silent(world, tenant):
    server = world.boot(tenant, "ring-float", group=world.open_group)
    guest = world.guest(tenant, server)
    guest.wait_for_ping()
    path = f"/floatingips?floating_ip_address={guest.address}"
    (floating,) = tenant.api.get("neutron", path)["floatingips"]
    body = {"floatingip": {"port_id": None}}
    tenant.api.request("PUT", "neutron", f"/floatingips/{floating['id']}", body)
    guest.wait_for_silence()


def test_large_transfers_pass(web):
    """Checksums that nobody finished let small packets through and stop TCP."""
    size = 4 * 2**20
    assert len(web.run(f"head -c {size} /dev/zero | tr '\\0' x")) == size
