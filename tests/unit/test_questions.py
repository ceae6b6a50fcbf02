"""Research questions on matrices that were made with a known answer, and on the paper's figures."""

import math

import numpy as np
import pandas as pd
import pytest

from engine.analysis import against_published, cost, share_of_data, transfer
from engine.analysis.questions import residuals
from engine.data import linguistics, published
from engine.vocabulary import NINE

LANGS = [lang.value for lang in NINE]
SCRIPTS = np.array([[a.facts.script == b.facts.script for b in NINE] for a in NINE])
PAPER = published.cells().assign(run_id=None, variant_id=None, verdict=None, ci_low=math.nan, ci_high=math.nan)


def cells(matrix: np.ndarray, model: str = "m") -> pd.DataFrame:
    shared = {"run_id": "r", "model": model, "split": "toxic-test", "metric": "toxicity", "scorer": "ngram"}
    shared |= {"strategy": "X-FT", "train_fraction": 1.0, "verdict": "ok", "ci_low": -9.0, "ci_high": 9.0}
    return pd.DataFrame(
        {**shared, "variant_id": f"x-ft-{t}", "train_lang": t, "eval_lang": e, "delta": matrix[i, j]}
        for i, t in enumerate(LANGS)
        for j, e in enumerate(LANGS)
    )


def answers(matrix: np.ndarray, model: str = "m") -> pd.DataFrame:
    found = transfer(cells(matrix, model), linguistics.syntactic_distances(), linguistics.shares())
    return found.set_index("predictor")


def additive(rng: np.random.Generator) -> np.ndarray:
    """Good and bad train languages, toxic and mild evaluation languages, and no more."""
    return rng.normal(0, 5, (9, 1)) + rng.normal(0, 5, (1, 9))


def test_the_effects_of_rows_and_columns_are_taken_out() -> None:
    matrix = additive(np.random.default_rng(1))
    np.testing.assert_allclose(residuals(matrix, np.ones((9, 9), bool)), 0, atol=1e-9)
    matrix[2, 3] = math.nan
    left = residuals(matrix, ~np.eye(9, dtype=bool))
    assert np.isnan(left).sum() == 10
    np.testing.assert_allclose(left[~np.isnan(left)], 0, atol=1e-9)


def test_a_script_effect_is_found_with_its_size() -> None:
    rng = np.random.default_rng(2)
    found = answers(additive(rng) + 4.0 * SCRIPTS + rng.normal(0, 0.5, (9, 9)))
    assert found.loc["same script", "n"] == 72
    # Part of a script's effect is that of its rows and columns, so less than 4 is left.
    assert 2 < found.loc["same script", "effect"] < 4
    assert found.loc["same script", "correlation"] > 0.8
    assert found.loc["same script", "p_value"] < 0.05


def test_the_own_language_stands_out_when_it_does() -> None:
    rng = np.random.default_rng(3)
    found = answers(additive(rng) + 6.0 * np.eye(9) + rng.normal(0, 0.5, (9, 9)))
    assert found.loc["same language", "effect"] == pytest.approx(6, abs=0.7)
    assert found.loc["same language", "p_value"] < 0.001


def test_nothing_is_found_where_nothing_is() -> None:
    rng = np.random.default_rng(4)
    found = [answers(additive(rng) + rng.normal(0, 1, (9, 9)))["p_value"] for _ in range(6)]
    p_values = np.concatenate(found)
    assert len(p_values) == 24
    assert (p_values < 0.05).mean() < 0.2
    assert 0.3 < p_values.mean() < 0.7


def test_shares_are_asked_of_bases_whose_makers_say_them() -> None:
    percent = linguistics.shares().query("model == 'mt5-large'")["percent"].to_numpy()
    found = answers(np.log(percent)[:, None] + np.zeros((1, 9)) + np.eye(9) * 1e-3, "mt5-large")
    assert found.loc["pre-training share (train)", "correlation"] == pytest.approx(1)
    assert found.loc["pre-training share (train)", "p_value"] < 0.01
    assert "pre-training share (train)" not in answers(np.eye(9), "aya-23-8b").index


