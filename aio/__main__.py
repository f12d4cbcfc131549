"""``python3 aio``: run from a checkout, with nothing installed."""

import sys
from pathlib import Path

# Instead of this folder: its modules must be aio.x, and never be taken for others' names.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from aio.cli import main  # noqa: E402

sys.exit(main())
