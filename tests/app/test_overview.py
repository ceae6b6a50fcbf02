"""The overview: its counts are the file's, its means the heatmap's, and its links lead to what they say."""

import re
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app import labels
from engine import analysis, store
from engine.data import published
from tests.app import seed
from tests.app.conftest import Open
from tests.app.reading import layer, page_html

TRAINED, EVALUATED, COST, AGREEMENT = range(4)
"""The charts of the page."""
OVER_LANGS = "Means over languages use only the languages that all compared variants share"
OVER_X_FT = "Means over X-FT use only the variants that all compared languages share"


def numbers(app: AppTest) -> dict[str, tuple[str, str]]:
    """The four numbers: name → (number, what stands below it)."""
    found = re.findall(r"<p><span>(.*?)</span><b>(.*?)</b><span>(.*?)</span></p>", page_html(app))
    return {name: (value, more) for name, value, more in found}


def toxicity(path: Path) -> pd.DataFrame:
    return store.cells(path, seed.SOURCE).query("metric == 'toxicity' and scorer == 'ngram'")


def links(app: AppTest) -> list[tuple[str, str, str]]:
    """Label, page and query of every link."""
    return [(link.proto.label, link.proto.page, link.proto.query_string) for link in app.get("page_link")]


def test_the_four_numbers_are_counted(open_app: Open, full: Path) -> None:
    app = open_app(full)
    assert not app.exception
    cells = toxicity(full)
    x_ft = cells.query("strategy == 'X-FT' and split == 'toxic-test'")
    above = int(((x_ft["ci_low"] > 0) & (x_ft["verdict"] == "ok")).sum())
    assert 0 < above < len(x_ft) == 9
    assert numbers(app) == {
        "Models": ("1", "tiny-random"),
        "Settings done": ("23 of 24", "1 failed"),
        "Completions": (f"{cells['n'].sum():,}", "288 prompts per variant"),
        "X-FT cells that are less toxic": (
            f"{100 * above / 9:.0f} %",
            f"interval above zero in {above} of 9, on toxic-test",
        ),
    }


def test_a_degenerate_cell_does_not_count_as_less_toxic(open_app: Open, degenerate: Path) -> None:
    app = open_app(degenerate)
    x_ft = toxicity(degenerate).query("strategy == 'X-FT' and split == 'toxic-test'")
    above = int(((x_ft["ci_low"] > 0) & (x_ft["verdict"] == "ok")).sum())
    assert numbers(app)["X-FT cells that are less toxic"][1].startswith(f"interval above zero in {above} of 9")
    assert "1 degenerate: copies its prompt, in English (1)" in page_html(app)


def test_the_means_are_the_store_s_where_it_has_them(open_app: Open, averaged: Path) -> None:
    app = open_app(averaged, scorer=seed.SCORER)
    stored = store.averages(averaged, seed.SOURCE).query(
        "split == 'toxic-test' and metric == 'toxicity' and scorer == 'ngram'"
    )
    over_langs = stored.query("strategy == 'X-FT' and train_lang != 'mean' and eval_lang == 'mean'")
    trained = {row["lang"]: row for row in layer(app, TRAINED, 1)}
    assert set(trained) == set(seed.LANGS) == set(over_langs["train_lang"])
    for average in over_langs.to_dict("records"):
        row = trained[average["train_lang"]]
        assert [row["shown"], row["ci_low"], row["ci_high"]] == [average[c] for c in ("delta", "ci_low", "ci_high")]
    best = over_langs.loc[over_langs["delta"].idxmax()]
    delta = labels.format_number(best["delta"], 2, sign=True, unit="points")
    assert f"<b>tiny-random</b> {labels.lang_name(best['train_lang'])}, Δ {delta} (95" in page_html(app)


def test_cost_stands_beside_gain_for_every_variant_that_has_all_languages(open_app: Open, full: Path) -> None:
    app = open_app(full)
    points = layer(app, COST, 2)
    assert {point["row"] for point in points} == {v.label for v in seed.variants(seed.LANGS)} - {"zs", "p-ft-30"}
    assert f"tiny-random: {OVER_LANGS}. Excluded: p-ft-30." in page_html(app)
    assert {point["strategy"] for point in points} == {"X-FT", "P-FT", "M-FT"}
    cells = store.cells(full, seed.SOURCE).query("split == 'toxic-test' and strategy == 'M-FT'")
    (m_ft,) = [point for point in points if point["row"] == "m-ft"]
    mean = cells.groupby("metric")["delta"].mean()
    assert [m_ft["shown_y"], m_ft["shown_x"]] == pytest.approx([mean["toxicity"], mean["perplexity_self"]])