def test_shares_are_of_means_over_the_same_languages() -> None:
    """The row that lacks a number would have the highest mean, were it of other languages than the others."""
    shares = linguistics.shares().query("model == 'mt5-large'").set_index("lang")["percent"][LANGS].to_numpy()
    matrix = np.add.outer(np.log(shares), 100.0 * np.arange(9))
    matrix[np.argmin(shares), 0] = math.nan
    found = answers(matrix, "mt5-large").loc["pre-training share (train)"]
    assert [found["n"], found["correlation"]] == [8, pytest.approx(1)]


def test_too_small_a_matrix_has_no_answer() -> None:
    few = cells(np.eye(9)).query("train_lang in ['de', 'en'] and eval_lang in ['de', 'en']")
    assert transfer(few, linguistics.syntactic_distances(), linguistics.shares()).empty
    lost = cells(np.eye(9)).assign(delta=math.nan)
    assert transfer(lost, linguistics.syntactic_distances(), linguistics.shares()).empty


def test_distances_and_shares_are_whole() -> None:
    distances = linguistics.syntactic_distances()
    assert {frozenset(pair) for pair in distances[["lang_a", "lang_b"]].values.tolist()} == {
        frozenset((a, b)) for a in LANGS for b in LANGS if a < b
    }
    assert distances["syntactic"].between(0, 1).all()
    assert linguistics.shares().groupby("model")["lang"].apply(set).map(lambda found: found == set(LANGS)).all()


def pooled(row: str, run: str, delta: float) -> dict[str, object]:
    strategy, fraction = ("M-FT", 1.0) if row == "m-ft" else ("P-FT", int(row[-2:]) / 100)
    place = {"run_id": run, "variant_id": f"{row} {run}", "model": "m", "split": "toxic-test", "metric": "toxicity"}
    return {**place, "scorer": "ngram", "strategy": strategy, "train_lang": "all", "train_fraction": fraction,
            "verdict": "ok", "eval_lang": "de", "delta": delta}  # fmt: skip


def trained(rows: pd.DataFrame, epochs: list[int]) -> pd.DataFrame:
    return rows[["variant_id"]].assign(dataset_hash="d", limit_train=math.nan, epochs=epochs, batch_size=4)


def test_a_part_of_the_data_beside_all_of_it_also_at_equal_steps() -> None:
    rows = pd.DataFrame([pooled("p-ft-10", "a", 2.0), pooled("m-ft", "a", 4.0), pooled("m-ft", "b", 1.0)])
    training = trained(rows, [20, 20, 2])
    found = share_of_data(rows, training).set_index("compared_with")
    columns = ["passes", "passes_with", "n", "delta", "delta_with", "kept"]
    assert found.loc["same epochs", columns].tolist() == pytest.approx([2, 20, 1, 2, 4, 0.5])
    assert found.loc["same steps", columns].tolist() == pytest.approx([2, 2, 1, 2, 1, 2.0])
    assert share_of_data(rows, training.assign(dataset_hash=["d", "e", "e"])).empty
    assert share_of_data(rows, training.assign(batch_size=[4, 8, 8])).empty


def test_a_variant_that_two_runs_share_counts_once() -> None:
    own = [pooled("p-ft-10", "a", 2.0), pooled("m-ft", "a", 4.0)]
    shared = own[1] | {"run_id": "other", "delta": 8.0}
    rows = pd.DataFrame([shared, *own])
    found = share_of_data(rows, trained(rows, [20, 20, 20]).drop_duplicates("variant_id"))
    assert found.loc[found["run_id"] == own[0]["run_id"], ["n", "delta_with"]].to_numpy().tolist() == [[1, 4.0]]


def test_what_is_kept_of_nothing_is_unknown() -> None:
    rows = pd.DataFrame([pooled("p-ft-10", "a", 2.0), pooled("m-ft", "a", -4.0)])
    assert math.isnan(share_of_data(rows, trained(rows, [2, 2]))["kept"][0])


