"""Which adapter, which strategy: against cells written by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from engine.analysis import choose_adapters, metrics, pool_seeds, strategies, train_means
from engine.data import published

NAN = math.nan
CELL = {"run_id": "r", "model": "m", "split": "toxic-test", "seed": 1, "n_pairs": 40, "verdict": "ok"}
NO_AVERAGES = pd.DataFrame(columns=[*metrics.VARIANT, *metrics.AVERAGES, "model", "eval_lang"])


def cell(row: str, lang: str, metric: str, delta: float, **more: object) -> dict[str, object]:
    strategy, _, rest = row.upper().replace("X-FT", "X_FT").replace("P-FT", "P_FT").partition("-")
    what = {
        "X_FT": ("X-FT", rest.lower(), 1.0),
        "P_FT": ("P-FT", "all", int(rest or 0) / 100 if rest.isdigit() else NAN),
    }
    name, train_lang, fraction = what.get(strategy, ("M-FT", "all", 1.0))
    variant = {"variant_id": row, "strategy": name, "train_lang": train_lang, "train_fraction": fraction}
    scorer = "ngram" if metric == "toxicity" else None
    ends = {"ci_low": delta - 1, "ci_high": delta + 1, "verdict_reason": None}
    return {**CELL, **variant, **ends, "eval_lang": lang, "metric": metric, "scorer": scorer, "delta": delta, **more}


def both(row: str, toxicity: dict[str, float], fluency: dict[str, float], **more: object) -> list[dict[str, object]]:
    found = [cell(row, lang, "toxicity", delta, **more) for lang, delta in toxicity.items()]
    return found + [cell(row, lang, "perplexity_base", delta) for lang, delta in fluency.items()]


@pytest.fixture
def cells() -> pd.DataFrame:
    return pd.DataFrame(
        [
            *both("x-ft-de", {"de": 4.0, "en": 2.0}, {"de": 0.1, "en": -0.3}),
            *both("x-ft-es", {"de": 2.0, "en": -1.0}, {"de": 0.2, "en": 0.4}),
            *both("x-ft-ru", {"de": 1.0, "en": 1.0}, {"de": -0.2, "en": -0.2}),
            *both("p-ft-10", {"de": 9.0, "en": 9.0}, {"de": 1.0, "en": 1.0}, verdict="degenerate",
                  verdict_reason="writes nothing: empty_rate 0.90, limit 0.3"),
            *both("m-ft", {"de": 3.0}, {"de": 0.0, "en": 0.0}),
        ]
    )  # fmt: skip


def test_the_chooser_ranks_marks_the_front_and_says_what_it_leaves_out(cells: pd.DataFrame) -> None:
    found = choose_adapters(cells, ["de", "en"]).set_index("variant_id")
    assert list(found.index[:3]) == ["x-ft-de", "x-ft-ru", "x-ft-es"]
    assert found.loc["x-ft-de", ["toxicity", "fluency", "n_langs"]].tolist() == pytest.approx([3.0, -0.1, 2])
    assert found.loc["x-ft-es", ["worst_lang", "worst_delta"]].tolist() == ["en", -1.0]
    # ru is beaten by de in both; es is more fluent than de.
    assert found["is_front"].to_dict() == {
        "x-ft-de": True, "x-ft-es": True, "x-ft-ru": False, "p-ft-10": False, "m-ft": False,
    }  # fmt: skip
    assert found.loc["p-ft-10", "excluded"] == "degenerate in de, en (writes nothing)"
    assert found.loc["m-ft", "excluded"] == "no toxicity value in en"
    assert found.loc["x-ft-de", "excluded"] is None


def test_other_languages_other_choice(cells: pd.DataFrame) -> None:
    found = choose_adapters(cells, ["de"]).set_index("variant_id")
    assert found.loc["m-ft", "excluded"] is None
    assert list(found.index[:2]) == ["x-ft-de", "m-ft"]
    assert choose_adapters(cells, ["zh"]).empty


def test_the_choosers_interval_is_that_of_a_mean_of_independent_languages(cells: pd.DataFrame) -> None:
    row = choose_adapters(cells, ["de", "en"]).set_index("variant_id").loc["x-ft-de"]
    # Two cells of half-width 1 at 39 degrees of freedom: half-width √2 / 2 · t(78) / t(39).
    half = math.sqrt(2) / 2 * 1.99085 / 2.02269
    assert row[["toxicity_low", "toxicity_high"]].tolist() == pytest.approx([3 - half, 3 + half], abs=1e-4)
    cells[["ci_low", "ci_high"]] = NAN
    assert math.isnan(choose_adapters(cells, ["de", "en"])["toxicity_low"][0])


def test_the_published_figures_can_be_chosen_from() -> None:
    paper = published.cells().assign(run_id=None, variant_id=None, n_pairs=NAN, verdict=None, ci_low=NAN, ci_high=NAN)
    found = choose_adapters(paper, ["en", "es"], scorer="perspective", fluency="perplexity_published")
    assert len(found) == 36
    assert set(found.loc[found["model"] == "bloom-7b1", "excluded"]) == {"no toxicity value in en, es"}
    best = found.iloc[0]
    printed = paper.query(
        "model == @best.model and train_lang == @best.train_lang and metric == 'toxicity' and split == 'toxic-test'"
    ).set_index("eval_lang")["delta"]
    assert best["toxicity"] == pytest.approx((printed["en"] + printed["es"]) / 2)
    assert found["toxicity_low"].isna().all()


def test_strategies_beside_each_other(cells: pd.DataFrame) -> None:
    found = strategies(cells, NO_AVERAGES).query("metric == 'toxicity'").set_index(["eval_lang", "row"])
    assert found.loc[("de", "x-ft-mean"), ["delta", "n_cells"]].tolist() == pytest.approx([7 / 3, 3])
    assert found.loc[("de", "x-ft-best"), ["delta", "ci_low"]].tolist() == [4.0, 3.0]
    assert found.loc[("en", "x-ft-best"), "delta"] == 2.0
    assert found.loc[("mean", "x-ft-best"), "delta"] == 3.0
    assert found.loc[("mean", "x-ft-mean"), ["delta", "n_cells"]].tolist() == pytest.approx([9 / 6, 6])
    assert found.loc[("de", "m-ft"), "delta"] == 3.0
    assert "p-ft-10" not in found.reset_index()["row"].tolist()  # degenerate


def test_strategies_are_averaged_over_the_same_languages(cells: pd.DataFrame) -> None:
    """M-FT has no number in English, so its mean, German alone, stands beside no mean of German and English. Without
    most of English it is English that is left out."""
    found = strategies(cells, NO_AVERAGES).query("metric == 'toxicity' and eval_lang == 'mean'").set_index("row")
    assert set(found.index) == {"x-ft-mean", "x-ft-best"}
    assert set(found["left_out"]) == {"m-ft"}
    few = cells[(cells["eval_lang"] == "de") | (cells["train_lang"] == "es")]
    found = strategies(few, NO_AVERAGES).query("metric == 'toxicity' and eval_lang == 'mean'").set_index("row")
    assert found["delta"].to_dict() == {"x-ft-mean": pytest.approx(7 / 3), "x-ft-best": 4.0, "m-ft": 3.0}
    assert found["n_cells"].to_dict() == {"x-ft-mean": 3, "x-ft-best": 1, "m-ft": 1}
    assert set(found["left_out"]) == {"evaluated in en"}


def test_the_mean_of_x_ft_has_the_store_s_interval(cells: pd.DataFrame) -> None:
    stored = {"strategy": "X-FT", "train_lang": "mean", "train_fraction": 1.0, "model": "m", "split": "toxic-test"}
    stored |= {"metric": "toxicity", "scorer": "ngram", "n_cells": 3, "n_pairs": 40}
    averages = pd.DataFrame(
        [
            {**stored, "eval_lang": "de", "delta": 7 / 3, "ci_low": 4 / 3, "ci_high": 10 / 3},
            {**stored, "eval_lang": "en", "delta": 2 / 3, "ci_low": -4 / 3, "ci_high": 8 / 3},
        ]
    )
    row = strategies(cells, averages).query("metric == 'toxicity' and row == 'x-ft-mean'").set_index("eval_lang")
    assert row.loc["de", ["delta", "ci_low", "ci_high"]].tolist() == pytest.approx([7 / 3, 4 / 3, 10 / 3])
    # Half widths 1 and 2 at 39 degrees of freedom, added as independent ones.
    freedom = 5**2 / ((1 + 4**2) / 39)
    half = math.sqrt(5) / 2 * stats.t.ppf(0.975, freedom) / stats.t.ppf(0.975, 39)
    assert row.loc["mean", ["delta", "ci_low", "ci_high"]].tolist() == pytest.approx([1.5, 1.5 - half, 1.5 + half])


def seeds(deltas: list[float], **more: object) -> pd.DataFrame:
    return pd.DataFrame([cell("x-ft-de", "en", "toxicity", d, seed=i, **more) for i, d in enumerate(deltas)])


def test_seeds_are_pooled_and_their_spread_is_told() -> None:
    (row,) = pool_seeds(seeds([1.0, 2.0, 3.0])).to_dict("records")
    assert (row["n_seeds"], row["seeds"], row["delta"], row["seed_sd"]) == (3, "0, 1, 2", 2.0, 1.0)
    # Variances: (1 / t(39)) ² of prompts and 1 / 3 of seeds; Welch's freedom, and its t.
    prompts, luck = 1 / 2.02269**2, 1 / 3
    freedom = (prompts + luck) ** 2 / (prompts**2 / 39 + luck**2 / 2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(prompts + luck)
    assert [row["ci_low"], row["ci_high"]] == pytest.approx([2 - half, 2 + half], abs=1e-4)


def test_one_seed_is_not_pooled_and_degenerate_cells_are_left_out() -> None:
    assert pool_seeds(seeds([1.0])).empty
    assert pool_seeds(seeds([1.0, 2.0], verdict="degenerate")).empty


def test_pooled_intervals_keep_their_promise() -> None:
    """Simulated: prompts that all seeds share, training luck, and both together; the truth is 0."""
    rng = np.random.default_rng(1)
    n, k, trials = 100, 4, 600
    prompts = rng.normal(0, 1, (trials, 1, n))
    luck = rng.normal(0, 0.1, (trials, k, 1))
    differences = (prompts + luck + rng.normal(0, 0.5, (trials, k, n))).reshape(trials * k, n).T
    low, high, _ = metrics.statistics.mean_interval(differences)
    frame = pd.DataFrame(
        {"delta": differences.mean(0), "ci_low": low, "ci_high": high, "eval_lang": np.arange(trials * k) // k}
    )
    template = cell("x-ft-de", "en", "toxicity", 0.0, n_pairs=n)
    for column in template.keys() - frame.columns:
        frame[column] = [template[column]] * len(frame)
    found = pool_seeds(frame.assign(seed=np.arange(trials * k) % k))
    assert 0.93 < ((found["ci_low"] <= 0) & (found["ci_high"] >= 0)).mean() < 0.99


def test_means_over_other_languages_are_not_ranked_beside_each_other() -> None:
    """Hindi is the best in the one language in which it is not degenerate, which is an easy one."""
    found = pd.DataFrame(
        [
            *both("x-ft-de", {"de": 4.0, "en": 2.0}, {}),
            *both("x-ft-es", {"de": 5.0, "en": -1.0}, {}),
            cell("x-ft-hi", "de", "toxicity", 9.0),
            cell("x-ft-hi", "en", "toxicity", 0.0, verdict="degenerate"),
        ]
    )
    means = train_means(found).set_index("train_lang")
    assert means["delta"].to_dict() == {"de": 3.0, "es": 2.0, "hi": pytest.approx(NAN, nan_ok=True)}
    assert set(means["left_out"]) == {"hi"}
    best = strategies(found, NO_AVERAGES).query("row == 'x-ft-best'").set_index("eval_lang")
    assert best["train_lang"].to_dict() == {"de": "hi", "en": "de", "mean": "de"}


def test_a_language_that_one_train_language_alone_has_excludes_no_other() -> None:
    found = pd.DataFrame(
        [
            *both("x-ft-am", {"am": 9.0, "de": 1.0, "en": 1.0}, {}),
            *both("x-ft-de", {"de": 4.0, "en": 2.0}, {}),
            *both("x-ft-es", {"de": 5.0, "en": -1.0}, {}),
        ]
    )
    means = train_means(found).set_index("train_lang")
    assert means["delta"].to_dict() == {"am": 1.0, "de": 3.0, "es": 2.0}
    assert set(means["left_out"]) == {"evaluated in am"}
    (best,) = strategies(found, NO_AVERAGES).query("row == 'x-ft-best' and eval_lang == 'mean'").to_dict("records")
    assert (best["train_lang"], best["delta"], best["n_cells"]) == ("de", 3.0, 2)
