"""Cells against arithmetic by hand, an independent computation, and a simulation of the intervals."""

import math
from collections.abc import Callable
from itertools import product
from statistics import fmean

import numpy as np
import pandas as pd
import pytest

from engine.metrics import COLUMNS, cells, interval
from engine.vocabulary import Metric

NAN = math.nan
ZS = "zs"


def frame(metric: str = Metric.TOXICITY, split: str = "toxic-test", **prompts: list) -> pd.DataFrame:
    """One row a prompt and sample: each variant's list has a number (or a list of samples) a prompt."""
    rows = [
        (variant, split, metric.value, "ngram" if metric is Metric.TOXICITY else "", index, value)
        for variant, found in prompts.items()
        for index, samples in enumerate(found)
        for value in (samples if isinstance(samples, list) else [samples])
    ]
    return pd.DataFrame(rows, columns=["variant_id", "split", "metric", "scorer", "prompt_index", "value"])


def by_variant(values: pd.DataFrame, zero_shot: str | None = ZS) -> dict[str, pd.Series]:
    found = cells(values, zero_shot)
    assert list(found.columns) == COLUMNS
    assert found["variant_id"].is_unique
    return {row["variant_id"]: row for _, row in found.iterrows()}


def near(row: pd.Series, **expected: float) -> None:
    assert {name: row[name] for name in expected} == pytest.approx(expected, nan_ok=True)


# --- values, by hand ------------------------------------------------------------------------------------------------


def test_toxicity_with_missing_values_on_either_side() -> None:
    found = by_variant(frame(zs=[0.5, 0.3, NAN, 0.1], x=[0.1, NAN, 0.2, 0.3]))
    near(found[ZS], n=4, n_valid=3, n_pairs=3, value=30, baseline=NAN, delta=NAN)
    # Pairs: prompts 0 and 3. ZS there (0.5 + 0.1) / 2; differences 0.4 and −0.2.
    near(found["x"], n=4, n_valid=3, n_pairs=2, value=20, baseline=30, delta=10)


def test_positive_delta_is_less_toxic() -> None:
    assert by_variant(frame(zs=[0.9, 0.8], x=[0.1, 0.1]))["x"]["delta"] == pytest.approx(75)


def test_several_samples_of_a_prompt_are_averaged_first() -> None:
    found = by_variant(frame(zs=[[0.0, 1.0, 0.5], [0.4, NAN, NAN]], x=[[0.0, 0.0, 0.0], [NAN, NAN, NAN]]))
    near(found[ZS], n=2, n_valid=2, value=45)
    near(found["x"], n=2, n_valid=1, n_pairs=1, value=0, baseline=50, delta=50)


@pytest.mark.parametrize("metric", [Metric.PERPLEXITY_SELF, Metric.PERPLEXITY_BASE, Metric.PERPLEXITY_NEUTRAL])
def test_perplexity_is_exp_of_the_mean_nll_and_its_delta_is_in_nats(metric: Metric) -> None:
    zs, x = [1.0, 2.0, 3.0, NAN], [1.0, 1.0, NAN, 4.0]
    found = by_variant(frame(metric, zs=zs, x=x))
    near(found[ZS], value=math.exp(2), baseline=NAN, delta=NAN, n_pairs=3)
    near(found["x"], value=math.exp(2), baseline=math.exp(1.5), delta=0.5, n_pairs=2)
    assert pd.isna(found[ZS]["scorer"])


def test_intervals_are_of_the_value_on_zs_and_of_delta_elsewhere() -> None:
    zs, x = np.random.default_rng(1).uniform(0.1, 0.9, (2, 40))
    both = np.stack([zs, zs - x], axis=1)
    low, high, _ = interval(both)
    found = by_variant(frame(zs=list(zs), x=list(x)))
    near(found[ZS], ci_low=100 * low[0], ci_high=100 * high[0])
    near(found["x"], ci_low=100 * low[1], ci_high=100 * high[1])
    assert found[ZS]["ci_low"] < found[ZS]["value"] < found[ZS]["ci_high"]
    assert found["x"]["ci_low"] < found["x"]["delta"] < found["x"]["ci_high"]
    nats = by_variant(frame(Metric.PERPLEXITY_BASE, zs=list(zs), x=list(x)))
    near(nats[ZS], ci_low=math.exp(low[0]), ci_high=math.exp(high[0]))
    near(nats["x"], ci_low=low[1], ci_high=high[1])


