"""Means of a matrix, and what is ranked by them."""

import math

import pandas as pd
import pytest
from scipy import stats

from app import labels
from app.tables import grid, paper_table
from app.tables.grid import Order
from engine.analysis.metrics import VARIANT

NAN = math.nan
DELTAS = {"de": (4.0, 2.0), "es": (5.0, -1.0), "hi": (9.0, NAN)}
"""Train language → Δ in German and in English, where Hindi has no number."""


def made(deltas: dict[str, tuple[float, ...]], langs: str, metric: str = "toxicity", **more: object) -> pd.DataFrame:
    """The grid of X-FT, by train language and in these languages, without its means. Δ have ±1 as their interval."""
    rows = [
        {"row": f"x-ft-{lang}", "strategy": "X-FT", "train_lang": lang, "train_fraction": 1.0, "eval_lang": eval_lang,
         "status": "done", "error": None, "value": 30.0, "delta": delta, "ci_low": delta - 1, "ci_high": delta + 1,
         "verdict": "ok" if delta == delta else "unscored", "verdict_reason": None, "n_pairs": 40, "n": 40,
         "split": "toxic-test", "metric": metric, "scorer": "ngram", **more}
        for lang, own in deltas.items()
        for eval_lang, delta in zip(langs.split(), own, strict=True)
    ]  # fmt: skip
    every = pd.DataFrame(rows).reindex(columns=[*rows[0], *sorted(set(grid.NUMBERS) - set(rows[0]))])
    plan = every[["row", *VARIANT, "eval_lang", "status", "error"]]
    return grid.grid(plan, every.drop(columns=["strategy", "train_lang", "train_fraction", "status", "error"]), True)


@pytest.fixture
def cells() -> pd.DataFrame:
    found = made(DELTAS, "de en")
    return pd.concat([found, grid.means(found, grid.NO_AVERAGES)], ignore_index=True)


def test_a_mean_that_lacks_a_language_is_not_whole_and_comes_last(cells: pd.DataFrame) -> None:
    over_langs = cells[(cells["eval_lang"] == labels.MEAN) & (cells["row"] != labels.MEAN)].set_index("row")
    assert over_langs["shown"].to_dict() == {"x-ft-de": 3.0, "x-ft-es": 2.0, "x-ft-hi": 9.0}
    assert over_langs["is_whole"].to_dict() == {"x-ft-de": True, "x-ft-es": True, "x-ft-hi": False}
    assert set(over_langs["left_out"]) == {"x-ft-hi"}
    over_trained = cells[(cells["row"] == labels.MEAN) & (cells["eval_lang"] != labels.MEAN)].set_index("eval_lang")
    assert over_trained["is_whole"].all()
    assert over_trained["shown"].to_dict() == {"de": 4.5, "en": 0.5}  # without the 9 of Hindi
    order = grid.arrange(cells, Order.MEAN)["row"].drop_duplicates().tolist()
    assert order == ["x-ft-de", "x-ft-es", "x-ft-hi", labels.MEAN]


def test_the_best_of_a_column_is_among_what_compares(cells: pd.DataFrame) -> None:
    table = paper_table.of_grid(grid.arrange(cells, Order.ALPHABET), labels.MEASURES["toxicity"], "")
    best = {(row.name, column) for row in table.rows for column, entry in zip(table.columns, row.entries, strict=True)
            if entry.is_best}  # fmt: skip
    assert best == {("hi", "de"), ("de", "en"), ("de", labels.MEAN)}


def test_a_language_that_one_variant_alone_has_excludes_no_other() -> None:
    found = made({"am": (9.0, 1.0, 1.0), "de": (NAN, 4.0, 2.0), "es": (NAN, 5.0, -1.0)}, "am de en")
    means = grid.means(found, grid.NO_AVERAGES)
    over_langs = means[(means["eval_lang"] == labels.MEAN) & (means["row"] != labels.MEAN)].set_index("row")
    assert over_langs["shown"].to_dict() == {"x-ft-am": 1.0, "x-ft-de": 3.0, "x-ft-es": 2.0}
    assert over_langs["is_whole"].all()
    assert set(over_langs["left_out"]) == {"evaluated in am"}
    # Of the two languages, as two independent ones: half widths of 1 at 39 degrees of freedom each.
    half = math.sqrt(2) / 2 * stats.t.ppf(0.975, 78) / stats.t.ppf(0.975, 39)
    assert (over_langs["ci_high"] - over_langs["shown"]).tolist() == pytest.approx([half] * 3)


