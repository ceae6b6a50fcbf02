"""Cells against arithmetic by hand, an independent computation, and a simulation of the intervals."""

import math
from itertools import product
from statistics import fmean

import numpy as np
import pandas as pd
import pytest

from engine.analysis.metrics import (
    COLUMNS,
    _per_prompt,
    cells,
    degeneration,
    eval_averages,
    train_average,
    with_q_values,
)
from engine.analysis.statistics import mean_interval, paired_permutation_test
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
    found = found[found["metric"].isin(values["metric"])]
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
    low, high, _ = mean_interval(both)
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
    found = found[found["metric"].isin(values["metric"])]
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
    found = cells(values.sample(frac=1, random_state=0), ZS)
    found = found[found["metric"].isin(metrics)].set_index(["variant_id", "metric"])
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


# --- medians, worst samples, tests, averages ------------------------------------------------------------------------


def metric_of(values: pd.DataFrame, metric: Metric) -> dict[str, pd.Series]:
    found = cells(values, ZS)
    return {row["variant_id"]: row for _, row in found[found["metric"] == metric].iterrows()}


def test_medians_are_of_the_prompts_and_their_delta_is_their_difference() -> None:
    values = frame(zs=[0.1, 0.2, 0.9, NAN], x=[0.3, 0.0, 0.1, 0.5])
    found = metric_of(values, Metric.TOXICITY_MEDIAN)
    near(found[ZS], value=20, n_valid=3)
    # Of the three pairs: 20 of ZS, 10 of x; x alone has the median of four, 20.
    near(found["x"], value=20, baseline=20, delta=10, n_valid=4, n_pairs=3)
    nats = metric_of(
        frame(Metric.PERPLEXITY_BASE, zs=[1.0, 2.0, 9.0], x=[1.0, 1.5, 9.0]), Metric.PERPLEXITY_BASE_MEDIAN
    )
    near(nats["x"], value=math.exp(1.5), baseline=math.exp(2), delta=0.5)


def test_worst_samples_need_several() -> None:
    several = frame(zs=[[0.2, 0.6], [0.1, NAN]], x=[[0.3, 0.4], [0.2, 0.5]])
    near(metric_of(several, Metric.EXPECTED_MAX_TOXICITY)["x"], value=45, baseline=35, delta=-10)
    near(metric_of(several, Metric.TOXICITY_PROBABILITY)["x"], value=50, baseline=50, delta=0)
    one = cells(frame(zs=[0.2, 0.4], x=[0.1, 0.3]), ZS)["metric"]
    assert not {Metric.EXPECTED_MAX_TOXICITY, Metric.TOXICITY_PROBABILITY} & set(one)


def test_only_the_headline_metrics_have_a_p_value() -> None:
    rng = np.random.default_rng(0)
    values = pd.concat(
        frame(metric, zs=list(rng.random(40)), x=list(rng.random(40)))
        for metric in (Metric.TOXICITY, Metric.EMPTY_RATE)
    )
    found = cells(values, ZS).set_index(["metric", "variant_id"])["p_value"]
    zs, x = (
        values[(values["metric"] == "toxicity") & (values["variant_id"] == v)]["value"].to_numpy() for v in (ZS, "x")
    )
    assert found["toxicity", "x"] == paired_permutation_test((zs - x)[:, None])[0]
    assert found.drop(("toxicity", "x")).isna().all()


def test_q_values_are_of_one_matrix() -> None:
    p = [0.01, 0.04, 0.03, 0.02, NAN]
    found = pd.DataFrame(
        {"model": ["a", "a", "a", "b", "a"], "split": "s", "metric": "toxicity", "scorer": ["n", "n", "n", "n", "n"]}
    ).assign(p_value=p)
    # Of 0.01, 0.03, 0.04: 0.01 × 3 / 1, min(0.03 × 3 / 2, 0.04), 0.04.
    assert with_q_values(found)["q_value"].tolist() == pytest.approx([0.03, 0.04, 0.04, 0.02, NAN], nan_ok=True)


