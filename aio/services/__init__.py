"""Every service of the cloud, in the order in which they start."""

from __future__ import annotations

from aio.services import mariadb, neutron, nova, rabbitmq, wsgi
from aio.services.base import Service

#: What everything else stands on, beside LXD and Open vSwitch.
BACKENDS: tuple[Service, ...] = (rabbitmq.EPMD, mariadb.SERVICE, rabbitmq.SERVICE)
#: What needs the backends and, later, Keystone.
CONTROL: tuple[Service, ...] = (
    wsgi.KEYSTONE,
    wsgi.PLACEMENT,
    wsgi.GLANCE,
    wsgi.NEUTRON,
    neutron.RPC_SERVER,
    wsgi.NOVA,
    nova.CONDUCTOR,
    nova.SCHEDULER,
    nova.SERIAL_PROXY,
    neutron.PERIODIC,
    wsgi.METADATA,
)
#: What needs users, endpoints and a conductor.
HOST: tuple[Service, ...] = (
    nova.COMPUTE,
    neutron.OPENVSWITCH,
    neutron.DHCP,
    neutron.L3,
    neutron.METADATA,
)
ALL: tuple[Service, ...] = BACKENDS + CONTROL + HOST
