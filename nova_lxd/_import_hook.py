"""Makes ``nova.virt.lxd`` importable although no file of ours lies under ``nova/``.

Nova resolves ``compute_driver = lxd.LXDDriver`` as ``nova.virt.lxd.LXDDriver``.  A package that
shipped ``nova/virt/lxd/`` would hide an editable Nova completely, so ``nova-lxd.pth`` installs this
finder instead.  It answers for that one name and is appended to ``sys.meta_path``: a driver that
one day ships with Nova itself is found first.
"""

import sys

_NAME = "nova.virt.lxd"


class _Finder:
    @staticmethod
    def find_spec(fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        if fullname != _NAME:
            return None
        import importlib.util
        import os.path

        location = os.path.join(os.path.dirname(__file__), "_nova_virt_lxd.py")
        return importlib.util.spec_from_file_location(_NAME, location)


def install() -> None:
    """Append the finder to ``sys.meta_path`` unless it is there already."""
    if not any(finder is _Finder for finder in sys.meta_path):
        sys.meta_path.append(_Finder)


install()