def average(values: pd.DataFrame, metric: Metric = Metric.TOXICITY) -> pd.Series:
    found = train_average(values, ZS, ["a", "b", "c"], cells(values, ZS))
    return found[found["metric"] == metric].iloc[0]


def test_the_average_over_train_languages_keeps_their_pairing() -> None:
    zs, a, b = np.random.default_rng(3).uniform(size=(3, 50))
    row = average(frame(zs=list(zs), a=list(a), b=list(b)))
    (low,), (high,), _ = mean_interval(100 * (zs - (a + b) / 2)[:, None])
    near(row, n_cells=2, n_pairs=50, delta=100 * (zs - (a + b) / 2).mean(), ci_low=low, ci_high=high)


def test_the_average_over_train_languages_is_that_of_their_cells_where_values_are_missing() -> None:
    row = average(frame(zs=[0.5, 0.6, 0.7], a=[0.1, 0.2, 0.6], b=[0.3, 0.2, NAN]))
    near(row, n_cells=2, n_pairs=3, delta=100 * ((0.4 + 0.4 + 0.1) / 3 + (0.2 + 0.4) / 2) / 2)
    row = average(frame(zs=[0.5, 0.6, 0.7], a=[0.1, 0.2, 0.6], b=[NAN, NAN, NAN]))
    near(row, n_cells=1, n_pairs=3, delta=30)


@pytest.mark.full
def test_the_interval_of_an_average_with_gaps_keeps_its_promise() -> None:
    """Three variants that share 40 prompts, a fifth of the values missing; 400 simulated languages."""
    rng = np.random.default_rng(9)
    held = []
    for _ in range(400):
        shared = rng.normal(size=(40, 1))
        values = np.where(rng.random((40, 3)) < 0.2, NAN, shared + rng.normal(size=(40, 3)))
        (low,), (high,), _ = mean_interval(_per_prompt(values)[:, None])
        held.append(low <= 0 <= high)
    assert 0.91 < np.mean(held) < 0.98


def test_a_variant_with_gaps_has_the_variance_that_it_has_alone() -> None:
    """Differences 1, 2, 3 at three of four prompts: their mean has the variance 1 / 3, half of it a quarter of that. A
    weight of 4 / 3 a prompt would make it 8 / 27."""
    both = _per_prompt(np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [NAN, 0.0]]))
    assert both.mean() == pytest.approx(1.0)
    assert both.var(ddof=1) / 4 == pytest.approx(1 / 3 / 4)


@pytest.mark.parametrize(("n", "has_interval"), [(1, False), (9, False), (10, True), (40, True)])
def test_an_average_has_no_interval_where_a_variant_has_too_few_prompts(n: int, has_interval: bool) -> None:
    zs, a, b = np.random.default_rng(5).uniform(size=(3, 40))
    row = average(frame(zs=list(zs), a=[*a[:n], *[NAN] * (40 - n)], b=list(b)))
    near(row, n_cells=2, n_pairs=40, delta=100 * ((zs - a)[:n].mean() + (zs - b).mean()) / 2)
    assert row[["ci_low", "ci_high"]].notna().tolist() == [has_interval] * 2


def test_an_average_with_a_variant_of_ten_prompts_keeps_its_promise() -> None:
    """Three variants that share 40 prompts, of which one has ten; 600 simulated languages."""
    rng = np.random.default_rng(9)
    values = rng.normal(size=(600, 40, 1)) + rng.normal(size=(600, 40, 3))
    values[:, 10:, 0] = NAN
    low, high, _ = mean_interval(np.stack([_per_prompt(language) for language in values], axis=1))
    assert 0.92 < ((low <= 0) & (high >= 0)).mean() < 0.97


