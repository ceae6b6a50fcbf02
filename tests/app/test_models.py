"""The models page says what the file says; what is missing or degenerate is neither a zero nor the best."""

from pathlib import Path

import pandas as pd
import pytest

from engine import store
from engine.data import published
from tests.app import seed
from tests.app.conftest import Open
from tests.app.reading import number, page_html, places, tables

NAMES = {"zs": "none", "m-ft": "all", "p-ft-10": "10 %", "p-ft-20": "20 %", "p-ft-30": "30 %"}


def toxicity(path: Path) -> pd.DataFrame:
    """The toxicity cells of the run on toxic-test, with the name of their row in the table."""
    found = store.cells(path, seed.SOURCE).query("split == 'toxic-test' and metric == 'toxicity'")
    labels = {v.variant_id: NAMES.get(v.label, v.label[-2:]) for v in seed.variants(seed.LANGS)}
    return found.assign(name=found["variant_id"].map(labels))


def test_every_number_is_that_of_the_file(open_app: Open, full: Path) -> None:
    ours, _ = tables(open_app(full, "models"))
    shown, cells = places(ours), toxicity(full)
    assert len(cells) == 23
    for cell in cells.to_dict("records"):
        expected = cell["value"] if cell["strategy"] == "ZS" else cell["delta"]
        assert number(shown[cell["name"], cell["eval_lang"]]) == pytest.approx(expected, abs=0.005001)
    alone = cells[cells["strategy"] == "X-FT"]
    for lang in seed.LANGS:
        assert number(shown["mean", lang]) == pytest.approx(
            alone.loc[alone["eval_lang"] == lang, "delta"].mean(), abs=0.005001
        )
    assert number(shown["none", "mean"]) == pytest.approx(cells.query("strategy == 'ZS'")["value"].mean(), abs=0.005001)


def test_a_missing_number_is_a_cross_with_its_reason(open_app: Open, full: Path) -> None:
    app = open_app(full, "models")
    entry = places(tables(app)[0])["30 %", "de"]
    assert (entry.text, entry.get("class")) == ("×", "x-missing")
    assert entry.get("title") == "missing: failed: the loss is no number"
    assert "P-FT (Δ) 30 % in de: missing: failed: the loss is no number" in page_html(app)


def test_the_best_of_a_column_is_bold(open_app: Open, full: Path) -> None:
    shown = places(tables(open_app(full, "models"))[0])
    cells = toxicity(full).query("strategy != 'ZS'")
    for lang in seed.LANGS:
        own = cells[cells["eval_lang"] == lang]
        bold = {name for (name, column), entry in shown.items() if column == lang and entry.find("b") is not None}
        assert bold == {own.loc[own["delta"].idxmax(), "name"]}


def test_an_uncertain_number_has_a_ring(open_app: Open, full: Path) -> None:
    shown = places(tables(open_app(full, "models"))[0])
    cells = toxicity(full).query("strategy != 'ZS'")
    across = (cells["ci_low"] <= 0) & (cells["ci_high"] >= 0)
    assert 0 < across.sum() < len(across)
    for name, lang, is_uncertain in zip(cells["name"], cells["eval_lang"], across, strict=True):
        assert (shown[name, lang].findtext("sup") == "○") == is_uncertain


def test_a_degenerate_number_is_marked_and_never_the_best(open_app: Open, degenerate: Path) -> None:
    app = open_app(degenerate, "models")
    shown = places(tables(app)[0])
    entry = shown["de", "en"]
    assert number(entry) == 60.0
    assert entry.findtext("sup") == "†"
    assert entry.find("b") is None
    assert any(column == "en" and other.find("b") is not None for (_, column), other in shown.items())
    assert f"X-FT (Δ) de in en: degenerate: {seed.WHY_DEGENERATE}" in page_html(app)


def test_a_run_of_another_base_stands_beside_the_paper_s_model_that_is_chosen(open_app: Open, full: Path) -> None:
    app = open_app(full, "models", beside="bloom-7b1", split="toxic-test")
    assert app.selectbox(key="beside").options == list(published.cells()["model"].unique())
    theirs = tables(app)[1]
    assert "table 12 of Beniwal" in (theirs.findtext("figcaption") or "")
    assert places(theirs)["de", "en"].get("title") == "missing: lost in the paper's text"
    assert number(places(theirs)["none", "am"]) == 13.33
    app.selectbox(key="beside").select("aya-23-8b").run()
    assert "table 6 of Beniwal" in (tables(app)[1].findtext("figcaption") or "")


def test_a_metric_that_the_paper_has_not_stands_alone(open_app: Open, full: Path) -> None:
    app = open_app(full, "models", metric="empty_rate")
    assert len(tables(app)) == 1
    assert "The paper does not report this metric." in page_html(app)


@pytest.mark.parametrize("table", sorted(published.tables()["table"].unique()))
def test_a_published_table_is_the_printed_one(open_app: Open, tmp_path: Path, table: int) -> None:
    printed = published.tables().query("table == @table")
    place = printed.iloc[0]
    metric = {"toxicity": "toxicity", "perplexity": "perplexity_published"}[place["metric"]]
    address = {"source": "published", "model": place["model"].lower(), "split": place["split"], "metric": metric}
    (shown,) = tables(open_app(tmp_path / "none.duckdb", "models", **address))
    assert f"table {table} of" in (shown.findtext("figcaption") or "")
    entries = places(shown)
    for row, lang, value in printed[["train_lang", "eval_lang", "value"]].itertuples(index=False):
        said = number(entries["none" if pd.isna(row) else row, lang])
        assert said == (value if abs(value) < 100 else round(value))
    averages = published.averages().query("table == @table and train_lang != 'mean' and eval_lang == 'mean'")
    for row, value in averages[["train_lang", "value"]].itertuples(index=False):
        said = number(entries[row.replace("ZS", "none"), "mean"])
        assert said == pytest.approx(value, abs=0.0101 if abs(value) < 100 else 0.5)


def test_without_a_run_or_with_an_empty_one(open_app: Open, tmp_path: Path, empty: Path, planned: Path) -> None:
    for path in (tmp_path / "none.duckdb", empty):
        app = open_app(path, "models")
        assert not app.exception
        assert len(tables(app)) == 1
    app = open_app(planned, "models")
    assert not app.exception
    assert "This run has no finished settings" in app.info[0].value


def test_the_address_holds_the_choices(open_app: Open, full: Path) -> None:
    address = {"source": seed.SOURCE, "model": "tiny-random", "split": "toxic-train", "metric": "perplexity_self"}
    address |= {"beside": "mt5-large"}
    app = open_app(full, "models", **address)
    assert {key: app.selectbox(key=key).value for key in address} == address
    assert app.query_params == address
