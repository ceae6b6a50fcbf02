"""The heatmap page on a seeded run: its numbers are the file's, and what is missing or unscored is not zero."""

import json
import math
import re
from pathlib import Path
from shutil import copy

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app import labels
from engine import analysis, store
from engine.data import published
from engine.vocabulary import Language, Verdict
from tests.app import seed
from tests.app.conftest import Open
from tests.app.reading import layer, marks, page_html


@pytest.fixture
def cells(full: Path) -> pd.DataFrame:
    """The toxicity cells of the run on toxic-test, with the label of their variant as `row`."""
    found = store.cells(full, seed.SOURCE).query("split == 'toxic-test' and metric == 'toxicity'")
    rows = {v.variant_id: v.label for v in seed.variants(seed.LANGS)}
    return found.assign(row=found["variant_id"].map(rows))


def test_every_cell_shows_the_number_of_the_file(open_heatmap: Open, full: Path, cells: pd.DataFrame) -> None:
    shown = marks(open_heatmap(full))
    assert len(cells) == 23
    for cell in cells.to_dict("records"):
        mark = shown[cell["row"], cell["eval_lang"]]
        number = cell["value"] if cell["strategy"] == "ZS" else cell["delta"]
        assert mark["shown"] == pytest.approx(number)
        assert mark["label"] == f"{number:.1f}".replace("-", labels.MINUS)
        assert mark["95 % interval"].startswith(f"{cell['ci_low']:.2f}".replace("-", labels.MINUS))
        assert mark["Prompts"] == "32, 30 with a value, 30 paired with ZS"


def test_a_missing_cell_is_no_zero_and_says_why(open_heatmap: Open, full: Path) -> None:
    cell = marks(open_heatmap(full))["p-ft-30", "de"]
    assert cell["shown"] is None or math.isnan(cell["shown"])
    assert cell["label"] == "×"
    assert cell["fill"] == labels.PALETTES["light"].missing
    assert cell["Verdict"] == "missing: failed: the loss is no number"


def test_means_are_over_the_cells_that_have_a_number(open_heatmap: Open, full: Path, cells: pd.DataFrame) -> None:
    shown = marks(open_heatmap(full))
    alone = cells[cells["strategy"] == "X-FT"]
    thirty = cells[cells["row"] == "p-ft-30"]
    assert set(thirty["eval_lang"]) == {"ar", "en"}
    assert shown["p-ft-30", "mean"]["shown"] == pytest.approx(thirty["delta"].mean())
    assert shown["p-ft-30", "mean"]["Verdict"] == "mean of 2 cells, not ranked"
    assert shown["mean", "de"]["shown"] == pytest.approx(alone.loc[alone["eval_lang"] == "de", "delta"].mean())
    assert shown["mean", "mean"]["shown"] == pytest.approx(alone["delta"].mean())
    zs = cells[cells["strategy"] == "ZS"]
    assert shown["zs", "mean"]["shown"] == pytest.approx(zs["value"].mean())


def test_what_means_are_compared_without_is_named(open_heatmap: Open, full: Path) -> None:
    assert (
        "Means over languages use only the languages that all compared variants share. Excluded: p-ft-30."
        in page_html(open_heatmap(full))
    )


def test_a_cell_is_uncertain_when_zero_is_in_its_interval(open_heatmap: Open, full: Path, cells: pd.DataFrame) -> None:
    shown = marks(open_heatmap(full))
    tuned = cells[cells["strategy"] != "ZS"]
    doubtful = (tuned["ci_low"] <= 0) & (tuned["ci_high"] >= 0) | (tuned["verdict"] == Verdict.TOO_FEW)
    assert 0 < doubtful.sum() < len(doubtful)
    for row, lang, is_doubtful in zip(tuned["row"], tuned["eval_lang"], doubtful, strict=True):
        assert shown[row, lang]["state"] == ("uncertain" if is_doubtful else "plain")
    assert {shown["zs", lang]["state"] for lang in seed.LANGS} == {"plain"}


def test_a_published_cell_has_no_interval_and_no_mark(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, source=store.PUBLISHED, model="bloom-7b1", split="toxic-test", row="x-ft-de", eval="en")
    shown, paper = marks(app), published.cells().query("model == 'bloom-7b1' and split == 'toxic-test'")
    lost = paper.query("metric == 'toxicity' and value.isna()")
    states = [mark["state"] for key, mark in shown.items() if "mean" not in key]
    assert set(states) == {"plain", "missing"}
    assert states.count("missing") == len(lost)
    assert "prints no intervals" in page_html(app)
    assert "not published" in app.info[0].value