def test_a_rate_is_neither_scaled_nor_exponentiated() -> None:
    near(
        by_variant(frame(Metric.EMPTY_RATE, zs=[1, 0, 0, 0], x=[1, 1, 0, 0]))["x"],
        value=0.5,
        baseline=0.25,
        delta=-0.25,
    )


@pytest.mark.parametrize("zero_shot", [None, "absent"])
def test_without_zs_there_is_a_value_and_nothing_to_compare_with(zero_shot: str | None) -> None:
    row = by_variant(frame(x=[0.1, 0.3] * 20), zero_shot)["x"]
    near(row, n=40, n_valid=40, n_pairs=0, value=20, baseline=NAN, delta=NAN, ci_low=NAN, ci_high=NAN)
    assert row["verdict"] == "too-few"
    assert "ZS" in row["verdict_reason"]


def test_nothing_valid_is_unscored_and_never_nought() -> None:
    found = by_variant(frame(zs=[0.1, 0.2, 0.3], x=[NAN, NAN, NAN]))
    near(found["x"], n=3, n_valid=0, n_pairs=0, value=NAN, baseline=NAN, delta=NAN, ci_low=NAN, ci_high=NAN)
    assert found["x"]["verdict"] == "unscored"
    assert found["x"]["verdict_reason"]
    found = by_variant(frame(zs=[NAN] * 40, x=[0.5] * 40))
    assert found[ZS]["verdict"] == "unscored"
    near(found["x"], n_valid=40, n_pairs=0, value=50, baseline=NAN, delta=NAN)
    assert found["x"]["verdict"] == "too-few"


@pytest.mark.parametrize(("n", "verdict"), [(29, "too-few"), (30, "ok")])
def test_a_verdict_needs_thirty_pairs(n: int, verdict: str) -> None:
    rng = np.random.default_rng(2)
    zs, x = rng.random((2, n))
    found = by_variant(frame(zs=[*zs, NAN, 0.5], x=[*x, 0.5, NAN]))
    assert found["x"]["n_pairs"] == n
    assert found["x"]["verdict"] == verdict
    assert pd.isna(found["x"]["verdict_reason"]) == (verdict == "ok")


def test_scorers_splits_and_metrics_are_cells_of_their_own() -> None:
    one = frame(zs=[0.1], x=[0.2])
    values = pd.concat(
        [
            one,
            one.assign(scorer="other", value=0.5),
            one.assign(split="toxic-train"),
            frame(Metric.EMPTY_RATE, zs=[1], x=[0]),
        ]
    )
    found = cells(values, ZS)
    assert len(found) == 8
    other = found[(found["scorer"] == "other") & (found["variant_id"] == "x")].iloc[0]
    near(other, value=50, delta=0, n=1)


def test_no_values_make_no_cells() -> None:
    found = cells(frame(), ZS)
    assert len(found) == 0
    assert list(found.columns) == COLUMNS


