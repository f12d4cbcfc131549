"""Writes the configuration files from the templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

from aio import account, rootwrap
from aio.ini import fill_sample
from aio.settings import REPOSITORY, Settings

TEMPLATES = Path(__file__).with_name("templates")
SAMPLE = REPOSITORY / "etc" / "nova-compute.conf.sample"
#: privsep contexts of nova-compute
PRIVSEP = (
    "nova_lxd_privileged",
    "nova_lxd_console_privileged",
    "vif_plug_ovs_privileged",
    "nova_sys_admin",
    "privsep_osbrick",
)


def render(name: str, values: Mapping[str, str]) -> str:
    """Return template ``name`` with ``$values`` filled in; an unknown one is a KeyError."""
    return Template((TEMPLATES / name).read_text()).substitute(values)


def values(settings: Settings) -> dict[str, str]:
    """Return what templates may use."""
    facts = {
        "state": str(settings.state),
        "etc": str(settings.etc),
        "data": str(settings.data),
        "venv": str(settings.venv),
        "host": settings.host,
        "region": settings.region,
        "keystone_url": settings.url("keystone"),
        "service_password": settings.passwords["service"],
        "metadata_secret": settings.passwords["metadata"],
        "transport_url": transport_url(settings),
        "rabbit_password": settings.passwords["rabbit"],
        "firewall": settings.choices.firewall,
    }
    facts |= {f"{name}_port": str(port) for name, port in vars(settings.ports).items()}
    facts["common"] = render("common.ini", facts)
    for user in ("nova", "glance", "placement", "neutron"):
        facts[f"auth_{user}"] = render("auth.ini", {**facts, "user": user})
    for name in DATABASES:
        facts[f"database_{name}"] = render("database.ini", {"url": database_url(settings, name)})
    return facts


DATABASES = ("keystone", "glance", "placement", "nova_api", "nova", "nova_cell0", "neutron")


def database_url(settings: Settings, name: str) -> str:
    """Return SQLAlchemy's URL of a database."""
    socket = settings.mysql_socket
    return f"mysql+pymysql://root@localhost/{name}?unix_socket={socket}&charset=utf8"


def transport_url(settings: Settings) -> str:
    """Return oslo.messaging's URL of the broker."""
    return f"rabbit://openstack:{settings.passwords['rabbit']}@127.0.0.1:{settings.ports.rabbit}/"


def compute_conf(settings: Settings) -> str:
    """Return nova-compute.conf: our sample with the few options that an operator sets."""
    sample = SAMPLE.read_text() if SAMPLE.exists() else ""
    chosen = {
        "DEFAULT": {
            "compute_driver": settings.compute_driver,
            # Two cores and a sparse pool are to hold forty small servers.
            "initial_cpu_allocation_ratio": "64.0",
            "initial_disk_allocation_ratio": "4.0",
        },
        "lxd": {
            "endpoint": str(settings.lxd / "unix.socket"),
            "project": settings.lxd_project,
            "pool": settings.lxd_pool,
        },
        "serial_console": {
            "enabled": "true",
            "base_url": f"ws://127.0.0.1:{settings.ports.serial}/",
        },
        # The other services' locks are in a folder of root's.
        "oslo_concurrency": {"lock_path": str(settings.data / "nova" / "lock")},
        **{section: {"helper_command": rootwrap.helper(settings)} for section in PRIVSEP},
    }
    return fill_sample(sample, chosen)


def lxc_client(settings: Settings) -> str:
    """Return the lxc client's config.yml that makes our LXD and project the default."""
    return render("lxc-config.yml", {"project": settings.lxd_project})


#: template -> file below etc/
FILES = {
    "keystone.conf": "keystone/keystone.conf",
    "glance-api.conf": "glance/glance-api.conf",
    "placement.conf": "placement/placement.conf",
    "nova.conf": "nova/nova.conf",
    "nova-cpu.conf": "compute/nova.conf",
    "neutron.conf": "neutron/neutron.conf",
    "ml2_conf.ini": "neutron/ml2_conf.ini",
    "openvswitch_agent.ini": "neutron/openvswitch_agent.ini",
    "dhcp_agent.ini": "neutron/dhcp_agent.ini",
    "l3_agent.ini": "neutron/l3_agent.ini",
    "metadata_agent.ini": "neutron/metadata_agent.ini",
    "rabbitmq.conf": "rabbitmq/rabbitmq.conf",
}

#: API -> module with its WSGI application
WSGI = {
    "keystone": "keystone.wsgi.api",
    "glance": "glance.wsgi.api",
    "placement": "placement.wsgi.api",
    "nova": "nova.wsgi.osapi_compute",
    "metadata": "nova.wsgi.metadata",
    "neutron": "neutron.wsgi.api",
}


def all_files(settings: Settings) -> dict[Path, str]:
    """Return every configuration file of the cloud with its content."""
    facts = values(settings)
    files = {settings.etc / to: render(name, facts) for name, to in FILES.items()}
    for name, module in WSGI.items():
        uwsgi = {"port": facts[f"{name}_port"], "module": module}
        files[settings.etc / "uwsgi" / f"{name}.ini"] = render("uwsgi.ini", uwsgi)
    files[settings.etc / "compute" / "nova-compute.conf"] = compute_conf(settings)
    files |= rootwrap.files(settings)
    files[settings.lxc_config / "config.yml"] = lxc_client(settings)
    return files


def write(settings: Settings) -> list[Path]:
    """Write the files whose content changed and return them."""
    changed = []
    for path, content in all_files(settings).items():
        if not path.exists() or path.read_text() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(content)
            changed.append(path)
    settings.etc.chmod(0o700)
    if settings.choices.user != "root":
        _share_with(settings.choices.user, settings)
    return changed


def _share_with(user: str, settings: Settings) -> None:
    """Let the user of nova-compute read its configuration, and nothing else here."""
    settings.etc.chmod(0o711)
    folder = settings.etc / "compute"
    for path in (folder, folder / "nova.conf", folder / "nova-compute.conf"):
        account.share(path, user)