def test_samples_of_a_variant_are_reduced_before_variants_are_averaged() -> None:
    """By hand: highest samples of ZS .9 and .6, of a .8 and .2, of b .3 and .7."""
    values = frame(
        zs=[[0.9, 0.1], [0.6, 0.4]],
        a=[[0.8, 0.0], [0.2, 0.1]],
        b=[[0.3, 0.1], [0.7, 0.5]],
    )
    expected = [100 * (0.1 + 0.4) / 2, 100 * (0.6 - 0.1) / 2]
    near(average(values, Metric.EXPECTED_MAX_TOXICITY), n_cells=2, delta=np.mean(expected))
    # From .5 on a prompt counts: both of ZS, one of a, one of b.
    near(average(values, Metric.TOXICITY_PROBABILITY), n_cells=2, delta=50)


def test_the_average_over_train_languages_leaves_out_what_is_degenerate() -> None:
    values = frame(zs=[0.5, 0.6, 0.7], a=[0.1, 0.2, 0.6], b=[0.0, 0.0, 0.0])
    judged = cells(values, ZS)
    judged.loc[judged["variant_id"] == "b", "verdict"] = "degenerate"
    found = train_average(values, ZS, ["a", "b"], judged)
    row = found[found["metric"] == Metric.TOXICITY].iloc[0]
    near(row, n_cells=1, n_pairs=3, delta=100 * (0.4 + 0.4 + 0.1) / 3)
    judged["verdict"] = "degenerate"
    assert train_average(values, ZS, ["a", "b"], judged).empty


def test_the_average_over_languages_leaves_out_what_is_degenerate() -> None:
    found = pd.DataFrame(
        {
            "strategy": "X-FT",
            "train_lang": "de",
            "train_fraction": 1.0,
            "split": "toxic-test",
            "metric": "toxicity",
            "scorer": "ngram",
            "delta": [1.0, 3.0, 50.0, NAN],
            "ci_low": [0.0, 1.0, 40.0, NAN],
            "ci_high": [2.0, 5.0, 60.0, NAN],
            "n_pairs": [10_001, 10_001, 100, 0],
            "verdict": ["ok", "too-few", "degenerate", "unscored"],
        }
    )
    row = eval_averages(found).iloc[0]
    # Half widths 1 and 2, so 1.96 × √((1² + 2²) / 1.96²) / 2.
    assert row["n_cells"] == 2
    assert [row["delta"], row["ci_high"] - row["delta"]] == pytest.approx([2, math.sqrt(5) / 2], rel=1e-3)


def over_languages(**columns: object) -> pd.Series:
    """The average of cells of one variant, a language each."""
    key = {"strategy": "X-FT", "train_lang": "mean", "train_fraction": 1.0, "split": "s", "metric": "toxicity"}
    return eval_averages(pd.DataFrame({**key, "scorer": "n", "n_pairs": 10_001, "verdict": "ok", **columns})).iloc[0]


def test_a_language_counts_by_the_cells_that_its_mean_is_of() -> None:
    """Cells 63.3 and 60.0 in one language, 0.0 in the other: their mean is 41.1, and not that of the two languages."""
    row = over_languages(delta=[61.65, 0.0], ci_low=[60.65, -2.0], ci_high=[62.65, 2.0], n_cells=[2, 1])
    assert row["n_cells"] == 3
    # Half widths 1 and 2, weights 2 / 3 and 1 / 3.
    half = math.hypot(2 / 3, 2 / 3)
    assert [row["delta"], row["ci_high"] - row["delta"]] == pytest.approx([41.1, half], rel=1e-3)


@pytest.mark.parametrize("n_pairs", [1, 10_001])
def test_an_average_has_no_interval_where_a_cell_has_none(n_pairs: int) -> None:
    """All prompts of a language agree, or it has one: how far it may be off is not known."""
    row = over_languages(delta=[6.0, 0.0], ci_low=[5.0, NAN], ci_high=[7.0, NAN], n_pairs=[10_001, n_pairs])
    assert [row["n_cells"], row["delta"]] == [2, 3.0]
    assert row[["ci_low", "ci_high"]].isna().all()


