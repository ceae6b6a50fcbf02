"""Intervals, tests and corrections: against simulation, against arithmetic by hand, and against second libraries."""

import math
from collections.abc import Callable
from statistics import fmean

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from engine.analysis.statistics import mean_interval, median_difference_interval, paired_permutation_test, q_values

NAN = math.nan


# --- intervals of means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([0.4, NAN, NAN], "fewer than two prompts"),
        ([NAN] * 3, "fewer than two prompts"),
        ([0.1] * 40, "no variation across prompts"),
    ],
)
def test_no_interval_has_a_reason(column: list[float], reason: str) -> None:
    low, high, reasons = mean_interval(np.array([column]).T)
    assert np.isnan([low[0], high[0]]).all()
    assert reasons == [reason]


def ones(k: int, n: int, low: float = 0.0, high: float = 1.0) -> list[float]:
    return [high] * k + [low] * (n - k)


@pytest.mark.parametrize(
    "column",
    [
        [0.1, 0.3],
        [1.0, 3.0, 4.0],
        ones(1, 3),
        *[ones(k, n, *ends) for n in (8, 10, 20, 30, 50) for k in (1, 2, 3) for ends in ((0.0, 1.0), (0.3, 0.7))],
    ],
    ids=lambda column: f"{column.count(max(column))} of {len(column)} are {max(column)}, from {min(column)}",
)
def test_an_interval_is_neither_a_point_nor_astronomic(column: list[float]) -> None:
    """Many equal values, as rates and floored scores have: a resample may have no spread, but for rounding."""
    (low,), (high,), (reason,) = mean_interval(np.array([column]).T)
    if reason is None:
        spread = max(column) - min(column)
        assert low < fmean(column) < high
        assert high - low < 50 * spread


def test_a_cells_interval_does_not_hang_on_its_neighbours() -> None:
    one, other = np.random.default_rng(4).random((2, 30))
    alone, beside = mean_interval(one[:, None]), mean_interval(np.stack([other, one, np.full(30, NAN)], axis=1))
    np.testing.assert_allclose([alone[0][0], alone[1][0]], [beside[0][1], beside[1][1]])


def test_an_interval_moves_and_grows_with_its_values() -> None:
    one = np.random.default_rng(5).random((30, 1))
    (low, high, _), (low_2, high_2, _) = mean_interval(one), mean_interval(1000 + 50 * one)
    np.testing.assert_allclose([low_2, high_2], [1000 + 50 * low, 1000 + 50 * high], rtol=1e-9)


def test_an_interval_of_skewed_values_reaches_further_to_their_long_side() -> None:
    values = np.random.default_rng(7).exponential(1, (30, 200))
    for side in (1, -1):
        low, high, _ = mean_interval(side * values)
        below, above = (side * values).mean(0) - low, high - (side * values).mean(0)
        assert np.median(side * (above - below)) > 0.05


CELLS = 2000


@pytest.mark.parametrize(
    ("n", "least", "most"), [(30, 0.92, 0.98), (100, 0.93, 0.97), (300, 0.93, 0.97)], ids=["30", "100", "300"]
)
@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng, size: rng.beta(1, 6, size) - rng.beta(1, 6, size), 0.0),
        (lambda rng, size: rng.beta(1, 6, size) - rng.beta(0.5, 6, size), 1 / 7 - 0.5 / 6.5),
        (lambda rng, size: rng.exponential(1, size) * (rng.random(size) < 0.7), 0.7),
    ],
    ids=["equal scores", "a less toxic variant", "skewed, with many noughts"],
)
def test_intervals_of_toxicity_keep_their_promise(
    draw: Callable, mean: float, n: int, least: float, most: float
) -> None:
    """2,000 cells with a known mean; the standard error of the share is half a per cent."""
    low, high, _ = mean_interval(draw(np.random.default_rng(6), (n, CELLS)))
    assert least < ((low <= mean) & (mean <= high)).mean() < most