def test_the_cost_is_counted_over_settings_that_have_both() -> None:
    toxic = cells(np.arange(81.0).reshape(9, 9))
    fluent = cells(-2 * np.arange(81.0).reshape(9, 9)).assign(metric="perplexity_base", scorer=None)
    found = cost(pd.concat([toxic, fluent.iloc[:40]]))
    assert found[["n", "delta", "fluency_delta", "correlation"]].values.tolist() == [
        [40, 19.5, -39.0, pytest.approx(-1)]
    ]


def test_the_published_costs_are_means_of_the_printed_numbers() -> None:
    found = cost(PAPER).set_index(["model", "split"])
    assert len(found) == 9  # 4 bases, 3 splits, less the three tables that are lost
    printed = PAPER.query("model == 'mt5-large' and split == 'toxic-test' and strategy == 'X-FT'")
    for metric, column in {"toxicity": "delta", "perplexity_published": "fluency_delta"}.items():
        mean = printed.loc[printed["metric"] == metric, "delta"].mean()
        assert found.loc[("mt5-large", "toxic-test"), column] == pytest.approx(mean)


def test_the_paper_agrees_with_itself() -> None:
    compared, summary = against_published(PAPER, PAPER)
    own = summary[summary["model"] == summary["published_model"]]
    toxic = own[own["metric"] == "toxicity"]
    assert len(toxic) == 9 and (toxic["n"] == 81).all()
    assert toxic[["rank_correlation", "sign_agreement", "cell_correlation"]].to_numpy() == pytest.approx(1.0)
    assert len(compared) == summary["n"].sum()


def test_a_run_beside_the_paper() -> None:
    paper = PAPER.query(
        "model == 'aya-23-8b' and split == 'toxic-test' and metric == 'toxicity' and strategy == 'X-FT'"
    )
    ours = paper.assign(model="m", scorer="ngram", delta=-paper["delta"])
    compared, summary = against_published(ours, PAPER)
    (row,) = summary.query("published_model == 'aya-23-8b'").to_dict("records")
    assert (row["model"], row["scorer"], row["n"]) == ("m", "ngram", 81)
    assert [row["rank_correlation"], row["cell_correlation"]] == pytest.approx([-1, -1])
    nought = (paper["delta"] == 0).sum()
    assert row["sign_agreement"] == pytest.approx(nought / 81)
    cell = compared.query("published_model == 'aya-23-8b' and train_lang == 'de' and eval_lang == 'en'").iloc[0]
    assert cell["delta"] == -cell["published_delta"]
    perplexity = ours.assign(metric="perplexity_self", scorer=None)
    assert set(against_published(perplexity, PAPER)[1]["metric"]) == {"perplexity_self"}


def test_beside_the_paper_like_stands_with_like() -> None:
    """By hand: three train languages in two languages each. Ours in German of Hindi is degenerate."""
    printed = {"de": (4.0, 1.0), "es": (2.0, 2.0), "hi": (1.0, 9.0), "en": (0.0, 0.0)}
    ours = {"de": (3.0, 2.0), "es": (2.0, 1.0), "hi": (-99.0, 9.0), "en": (-2.0, 0.0)}

    def side(numbers: dict[str, tuple[float, float]], model: str) -> pd.DataFrame:
        found = cells(np.full((9, 9), math.nan), model)
        for train, pair in numbers.items():
            for lang, delta in zip(("de", "en"), pair, strict=True):
                found.loc[(found["train_lang"] == train) & (found["eval_lang"] == lang), "delta"] = delta
        return found

    run = side(ours, "m")
    run.loc[(run["train_lang"] == "hi") & (run["eval_lang"] == "de"), "verdict"] = "degenerate"
    compared, summary = against_published(run, side(printed, "paper"))
    assert len(compared) == 7
    assert ("hi", "de") not in zip(compared["train_lang"], compared["eval_lang"], strict=True)
    (row,) = summary.to_dict("records")
    # A Δ of −2 beside one of 0 is another sign; 0 beside 0 is the same one.
    assert (row["n"], row["sign_agreement"]) == (7, pytest.approx(6 / 7))
    # Without Hindi, which lacks German: de, es, en by 2.5, 1.5, −1 and by 2.5, 2, 0.
    assert row["rank_correlation"] == pytest.approx(1.0)