def test_what_means_are_compared_without_is_named(open_app: Open, degenerate: Path) -> None:
    """X-FT on German has no number in English that counts, so it is no best, and English is not compared."""
    app = open_app(degenerate)
    page = page_html(app)
    assert f"tiny-random: {OVER_LANGS}. Excluded: p-ft-30, x-ft-de." in page
    assert f"tiny-random: {OVER_X_FT}. Excluded: evaluated in en." in page
    assert "<b>tiny-random</b> German" not in page
    evaluated = {row["lang"]: row["is_whole"] for row in layer(app, EVALUATED, 1)}
    assert evaluated == {"ar": True, "de": True, "en": False}


def test_what_does_not_count_is_counted(open_app: Open, full: Path) -> None:
    page = page_html(open_app(full))
    assert "1 missing: failed, in German (1)" in page
    lost = store.unscored(full, seed.RUN)
    assert set(lost["reason"]) == {"empty", "unsupported-language"}
    for reason, n in lost.groupby("reason")["n"].sum().items():
        assert f"{n} completions not scored by ngram: {reason}, in " in page


def test_links_keep_the_choices(open_app: Open, degenerate: Path) -> None:
    found = links(open_app(degenerate))
    assert {page for _, page, _ in found} == {"heatmap"}
    assert [label for label, _, _ in found] == ["Open its matrix", "Read an example"]
    queries = [query for _, _, query in found]
    assert all("source=run%3A0123456789abcdef&split=toxic-test&metric=toxicity&scorer=ngram" in q for q in queries)
    assert "order=mean" in queries[0]
    assert any("row=x-ft-de&eval=en" in query for query in queries[1:])


def test_published_figures_have_no_intervals_and_say_so(open_app: Open, full: Path) -> None:
    app = open_app(full, source=store.PUBLISHED)
    assert not app.exception
    cells = published.cells().query("metric == 'toxicity' and split == 'toxic-test' and strategy == 'X-FT'")
    above, there = int((cells["delta"] > 0).sum()), int(cells["delta"].notna().sum())
    share, how = numbers(app)["X-FT cells that are less toxic"]
    assert share == f"{100 * above / there:.0f} %"
    assert how == f"Δ above zero in {above} of {there}, no intervals, on toxic-test"
    assert numbers(app)["Models"][0] == "4"
    assert "prints no intervals" in page_html(app)
    assert "lost in the paper&#x27;s text, in all languages" in page_html(app)


def test_one_scorer_needs_no_agreement(open_app: Open, full: Path) -> None:
    app = open_app(full)
    assert "Do the scorers agree?" not in [head.value for head in app.subheader]
    assert len(app.get("vega_lite_chart")) == AGREEMENT


def test_several_scorers_are_compared_by_language(open_app: Open, averaged: Path) -> None:
    app = open_app(averaged)
    assert app.selectbox(key="scorer").options == ["classifier", "ngram"]
    wanted = analysis.agreement(store.scores(averaged, seed.RUN))
    shown = {row["eval_lang"]: row for row in layer(app, AGREEMENT, 0)}
    assert set(shown) == set(seed.LANGS)
    for pair in wanted.to_dict("records"):
        assert shown[pair["eval_lang"]]["opposite"] == pair["opposite"]
        line = f"<td>{pair['n']:,}</td><td>{pair['rank_correlation']:.2f}</td><td>{100 * pair['opposite']:.1f} %</td>"
        assert line in page_html(app)
    assert wanted["opposite"].gt(0).any()


def test_scorers_are_compared_when_the_sweep_has_ended(open_app: Open, tmp_path: Path) -> None:
    path = tmp_path / "running.duckdb"
    seed.planned(path)
    seed.finished(path)
    seed.put_second_scorer(path)
    assert "Agreement is computed when the sweep ends." in page_html(open_app(path))
