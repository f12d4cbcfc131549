"""What ``import nova.virt.lxd`` gives (see ``_import_hook``)."""

from nova_lxd.virt.driver import LXDDriver

__all__ = ["LXDDriver"]