def test_the_address_holds_the_whole_view(open_heatmap: Open, full: Path) -> None:
    address = {"source": seed.SOURCE, "model": "tiny-random", "split": "toxic-train", "metric": "empty_rate"}
    address |= {"row": "m-ft", "eval": "de"}
    address |= {"show": "score", "order": "family", "matrices": "one", "first": "worsened"}
    app = open_heatmap(full, **address)
    boxes = {key: app.selectbox(key=key).value for key in address if key != "first"}
    assert {**boxes, "first": app.segmented_control(key="first").value} == address
    app.selectbox(key="eval").select("en").run()
    assert app.query_params == {**address, "eval": "en"}


def test_an_address_that_names_nothing_here_is_mended(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, source="run:gone", metric="charm", row="x-ft-xx", eval="de")
    assert not app.exception
    assert app.query_params["source"] == seed.SOURCE
    assert app.query_params["metric"] == "toxicity"
    assert "row" not in app.query_params


def test_each_metric_of_the_run_can_be_shown(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, row="x-ft-de", eval="en")
    for metric in ("toxicity", "perplexity_self", "empty_rate"):
        app.selectbox(key="metric").select(metric).run()
        assert not app.exception
        assert labels.MEASURES[metric].name in page_html(app)


def test_the_story_of_a_cell(open_heatmap: Open, full: Path, cells: pd.DataFrame) -> None:
    (cell,) = cells.query("row == 'x-ft-de' and eval_lang == 'ar'").to_dict("records")
    story = page_html(open_heatmap(full, row="x-ft-de", eval="ar"))
    value, baseline, low = (f"{cell[c]:.2f}".replace("-", labels.MINUS) for c in ("value", "baseline", "ci_low"))
    assert f"German (X-FT), evaluated in Arabic on toxic-test. Toxicity (× 100): {value} vs. {baseline}" in story
    assert f"(95\N{NO-BREAK SPACE}% interval {low} to " in story
    assert "30 of 32 prompts." in story


def test_completions_stand_side_by_side_by_their_change(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, row="x-ft-de", eval="en")
    changes = _changes(app)
    assert len(changes) == 10
    assert changes == sorted(changes, reverse=True)
    article = page_html(app).split("<article")[1]
    assert article.count("This soup is far too cold.") == 6  # prompt, ZS and variant; each blurred and clear
    assert "Complete the sentence" not in article
    assert [w in article for w in ("Zero-shot (ZS)", "German (X-FT)")] == [True, True]
    app.segmented_control[0].set_value("worsened").run()
    assert _changes(app) == sorted(_changes(app))
    assert _changes(app)[0] < changes[-1]


def test_what_was_not_scored_comes_last_with_its_reason(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, row="x-ft-de", eval="ar")
    app.pagination[0].set_value(4).run()
    last = page_html(app).split("<article")[-2:]
    assert "not scored: empty" in last[0]
    assert "not scored: unsupported-language" in last[1]
    assert not any("toxicity 0" in article or "Δ" in article for article in last)


def test_the_page_of_a_cell_s_texts_stands_in_the_address(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, row="x-ft-de", eval="ar")
    app.pagination[0].set_value(3).run()
    assert app.query_params["page"] == "3"
    again = open_heatmap(full, row="x-ft-de", eval="ar", page="3")
    assert page_html(again).count("<article") == 10
    assert page_html(again).split("<article")[1:] == page_html(app).split("<article")[1:]
    again.segmented_control[0].set_value("worsened").run()
    assert "page" not in again.query_params


def test_markup_of_a_model_is_text(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, row="x-ft-de", eval="ar")
    app.pagination[0].set_value(4).run()
    assert "&lt;b&gt;not bold&lt;/b&gt; *not slanted* [no link]" in page_html(app)
    assert "<b>" not in page_html(app)
    assert not any("not slanted" in element.value for element in app.markdown)


def test_texts_are_blurred_until_the_switch(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, row="x-ft-de", eval="ar")
    assert page_html(app).count('<details class="x-veil">') == 30
    assert 'lang="ar" dir="rtl"' in page_html(app)
    app.toggle(key="reveal").set_value(True).run()
    assert "<details" not in page_html(app)


def test_a_zero_shot_cell_shows_zero_shot_alone(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, row="zs", eval="en")
    assert not app.exception
    assert not app.segmented_control
    article = page_html(app).split("<article")[1]
    assert article.count("<span>toxicity ") == 1
    assert "X-FT" not in article


def test_the_measured_gap_of_the_scorer_is_told(open_heatmap: Open, full: Path) -> None:
    assert "Scorer ngram: neutral training sentences score 11.0, held-out ones 19.5." in page_html(open_heatmap(full))


def _changes(app: AppTest) -> list[float]:
    found = re.findall(r"Δ ([+−]?[\d.]+)</span>", page_html(app))
    return [float(change.replace(labels.MINUS, "-")) for change in found]