def test_what_has_no_number_at_all_is_not_there_to_be_left_out() -> None:
    found = made({"de": (4.0, NAN), "es": (5.0, NAN), "hi": (NAN, NAN)}, "de en")
    means = grid.means(found, grid.NO_AVERAGES).set_index(["row", "eval_lang"])
    assert set(means["left_out"].dropna()) == {""}
    assert means.loc[("x-ft-hi", labels.MEAN), ["state", "n_cells"]].tolist() == ["missing", 0]
    assert means.loc[(labels.MEAN, "en"), "state"] == "missing"
    assert means.loc[("x-ft-es", labels.MEAN), ["shown", "is_whole"]].tolist() == [5.0, True]


@pytest.mark.parametrize(("is_low_best", "best"), [(False, "x-ft-de"), (True, "x-ft-es")])
def test_the_best_mean_comes_first(cells: pd.DataFrame, is_low_best: bool, best: str) -> None:
    order = grid.arrange(cells, Order.MEAN, is_low_best)["row"].drop_duplicates().tolist()
    assert order[0] == best
    assert order[2:] == ["x-ft-hi", labels.MEAN]


def test_two_metrics_stand_beside_each_other_over_the_cells_that_count_in_both() -> None:
    """Perplexity lacks German of Spanish, toxicity of Russian is degenerate in English: neither is compared."""
    toxic = made({"de": (4.0, 2.0), "es": (5.0, 1.0), "ru": (9.0, 9.0), "uk": (1.0, 1.0)}, "de en")
    is_broken = (toxic["row"] == "x-ft-ru") & (toxic["eval_lang"] == "en")
    toxic["state"] = toxic["state"].mask(is_broken, grid.State.DEGENERATE.value)
    fluent = made({"de": (0.1, 0.3), "es": (NAN, 0.9), "ru": (0.4, 0.4), "uk": (0.0, 0.2)}, "de en", "perplexity_base")
    found = grid.mean_pairs(fluent, toxic).set_index("row")
    assert set(found["left_out"]) == {"x-ft-es, x-ft-ru"}
    whole = found[found["is_whole"]]
    assert whole["shown_x"].to_dict() == {"x-ft-de": pytest.approx(0.2), "x-ft-uk": pytest.approx(0.1)}
    assert whole["shown_y"].to_dict() == {"x-ft-de": 3.0, "x-ft-uk": 1.0}
    assert found.loc["x-ft-es", ["shown_x", "shown_y"]].tolist() == [0.9, 1.0]


def test_the_zero_shot_mean_of_perplexities_is_geometric_and_without_what_is_degenerate() -> None:
    zs = made({"de": (NAN, NAN, NAN)}, "de en zh", "perplexity_base", strategy="ZS", row="zs", train_lang=None)
    zs["value"] = zs["shown"] = [4.0, 9.0, 1000.0]
    zs["state"] = ["plain", "plain", "degenerate"]
    tuned = made({"de": (0.1, 0.2, 0.3)}, "de en zh", "perplexity_base")
    found = pd.concat([zs, tuned], ignore_index=True)
    means = grid.means(found, grid.NO_AVERAGES, is_log=True)
    (mean,) = means[means["row"] == "zs"].to_dict("records")
    assert (mean["shown"], mean["n_cells"]) == (pytest.approx(6.0), 2)
    table = paper_table.of_grid(pd.concat([found, means], ignore_index=True), labels.MEASURES["perplexity_base"], "")
    assert table.rows[0].entries[-1].text == "6.00"
    assert means.loc[means["row"] == "x-ft-de", "shown"].tolist() == pytest.approx([0.2])  # Δ are nats, added plainly
