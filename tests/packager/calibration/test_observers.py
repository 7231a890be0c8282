# SPDX-License-Identifier: Apache-2.0
"""Where a quantized type's range is to end, by observer."""

from __future__ import annotations

import pytest
import torch

from trtpack.calibration.histogram import BINS, Histogram
from trtpack.calibration.observers import reach, rounded
from trtpack.options import OBSERVER_NAMES, ObserverName


def histogram_of(*values: torch.Tensor) -> Histogram:
    made = Histogram()
    for value in values:
        made.add(value)
    return made


def normal(count: int = 200_000) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def test_a_histogram_counts_magnitudes_over_all_samples() -> None:
    made = histogram_of(torch.tensor([0.0, -1.0, 0.5]), torch.tensor([3.0]))
    assert made.largest == 3.0
    assert made.top == 4.0, "it doubles until it reaches"
    assert float(made.counts.sum()) == 3, "zeros are left out"
    assert made.counts.nonzero().flatten().tolist() == [BINS // 8, BINS // 4 - 1, 3 * BINS // 4]


def test_the_order_of_samples_does_not_matter_where_their_largest_are_powers_of_two() -> None:
    small, large = torch.linspace(0, 1, 1001), torch.linspace(0, 8, 4001)
    one, other = histogram_of(small, large), histogram_of(large, small)
    assert one.top == other.top == 8
    apart = (one.counts.cumsum(0) - other.counts.cumsum(0)).abs()
    assert float(apart.max()) <= 4, "numbers on an edge may be counted on either side"


def test_numbers_that_are_not_finite_are_counted_and_left_out() -> None:
    made = histogram_of(torch.tensor([1.0, float("inf"), float("nan")]))
    assert (made.bad, made.largest) == (2, 1.0)


def test_a_histogram_tells_one_number_from_one_magnitude() -> None:
    ones = torch.ones(3)
    assert histogram_of(ones, ones).constant == 1.0
    assert histogram_of(-ones, ones).constant is None
    assert histogram_of(0 * ones).constant == 0.0
    assert histogram_of(0 * ones, ones).constant is None
    assert Histogram().constant is None


@pytest.mark.parametrize("observer", OBSERVER_NAMES)
def test_zeros_alone_have_no_range(observer: ObserverName) -> None:
    assert reach(histogram_of(torch.zeros(5)), observer, "INT8") == 0.0


@pytest.mark.parametrize("dtype", ["INT8", "FP8"])
def test_minmax_reaches_the_largest(dtype: str) -> None:
    assert reach(histogram_of(torch.tensor([1.0, -7.5])), "minmax", dtype) == 7.5


def test_percentile_leaves_out_one_of_ten_thousand() -> None:
    values = torch.cat([torch.rand(100_000), torch.full((5,), 100.0)])
    assert reach(histogram_of(values), "percentile", "INT8") == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("observer", ["percentile", "entropy", "mse"])
def test_a_single_outlier_is_cut_off(observer: ObserverName) -> None:
    values = torch.cat([normal(), torch.tensor([30.0])])
    assert reach(histogram_of(values), observer, "INT8") < 15


def test_mse_loses_least_among_all_ends() -> None:
    values = normal()
    found = reach(histogram_of(values), "mse", "INT8")

    def lost(end: float) -> float:
        return float((values - rounded(values, end, "INT8")).square().mean())

    others = [float(values.abs().max()) * part / 20 for part in range(4, 21)]
    assert lost(found) <= min(map(lost, others)) * 1.02


def test_entropy_keeps_the_bulk_of_a_normal_distribution() -> None:
    found = reach(histogram_of(normal()), "entropy", "INT8")
    assert 2.5 < found <= float(normal().abs().max())


@pytest.mark.parametrize("observer", OBSERVER_NAMES)
def test_values_far_from_zero_keep_their_range(observer: ObserverName) -> None:
    """Such as what a pool makes of activations: a range that ends below would make them one."""
    values = 4 + 0.3 * normal(16_384)
    assert reach(histogram_of(values), observer, "INT8") > 4.6


@pytest.mark.parametrize("observer", OBSERVER_NAMES)
def test_a_frequent_number_does_not_end_the_range(observer: ObserverName) -> None:
    """Not even where it has the last bin of a range for its own, and the rest lies far beyond."""
    values = torch.cat([torch.full((120_000,), 0.994), torch.linspace(5, 10, 80_000)])
    assert reach(histogram_of(values), observer, "INT8") > 9


def test_rounding_is_the_types_own() -> None:
    numbers = torch.tensor([0.5, 1.5, 2.5, 200.0, -300.0])
    assert rounded(numbers, 127.0, "INT8").tolist() == [0.0, 2.0, 2.0, 127.0, -128.0]
    assert rounded(torch.tensor([1.06, 500.0]), 448.0, "FP8").tolist() == [1.0, 448.0]