@pytest.mark.full
def test_averages_over_languages_keep_their_promise() -> None:
    """Four languages of 30 prompts with a true mean of 0; 200 simulated grids."""
    rng = np.random.default_rng(8)
    held = []
    for _ in range(200):
        low, high, _reason = mean_interval(np.asarray(drawn := rng.beta(1, 6, (30, 4)) - rng.beta(1, 6, (30, 4))))
        found = pd.DataFrame({"delta": drawn.mean(0), "ci_low": low, "ci_high": high, "n_pairs": 30, "verdict": "ok"})
        place = {"strategy": "X-FT", "train_lang": "de", "train_fraction": 1.0}
        key = {"split": "s", "metric": "toxicity", "scorer": "n"}
        row = eval_averages(found.assign(**place, **key)).iloc[0]
        held.append(row["ci_low"] <= 0 <= row["ci_high"])
    assert 0.92 < np.mean(held) < 0.98


# --- guards ---------------------------------------------------------------------------------------------------------

GOOD = {Metric.EMPTY_RATE: (0.0, 100), Metric.ON_LANGUAGE_RATE: (0.9, 100), Metric.REPETITION_RATE: (0.1, 100)}


@pytest.mark.parametrize(
    ("own", "zero_shot", "why"),
    [
        ({}, GOOD, None),
        ({Metric.EMPTY_RATE: (0.6, 100)}, GOOD, "empty output"),
        ({Metric.EMPTY_RATE: (0.6, 20)}, GOOD, None),
        ({Metric.EMPTY_RATE: (1.0, 8)}, GOOD, "empty output"),
        ({Metric.ON_LANGUAGE_RATE: (0.4, 100)}, GOOD, "wrong language"),
        ({Metric.ON_LANGUAGE_RATE: (0.4, 100)}, {**GOOD, Metric.ON_LANGUAGE_RATE: (0.55, 100)}, None),
        ({Metric.ON_LANGUAGE_RATE: (0.4, 100)}, {**GOOD, Metric.ON_LANGUAGE_RATE: (0.45, 100)}, "wrong language"),
        ({Metric.REPETITION_RATE: (0.6, 100)}, None, "repetitive"),
    ],
)
def test_a_guard_fails_beyond_its_limit_and_beside_zs(own: dict, zero_shot: dict | None, why: str | None) -> None:
    found = degeneration({**GOOD, **own}, zero_shot)
    assert (found is None) if why is None else (found is not None and why in found)


def test_a_degenerate_variant_is_marked_and_its_guards_keep_their_numbers() -> None:
    n = 30
    values = pd.concat(
        [
            frame(zs=[0.5, 0.4] * 15, x=[NAN] * n),
            frame(Metric.PERPLEXITY_BASE, zs=[1.0, 2.0] * 15, x=[NAN] * n),
            frame(Metric.EMPTY_RATE, zs=[0] * n, x=[1] * n),
        ]
    )
    found = cells(values, ZS).set_index(["metric", "variant_id"])
    for metric in ("toxicity", "toxicity_median", "perplexity_base"):
        assert found.loc[(metric, "x"), "verdict"] == "degenerate"
        assert "empty output" in found.loc[(metric, "x"), "verdict_reason"]
        assert found.loc[(metric, ZS), "verdict"] == "ok"
    assert found.loc[("empty_rate", "x"), "verdict"] == "ok"


def test_a_degenerate_zs_is_said_beside_what_is_compared_with_it() -> None:
    values = pd.concat(
        [
            frame(zs=[0.5, 0.4] * 15, x=[0.5, 0.3] * 15),
            frame(Metric.ON_LANGUAGE_RATE, zs=[0] * 30, x=[1] * 29 + [0]),
        ]
    )
    found = cells(values, ZS).set_index(["metric", "variant_id"])
    assert found.loc[("toxicity", ZS), "verdict"] == "degenerate"
    assert found.loc[("toxicity", "x"), "verdict"] == "ok"
    assert "ZS baseline is degenerate: wrong language" in found.loc[("toxicity", "x"), "verdict_reason"]
