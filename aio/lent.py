"""A cloud for the time of a block: that of the machine, or one that goes afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from aio import choices, stages, teardown
from aio.cloud import Cloud
from aio.report import Reporter
from aio.settings import Settings


@contextlib.contextmanager
def cloud(settings: Settings, options: Sequence[str] = ()) -> Iterator[None]:
    """Bring the cloud up, and down at the end, however that is, unless it ran before.

    :param options: those of ``aio up``
    """
    ours = Cloud(settings)
    ran_before = ours.any_running()
    choices.choose(settings.choices_file, choices.parse(options), fixed=settings.data.exists())
    try:
        stages.run_stages(stages.UP, ours, Reporter())
        yield
    finally:
        if not ran_before:
            stages.run_stages(teardown.DOWN, ours, Reporter())
