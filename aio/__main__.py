"""``python3 aio``: run from a checkout, with nothing installed."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - this is the place where an older one is met
    sys.exit("python3 aio needs Python 3.11 or newer (Debian 12, Ubuntu 24.04)")

# Instead of this folder: its modules must be aio.x, and never be taken for others' names.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from aio.cli import main  # noqa: E402

sys.exit(main())
