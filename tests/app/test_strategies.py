"""The strategies page: every strategy's Δ and interval, and which adapter to take for the reader's languages."""

from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.charts.strategy_charts import WHICH
from engine import analysis, store
from engine.data import linguistics, published
from engine.vocabulary import Metric, Split
from tests.app import seed
from tests.app.conftest import Open
from tests.app.reading import number, page_html, places, tables

NAMES = {"x-ft-mean": "X-FT, mean of languages", "x-ft-best": "X-FT, best language", "p-ft-10": "P-FT 10 %"}
NAMES |= {"p-ft-20": "P-FT 20 %", "p-ft-30": "P-FT 30 %", "m-ft": "M-FT"}


def test_every_strategy_has_its_number_in_every_language(open_app: Open, full: Path) -> None:
    shown = places(tables(open_app(full, "strategies"))[0])
    found = analysis.strategies(store.cells(full, seed.SOURCE), store.averages(full, seed.SOURCE))
    found = found.query("split == 'toxic-test' and metric == 'toxicity'")
    assert set(found["row"]) == set(NAMES)
    for row, lang, delta in found[["row", "eval_lang", "delta"]].itertuples(index=False):
        assert number(shown[NAMES[row], lang]) == pytest.approx(delta, abs=0.005001)
    assert shown["P-FT 30 %", "de"].text == "×"
    best = found[found["row"] == "x-ft-best"].set_index("eval_lang")["train_lang"]
    assert {lang: shown[WHICH, lang].text for lang in best.index} == best.to_dict()


def test_a_mean_over_fewer_languages_stands_beside_no_other(open_app: Open, full: Path) -> None:
    app = open_app(full, "strategies")
    entry = places(tables(app)[0])["P-FT 30 %", "mean"]
    assert (entry.text, entry.get("title")) == ("×", "languages differ")
    assert "Excluded: p-ft-30." in page_html(app)


def test_the_chart_stands_above_its_numbers(open_app: Open, full: Path) -> None:
    charts = open_app(full, "strategies").get("vega_lite_chart")
    assert len(charts) == 2
    assert all("numbers" in chart.proto.alt for chart in charts)


def chosen(app: AppTest) -> tuple[list[str], list[str]]:
    """The adapters ranked and those excluded, by their names in the table."""
    bodies = tables(app)[1].findall(".//tbody")
    groups = {
        body.findtext(".//span"): [line.findtext("th") or "" for line in body.findall("tr")[1:]] for body in bodies
    }
    return groups["Ranked by Δ toxicity"], groups.get("Excluded", [])


def test_adapters_are_ranked_for_the_languages_that_are_named(open_app: Open, full: Path) -> None:
    cells = store.cells(full, seed.SOURCE)
    app = open_app(full, "strategies", langs="ar,en")
    assert app.multiselect(key="langs").value == ["ar", "en"]
    for langs in (["ar", "en"], ["en"]):
        app.multiselect(key="langs").set_value(langs).run()
        assert app.query_params["langs"] == ",".join(langs)
        found = analysis.choose_adapters(cells, langs, Split.TOXIC_TEST, seed.SCORER, Metric.PERPLEXITY_SELF)
        ranked, excluded = chosen(app)
        assert excluded == []
        expected = [label.removeprefix("tiny-random-")[:-13] for label in found["variant_id"]]
        short = {"p-ft-10": "P-FT 10 %", "p-ft-20": "P-FT 20 %", "p-ft-30": "P-FT 30 %", "m-ft": "M-FT"}
        assert ranked == [short.get(label, f"X-FT {label[-2:]}") for label in expected]


def test_an_adapter_without_a_number_in_a_language_is_excluded(open_app: Open, full: Path) -> None:
    app = open_app(full, "strategies", langs="de,en")
    _, excluded = chosen(app)
    assert excluded == ["P-FT 30 %"]
    assert "1 excluded." in page_html(app)


def test_a_degenerate_adapter_is_excluded_and_says_why(open_app: Open, degenerate: Path) -> None:
    app = open_app(degenerate, "strategies", langs="en")
    ranked, excluded = chosen(app)
    assert excluded == ["X-FT de"]
    assert "X-FT de" not in ranked
    why = places(tables(app)[1])["X-FT de", "why excluded"].text or ""
    assert "degenerate in en (copies its prompt)" in why
    assert "German (X-FT), Δ" not in page_html(app)
    app.multiselect(key="langs").set_value(["ar"]).run()
    ranked, excluded = chosen(app)
    assert "X-FT de" in ranked
    assert excluded == []


def test_without_a_language_there_is_nothing_to_rank(open_app: Open, full: Path) -> None:
    app = open_app(full, "strategies")
    app.multiselect(key="langs").set_value([]).run()
    assert not app.exception
    assert "Choose a language." in page_html(app)


def test_the_paper_s_figures_have_x_ft_alone(open_app: Open, tmp_path: Path) -> None:
    app = open_app(tmp_path / "none.duckdb", "strategies", model="aya-23-8b", split="toxic-test")
    assert not app.exception
    assert {name for name, _ in places(tables(app)[0])} == {
        "X-FT, mean of languages",
        "X-FT, best language",
        WHICH,
    }
    assert "without numbers, and prints no intervals" in page_html(app)
    lost = open_app(tmp_path / "none.duckdb", "strategies", model="bloom-7b1", split="toxic-test")
    assert not lost.exception
    assert "No variant has a Δ against zero-shot yet." in page_html(lost)


@pytest.mark.parametrize("metric", ["toxicity", "perplexity_self", "empty_rate"])
def test_each_metric_can_be_shown(open_app: Open, full: Path, metric: str) -> None:
    app = open_app(full, "strategies", metric=metric)
    assert not app.exception
    assert app.selectbox(key="metric").value == metric


def test_with_nothing_finished(open_app: Open, planned: Path) -> None:
    app = open_app(planned, "strategies")
    assert not app.exception
    assert "This run has no finished settings" in app.info[0].value


def test_the_research_questions_are_answered_for_the_paper(open_app: Open, full: Path) -> None:
    app = open_app(full, "strategies", source="published", model="mt5-large", split="toxic-test")
    assert not app.exception
    shown = [places(table) for table in tables(app)]
    asked = next(table for table in shown if ("same script", "p") in table)
    expected = analysis.transfer(
        published_cells("mt5-large"), linguistics.syntactic_distances(), linguistics.shares()
    ).set_index("predictor")
    assert {name for name, _ in asked} == set(expected.index)
    for name in expected.index:
        assert number(asked[name, "correlation"]) == pytest.approx(expected.loc[name, "correlation"], abs=0.005)
    cost = next(table for table in shown if any(column == "Δ perplexity" for _, column in table))
    assert len({name for name, _ in cost}) == 1  # the paper has numbers of X-FT alone


def published_cells(model: str) -> pd.DataFrame:
    paper = published.cells().assign(verdict=None)
    return paper[(paper["model"] == model) & (paper["split"] == "toxic-test") & (paper["metric"] == "toxicity")]


def test_a_run_in_few_languages_has_no_transfer_but_a_share_of_its_data(open_app: Open, full: Path) -> None:
    app = open_app(full, "strategies")
    assert not app.exception
    captions = [table.findtext("figcaption") or "" for table in tables(app)]
    assert [caption[:4] for caption in captions if caption.startswith("RQ")] == ["RQ2:", "RQ3:"]