def test_a_degenerate_cell_has_its_own_mark_and_no_colour(open_heatmap: Open, degenerate: Path) -> None:
    shown = marks(open_heatmap(degenerate))
    assert shown["x-ft-de", "en"]["state"] == "degenerate"
    assert shown["x-ft-de", "en"]["fill"] == labels.PALETTES["light"].missing
    assert shown["x-ft-de", "en"]["label"] == "60.0"
    assert shown["x-ft-de", "mean"]["shown"] < 20  # without the 60


def test_the_story_of_a_degenerate_cell_says_why(open_heatmap: Open, degenerate: Path) -> None:
    story = page_html(open_heatmap(degenerate, row="x-ft-de", eval="en"))
    assert f'role="alert">▲ Degenerate: {seed.WHY_DEGENERATE}.' in story
    assert "▲ Degenerate" not in page_html(open_heatmap(degenerate, row="x-ft-de", eval="ar"))


def test_averages_and_their_intervals_are_the_store_s(open_heatmap: Open, averaged: Path) -> None:
    shown = marks(open_heatmap(averaged, scorer=seed.SCORER))
    stored = store.averages(averaged, seed.SOURCE).query(
        "split == 'toxic-test' and metric == 'toxicity' and scorer == 'ngram'"
    )
    over_x_ft = stored[(stored["train_lang"] == "mean") & stored["ci_low"].notna()]
    assert set(over_x_ft["eval_lang"]) == {*seed.LANGS, "mean"}
    for average in over_x_ft.to_dict("records"):
        mark = shown["mean", average["eval_lang"]]
        assert mark["shown"] == pytest.approx(average["delta"])
        assert mark["95 % interval"].startswith(f"{average['ci_low']:.2f}".replace("-", labels.MINUS))
        has_zero = average["ci_low"] <= 0 <= average["ci_high"]
        assert mark["state"] == ("uncertain" if has_zero else "plain")


def test_scores_are_shown_instead_of_differences(open_heatmap: Open, full: Path, cells: pd.DataFrame) -> None:
    app = open_heatmap(full, show="score")
    shown = marks(app)
    for cell in cells.to_dict("records"):
        assert shown[cell["row"], cell["eval_lang"]]["shown"] == pytest.approx(cell["value"])
    zs = cells[cells["strategy"] == "ZS"]
    assert shown["zs", "mean"]["shown"] == pytest.approx(zs["value"].mean())
    assert "less toxic" not in page_html(app)


def test_the_mean_of_perplexities_is_geometric(open_heatmap: Open, full: Path) -> None:
    shown = marks(open_heatmap(full, show="score", metric="perplexity_self"))
    found = store.cells(full, seed.SOURCE).query("split == 'toxic-test' and metric == 'perplexity_self'")
    zs = found.loc[found["strategy"] == "ZS", "value"]
    assert shown["zs", "mean"]["shown"] == pytest.approx(math.exp(zs.map(math.log).mean()))


def test_rows_are_ordered_by_family_script_or_mean(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, source=store.PUBLISHED, model="aya-23-8b", order="family")
    assert _trained(app) == ["am", "ar", "de", "en", "hi", "es", "ru", "uk", "zh"]
    app.selectbox(key="order").select("script").run()
    assert _trained(app) == ["ar", "ru", "uk", "hi", "am", "zh", "de", "en", "es"]
    app.selectbox(key="order").select("mean").run()
    means = [marks(app)[f"x-ft-{lang}", "mean"]["shown"] for lang in _trained(app)]
    assert means == sorted(means, reverse=True)


def test_the_least_toxic_comes_first_by_its_score_too(open_heatmap: Open, full: Path) -> None:
    orders = []
    for show, is_falling in (("delta", True), ("score", False)):
        app = open_heatmap(full, order="mean", show=show)
        shown = marks(app)
        means = [shown[f"x-ft-{lang}", "mean"]["shown"] for lang in _trained(app)]
        assert means == sorted(means, reverse=is_falling)
        assert len(set(means)) == 3
        orders.append(_trained(app))
    # Every prompt is paired here, so a higher mean Δ is a lower mean score.
    assert orders[0] == orders[1]


def _trained(app: AppTest) -> list[str]:
    """The train languages of X-FT from top to bottom, by where they are drawn."""
    tops = {row: mark["top"] for (row, _), mark in marks(app).items() if row.startswith("x-ft-")}
    return [row.removeprefix("x-ft-") for row in sorted(tops, key=tops.__getitem__)]


def test_all_models_share_one_colour_scale(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, source=store.PUBLISHED, matrices="models")
    assert not app.exception
    assert len(app.get("vega_lite_chart")) == 4
    fills: dict[float, set[str]] = {}
    for number in range(4):
        for (row, _), mark in marks(app, number).items():
            if row != "zs" and mark["state"] != "missing":
                fills.setdefault(mark["shown"], set()).add(mark["fill"])
    assert len(fills) > 100
    assert all(len(colours) == 1 for colours in fills.values())
    assert not any(box.key == "row" for box in app.selectbox)


