"""What the idle benchmark makes of what it saw."""

from __future__ import annotations

import configparser

from benchmarks import idle
from benchmarks.stats import Cost, paired


def test_the_share_of_a_core_is_the_mean_of_all_minutes() -> None:
    ours = [Cost(0.01, 0.01), Cost(0.01, 0.01), Cost(0.04, 0.04)]
    fake = [Cost(0.01, 0.01)] * 3
    row = paired("idle", ours, "fake driver", fake, None)
    assert row.ratio == 1  # of the median: a power sync is in one minute of ten
    assert idle.shares(row) == {"ours": 0.02, "fake driver": 0.01}


def test_the_second_service_shares_no_folder_with_the_first() -> None:
    config = configparser.ConfigParser()
    config.read_string(idle.CONFIGURATION.format(host="other", folder="/scratch"))
    assert config["DEFAULT"]["host"] == "other"
    paths = [config["DEFAULT"][name] for name in ("state_path", "instances_path")]
    paths.append(config["oslo_concurrency"]["lock_path"])
    assert all(path.startswith("/scratch") for path in paths)
