"""What the driver takes for granted of LXD, tested on the fake here and on a real one in
``tests/functional/test_lxd_contract.py``."""

import pytest

# pytest explains a failed assert only in modules that it was told of.
for _part in ("base", "client", "files", "guests", "life", "power", "snapshots", "store"):
    pytest.register_assert_rewrite(f"{__name__}.{_part}")
