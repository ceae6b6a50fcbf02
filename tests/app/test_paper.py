"""The paper page: a run beside the published figures, the audit, and a link for every table and figure."""

from pathlib import Path
from urllib.parse import parse_qs

import pytest

from app.tables import paper_index
from engine import analysis, store
from engine.data import published
from engine.vocabulary import Split
from tests.app import seed
from tests.app.conftest import Open
from tests.app.reading import number, page_html, places, tables, visit


def test_every_cell_stands_beside_the_paper_s(open_app: Open, full: Path) -> None:
    app = open_app(full, "paper", beside="aya-23-8b")
    shown = places(tables(app)[0])
    pairs, summary = analysis.against_published(store.cells(full, seed.SOURCE), published.cells())
    of = "published_model == 'aya-23-8b' and split == 'toxic-test' and metric == 'toxicity'"
    own = pairs.query(of)
    assert len(own) == len(shown) == 9
    for cell in own.to_dict("records"):
        entry = shown[cell["train_lang"], cell["eval_lang"]]
        ours, theirs = (float(word.replace("−", "-")) for word in (entry.text or "").split(" | "))
        assert (ours, theirs) == pytest.approx((cell["delta"], cell["published_delta"]), abs=0.05001)
        assert (entry.findtext("sup") == "≠") == ((cell["delta"] > 0) != (cell["published_delta"] > 0))
    (line,) = summary.query(of).to_dict("records")
    assert f"The signs agree in {100 * line['sign_agreement']:.0f} % of 9 cells" in page_html(app)


def test_perplexity_can_be_compared(open_app: Open, full: Path) -> None:
    app = open_app(full, "paper", metric="perplexity_self", beside="bloom-7b1", split="toxic-train")
    assert not app.exception
    assert app.selectbox(key="metric").value == "perplexity_self"
    assert "difference of mean perplexities" in page_html(app)


def test_the_audit_names_the_average_that_is_wrong(open_app: Open, tmp_path: Path) -> None:
    app = open_app(tmp_path / "none.duckdb", "paper")
    assert not app.exception
    (audit,) = tables(app)
    entries = places(audit)
    assert {name for name, _ in entries} == {"Table 21"}
    assert number(entries["Table 21", "printed"]) == -33.05
    assert number(entries["Table 21", "recomputed"]) == -25.29
    assert "348 are printed" in page_html(app)
    assert "347 agree" in page_html(app)
    assert "mt5-large: the rows en and uk have the same numbers in 38 of 45 cells" in page_html(app)
    assert "108 averages and 243 numbers are unreadable" in page_html(app)


def test_every_table_and_figure_has_its_place(open_app: Open, full: Path) -> None:
    app = open_app(full, "paper")
    names = [link.proto.label.partition(":")[0] for link in app.get("page_link")]
    expected = {f"Table {n}" for n in range(1, 26) if n != 2} | {f"Figure {n}" for n in range(1, 33)}
    assert len(names) == len(set(names))
    assert set(names) == expected
    assert "Table 2 of the paper is this list." in page_html(app)


def test_a_link_shows_the_table_that_it_names(open_app: Open, full: Path) -> None:
    app = open_app(full, "paper")
    (link,) = [link.proto for link in app.get("page_link") if link.proto.label.startswith("Table 21:")]
    assert link.page == "models"
    address = {key: value for key, (value,) in parse_qs(link.query_string).items()}
    (table,) = tables(visit(app, "models", **address))
    assert "table 21 of" in (table.findtext("figcaption") or "")


def test_the_index_has_the_numbers_of_the_printed_tables() -> None:
    for (model, split), (toxicity, _, perplexity, _) in paper_index.NUMBERS.items():
        printed = published.tables()
        printed = printed[(printed["model"].str.lower() == model) & (printed["split"] == split)]
        of = printed.groupby("metric")["table"].unique()
        assert (list(of["toxicity"]), list(of["perplexity"])) == ([toxicity], [perplexity])
    figures = [n for _, a, _, b in paper_index.NUMBERS.values() for n in (a, b)]
    assert sorted(figures) == [3, *range(10, 33)]
    assert {split for _, split in paper_index.NUMBERS} == set(Split)


def test_with_nothing_finished_the_audit_is_there_all_the_same(open_app: Open, planned: Path) -> None:
    app = open_app(planned, "paper")
    assert not app.exception
    assert "This run has no finished settings" in app.info[0].value
    assert len(tables(app)) == 1
