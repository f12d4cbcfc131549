"""The growth that the benchmark of nova-compute's memory tells."""

from __future__ import annotations

from benchmarks.memory import slope


def test_growth_is_that_of_the_second_half() -> None:
    samples = [
        {"servers": n, "lxd": 100.0 if n < 500 else 90 + n / 100} for n in range(0, 1001, 50)
    ]
    assert slope(samples, "lxd") == 10.0


def test_noise_is_no_growth() -> None:
    samples = [{"servers": n, "lxd": 100.0 + n // 50 % 2} for n in range(0, 1001, 50)]
    assert abs(slope(samples, "lxd")) < 0.5
