"""The ``[lxd]`` options of nova-compute.conf."""

from __future__ import annotations

from oslo_config import cfg

GROUP = cfg.OptGroup(
    "lxd",
    title="LXD options",
    help="How the LXD driver reaches its LXD and what it may ask of it.",
)

OPTIONS = [
    cfg.StrOpt(
        "endpoint",
        default="",
        help="""
Path of LXD's unix socket.

Empty means the first of these that exists: ``$LXD_DIR/unix.socket``,
``/var/snap/lxd/common/lxd/unix.socket`` (the snap), ``/var/lib/lxd/unix.socket`` (Debian's
package). The user that runs nova-compute must be allowed to use it, which usually means
membership in the group ``lxd``; note that such a user is as good as root on this host.
nova-compute refuses to start when no LXD answers there.
""",
    ),
    cfg.StrOpt(
        "project",
        default="nova",
        regex=r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}$",
        help="""
LXD project that holds everything the driver makes.

It is created at the first start, with profiles, images and storage volumes of its own. The driver
neither sees nor touches instances outside it, so LXD can be shared with other users. Changing it on
a host with servers hides them from Nova.
""",
    ),
    cfg.StrOpt(
        "pool",
        default="default",
        help="""
LXD storage pool for the servers' root disks.

It must exist before nova-compute starts (``lxc storage create NAME btrfs``). A copy-on-write pool
(btrfs, zfs, lvm thin, ceph) is recommended: servers then start from an image without copying it,
and the flavor's disk size is enforced. A ``dir`` pool works but copies the image for every server
and cannot hold a root disk to its size.
""",
    ),
    cfg.IntOpt(
        "request_timeout",
        default=60,
        min=1,
        mutable=True,
        help="""
Seconds to wait for LXD to answer one request.

LXD answers most requests within milliseconds. When the time runs out the request fails with a
message that names it; whether LXD carried it out is then unknown.
""",
    ),
    cfg.IntOpt(
        "operation_timeout",
        default=300,
        min=1,
        mutable=True,
        help="""
Seconds to wait for a background operation of LXD: create, start, stop or delete an instance.

Related options: ``image_timeout`` for operations that move a whole image.
""",
    ),
    cfg.IntOpt(
        "image_timeout",
        default=3600,
        min=1,
        mutable=True,
        help="""
Seconds to wait while LXD takes in an image, and while it unpacks it for the first server.
""",
    ),
    cfg.IntOpt(
        "image_max_gb",
        default=256,
        min=1,
        mutable=True,
        help="""
GiB that the content of an image may need on a root disk.

A flavor's root disk is the usual bound; this one holds for flavors whose root disk has no size
(0 GiB), and for images that are fetched before a server wants them. A larger image is refused while
it is read, before LXD unpacks any of it. An image that needs more than the storage pool has left is
refused too.
""",
    ),
    cfg.StrOpt(
        "snapshot_compression",
        default="zstd",
        choices=[
            ("zstd", "fast, on all CPUs of the host; nearly as small as gzip or smaller"),
            ("gzip", "slow; every release of this driver reads it"),
            ("none", "as large as the files in the server; for a Glance whose storage compresses"),
        ],
        mutable=True,
        help="""
How LXD compresses the images that are made of servers: snapshots, backups, shelved servers.

LXD writes the image to its own disk before it is sent to Glance, so there must be room for it where
LXD keeps its images. It stays there for servers that are made of it on this host, until it ages out
(``[image_cache] remove_unused_original_minimum_age_seconds``). Where LXD has no zstd, gzip is used.
""",
    ),
    cfg.BoolOpt(
        "allow_privileged",
        default=True,
        help="""
Whether a flavor may ask for a privileged container with ``lxd:privileged_allowed=true``.

Root in a privileged container is root on the host for many purposes. With ``false`` such a server
fails to build on this host with a message that says so.
""",
    ),
    cfg.BoolOpt(
        "allow_nested",
        default=True,
        help="""
Whether a flavor may ask with ``lxd:nested_allowed=true`` that containers can run inside its
servers.
""",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the ``[lxd]`` options with ``conf``; calling it twice is harmless."""
    conf.register_group(GROUP)
    conf.register_opts(OPTIONS, group=GROUP)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """Answer oslo-config-generator (entry point ``oslo.config.opts``)."""
    return [(GROUP, OPTIONS)]
