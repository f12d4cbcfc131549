"""What nova-lxd-status reads of nova-compute's configuration; importing it registers all."""

from __future__ import annotations

import nova.conf
from vif_plug_ovs.ovs import OvsPlugin

from nova_lxd import conf

CONF = nova.conf.CONF
conf.register_opts(CONF)
# As os-vif does when it loads its plugin.
CONF.register_opts(OvsPlugin.CONFIG_OPTS, group="os_vif_ovs")


def ovs_database() -> str:
    """Return how Open vSwitch's database is reached, such as ``tcp:127.0.0.1:6640``."""
    return str(CONF.os_vif_ovs.ovsdb_connection)