def test_a_small_matrix_opens(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, matrices="splits")
    assert [button.label for button in app.main.button if button.label != "Understood"] == [
        "toxic-test",
        "toxic-train",
        "neutral-test",
    ]
    app.button(key="open neutral-test").click().run()
    assert app.selectbox(key="matrices").value == "one"
    assert app.query_params["split"] == "neutral-test"
    assert len(app.get("vega_lite_chart")) == 1


def test_the_differences_behind_a_cell(open_heatmap: Open, full: Path, cells: pd.DataFrame) -> None:
    app = open_heatmap(full, row="x-ft-de", eval="ar")
    (cell,) = cells.query("row == 'x-ft-de' and eval_lang == 'ar'").to_dict("records")
    deltas = [row["delta"] for row in layer(app, 1, 0)]
    assert len(deltas) == cell["n_pairs"] == 30
    assert sum(deltas) / len(deltas) == pytest.approx(cell["delta"])
    (marked,) = layer(app, 1, 1)
    assert [marked["low"], marked["delta"], marked["high"]] == [cell[c] for c in ("ci_low", "delta", "ci_high")]


def test_the_differences_of_a_perplexity_are_in_nats(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, row="x-ft-de", eval="ar", metric="perplexity_self")
    (cell,) = (
        store.cells(full, seed.SOURCE)
        .query(
            "split == 'toxic-test' and metric == 'perplexity_self' and train_lang == 'de' and eval_lang == 'ar' "
            "and strategy == 'X-FT'"
        )
        .to_dict("records")
    )
    deltas = [row["delta"] for row in layer(app, 1, 0)]
    assert len(deltas) == cell["n_pairs"]
    assert sum(deltas) / len(deltas) == pytest.approx(cell["delta"])


def test_no_picture_of_differences_that_are_not_kept(open_heatmap: Open, full: Path) -> None:
    app = open_heatmap(full, row="x-ft-de", eval="ar", metric="empty_rate")
    assert len(app.get("vega_lite_chart")) == 1
    assert "<article" in page_html(app)


@pytest.mark.parametrize(("delta", "says"), [(0.2, "fewer"), (-0.2, "more"), (0.0, "no change")])
def test_a_positive_difference_of_a_reversed_metric_is_worse(delta: float, says: str) -> None:
    measure = labels.MEASURES["on_language_rate"]
    assert measure.is_reversed
    assert measure.direction(delta) == says
    assert labels.MEASURES["toxicity"].direction(2.0) == "less toxic"


@pytest.mark.parametrize(
    ("delta", "said", "colour"),
    [(7.16, "Δ +7.16 points, less toxic", "better"), (-7.16, f"Δ {labels.MINUS}7.16 points, more toxic", "worse")],
)
def test_the_story_and_the_colour_of_a_cell_say_which_way_it_went(
    open_heatmap: Open, full: Path, tmp_path: Path, delta: float, said: str, colour: str
) -> None:
    path = copy(full, tmp_path / "results.duckdb")
    seed.replaced(path, "x-ft-de", Language.EN, "toxicity", delta=delta, ci_low=delta - 1, ci_high=delta + 1)
    app = open_heatmap(path, row="x-ft-de", eval="en")
    other = {"less toxic": "more toxic", "more toxic": "less toxic"}[said.partition(", ")[2]]
    (story,) = [html for html in page_html(app).splitlines() if "points, " in html]
    assert said in story
    assert other not in story
    fill = marks(app)["x-ft-de", "en"]["fill"]
    assert (fill[5:] > fill[1:3]) == (colour == "better")  # more blue than red
    spec = json.loads(app.get("vega_lite_chart")[1].proto.spec)
    assert spec["layer"][1]["mark"]["color"] == getattr(labels.PALETTES["light"], colour)


def test_a_cell_tells_what_other_seeds_say(open_heatmap: Open, tmp_path: Path) -> None:
    path = tmp_path / "seeds.duckdb"
    seed.planned(path)
    seed.finished(path)
    assert "seeds (" not in page_html(open_heatmap(path, row="x-ft-de", eval="ar"))
    seed.second_seed(path)
    cells = analysis.pool_seeds(pd.concat(store.cells(path, s) for s in (seed.SOURCE, f"run:{seed.SECOND}")))
    (expected,) = cells.query(
        "train_lang == 'de' and eval_lang == 'ar' and split == 'toxic-test' and metric == 'toxicity'"
    ).to_dict("records")
    told = page_html(open_heatmap(path, source=seed.SOURCE, row="x-ft-de", eval="ar"))
    mean = f"{expected['delta']:.2f}".replace("-", labels.MINUS)
    assert f"2 seeds (7, 42): mean Δ {mean}, standard deviation across seeds {expected['seed_sd']:.2f};" in told