def test_an_interval_of_a_rate_covers_at_least_what_it_promises() -> None:
    low, high, _ = mean_interval((np.random.default_rng(6).random((30, CELLS)) < 0.1).astype(float))
    has_one = ~np.isnan(low)
    assert has_one.mean() > 0.9
    assert ((low <= 0.1) & (high >= 0.1))[has_one].mean() > 0.92


# --- medians --------------------------------------------------------------------------------------------------------


def test_median_intervals_equal_scipys_percentile_bootstrap() -> None:
    zs, own = np.random.default_rng(1).random((2, 31))
    low, high, _ = median_difference_interval(zs[:, None], own[:, None])
    other = stats.bootstrap(
        (zs, own), lambda a, b, axis: np.median(a, axis) - np.median(b, axis), paired=True, method="percentile",
        n_resamples=20_000, rng=0,
    ).confidence_interval  # fmt: skip
    assert [low[0], high[0]] == pytest.approx([other.low, other.high], abs=0.04)


def test_median_intervals_keep_their_promise_and_miss_what_is_missing() -> None:
    rng = np.random.default_rng(2)
    zs, own = rng.beta(1, 6, (2, 100, 300))
    zs[:3], own[90:] = NAN, NAN
    low, high, _ = median_difference_interval(zs, own)
    assert 0.92 < ((low <= 0) & (high >= 0)).mean() <= 1
    alone = median_difference_interval(zs[:, :1], own[:, :1])
    assert [low[0], high[0]] == [alone[0][0], alone[1][0]]


def test_no_median_interval_has_a_reason() -> None:
    low, high, why = median_difference_interval(np.array([[1.0, 1.0], [NAN, 1.0], [NAN, 1.0]]))
    assert np.isnan([*low, *high]).all()
    assert why == ["fewer than two prompts", "no variation across prompts"]


# --- tests and corrections ------------------------------------------------------------------------------------------


def test_few_pairs_are_tested_exactly() -> None:
    # Three differences of one sign: 2 of 8 flips are as extreme.
    assert paired_permutation_test(np.array([[1.0], [2.0], [3.0]]))[0] == 2 / 8
    column = np.random.default_rng(3).normal(0.4, 1, 10)
    other = stats.permutation_test(
        (column, np.zeros(10)), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", vectorized=True,
        n_resamples=np.inf,
    )  # fmt: skip
    assert paired_permutation_test(column[:, None])[0] == pytest.approx(other.pvalue)


def test_many_pairs_are_near_the_t_test_where_that_holds() -> None:
    columns = np.random.default_rng(4).normal(0.15, 1, (100, 20))
    np.testing.assert_allclose(paired_permutation_test(columns), stats.ttest_1samp(columns, 0).pvalue, atol=0.015)


def test_p_values_are_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(5)
    p = paired_permutation_test(rng.beta(1, 6, (100, CELLS)) - rng.beta(1, 6, (100, CELLS)))
    assert 0.035 < (p <= 0.05).mean() < 0.065
    assert 0.46 < (p <= 0.5).mean() < 0.54


def test_what_cannot_be_tested_has_no_p_value() -> None:
    p = paired_permutation_test(np.array([[0.0, 1.0, NAN], [0.0, NAN, NAN]]))
    assert np.isnan(p).all()


def test_missing_differences_change_nothing() -> None:
    column = np.random.default_rng(6).random(12)
    holes = np.insert(column, [2, 7], NAN)
    assert paired_permutation_test(column[:, None])[0] == paired_permutation_test(holes[:, None])[0]


def test_q_values_equal_statsmodels() -> None:
    rng = np.random.default_rng(7)
    for size in (1, 2, 117):
        p = rng.random(size) ** 2
        holes = np.insert(p, size // 2, NAN)
        found = q_values(holes)
        np.testing.assert_allclose(found[~np.isnan(holes)], multipletests(p, method="fdr_bh")[1])
        assert np.isnan(found[size // 2])