def test_cells_equal_an_independent_computation() -> None:
    """Random values with holes, in random order, against loops over a dictionary."""
    rng = np.random.default_rng(3)
    names, metrics = [ZS, "a", "b"], [Metric.TOXICITY, Metric.PERPLEXITY_SELF, Metric.EMPTY_RATE]
    drawn = {
        (name, metric): [[NAN if rng.random() < 0.3 else rng.random() for _ in range(2)] for _ in range(35)]
        for name, metric in product(names, metrics)
    }
    values = pd.concat([frame(metric, **{name: drawn[name, metric] for name in names}) for metric in metrics])
    found = cells(values.sample(frac=1, random_state=0), ZS).set_index(["variant_id", "metric"])
    assert len(found) == 9
    for metric in metrics:
        mean = {
            name: {
                i: fmean(v for v in s if v == v) for i, s in enumerate(drawn[name, metric]) if any(v == v for v in s)
            }
            for name in names
        }
        show = {Metric.TOXICITY: lambda v: 100 * v, Metric.PERPLEXITY_SELF: math.exp}.get(metric, float)
        for name in names[1:]:
            both = mean[name].keys() & mean[ZS].keys()
            near(
                found.loc[(name, metric.value)],
                n=35,
                n_valid=len(mean[name]),
                n_pairs=len(both),
                value=show(fmean(mean[name].values())),
                baseline=show(fmean(mean[ZS][i] for i in both)),
                delta=fmean(mean[ZS][i] - mean[name][i] for i in both) * (100 if metric is Metric.TOXICITY else 1),
            )
        near(found.loc[(ZS, metric.value)], n_valid=len(mean[ZS]), value=show(fmean(mean[ZS].values())))


# --- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([0.4, NAN, NAN], "fewer than two prompts"),
        ([NAN] * 3, "fewer than two prompts"),
        ([0.1] * 40, "all prompts agree"),
    ],
)
def test_no_interval_has_a_reason(column: list[float], reason: str) -> None:
    low, high, reasons = interval(np.array([column]).T)
    assert np.isnan([low[0], high[0]]).all()
    assert reasons == [reason]
    row = by_variant(frame(zs=column))[ZS]
    if row["n_valid"]:
        assert reason in row["verdict_reason"]
        assert np.isnan([row["ci_low"], row["ci_high"]]).all()


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
    (low,), (high,), (reason,) = interval(np.array([column]).T)
    if reason is None:
        spread = max(column) - min(column)
        assert low < fmean(column) < high
        assert high - low < 50 * spread


def test_a_cells_interval_does_not_hang_on_its_neighbours() -> None:
    one, other = np.random.default_rng(4).random((2, 30))
    alone, beside = interval(one[:, None]), interval(np.stack([other, one, np.full(30, NAN)], axis=1))
    np.testing.assert_allclose([alone[0][0], alone[1][0]], [beside[0][1], beside[1][1]])


def test_an_interval_moves_and_grows_with_its_values() -> None:
    one = np.random.default_rng(5).random((30, 1))
    (low, high, _), (low_2, high_2, _) = interval(one), interval(1000 + 50 * one)
    np.testing.assert_allclose([low_2, high_2], [1000 + 50 * low, 1000 + 50 * high], rtol=1e-9)


def test_an_interval_of_skewed_values_reaches_further_to_their_long_side() -> None:
    values = np.random.default_rng(7).exponential(1, (30, 200))
    for side in (1, -1):
        low, high, _ = interval(side * values)
        below, above = (side * values).mean(0) - low, high - (side * values).mean(0)
        assert np.median(side * (above - below)) > 0.05


SIZE = (30, 2000)


@pytest.mark.parametrize(
    ("draw", "mean", "most"),
    [
        (lambda rng: rng.beta(1, 6, SIZE) - rng.beta(1, 6, SIZE), 0.0, 0.98),
        (lambda rng: rng.exponential(1, SIZE) * (rng.random(SIZE) < 0.7), 0.7, 0.98),
        (lambda rng: (rng.random(SIZE) < 0.1).astype(float), 0.1, 1.0),
    ],
    ids=["differences of scores", "skewed, with many noughts", "a rate"],
)
def test_intervals_keep_their_promise_at_thirty_prompts(draw: Callable, mean: float, most: float) -> None:
    """2,000 cells with a known mean; the standard error of the share is half a per cent. A rate may be covered more."""
    low, high, _ = interval(draw(np.random.default_rng(6)))
    has_one = ~np.isnan(low)
    assert has_one.mean() > 0.9
    assert 0.92 < ((low <= mean) & (mean <= high))[has_one].mean() <= most
