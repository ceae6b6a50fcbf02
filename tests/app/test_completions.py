"""The completions page: what is looked for is found and counted; a view and a single completion have addresses."""

import re
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from streamlit.testing.v1 import AppTest

from app import labels
from engine import store
from tests.app import seed
from tests.app.conftest import Open
from tests.app.reading import page_html

PAGE = "completions"
ALL = 23 * 3 * 32


def articles(app: AppTest) -> list[str]:
    return page_html(app).split("<article")[1:]


def counted(app: AppTest) -> int:
    (number,) = re.findall(r"of ([\d,]+) completions", page_html(app))
    return int(number.replace(",", ""))


def address_of(article: str) -> dict[str, str]:
    """The address that an article links to."""
    (href,) = re.findall(r'href="\?([^"]*)"', article)
    return dict(parse_qsl(unescape(href)))


@pytest.mark.parametrize("state", ["absent", "empty"])
def test_without_a_run_it_says_where_completions_come_from(open_app: Open, empty: Path, state: str) -> None:
    app = open_app(empty if state == "empty" else empty.with_name("none.duckdb"), PAGE)
    assert not app.exception
    assert [info.value[:46] for info in app.info] == ["The paper's completions are not published. Cho"]


def test_a_run_that_has_nothing_yet_says_so(open_app: Open, planned: Path) -> None:
    app = open_app(planned, PAGE)
    assert not app.exception
    assert [info.value[:29] for info in app.info] == ["This run has no finished sett"]


def test_a_locked_file_can_be_tried_again(open_app: Open, held: Path) -> None:
    address = {"source": seed.SOURCE, "text": "soup", "toxicity": "10-60"}
    app = open_app(held, PAGE, **address)
    assert not app.exception
    assert "locked by another process" in app.warning[0].value
    assert app.query_params == address


def test_all_that_is_finished_is_there_ten_at_a_time(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE)
    assert not app.exception
    assert counted(app) == ALL
    assert len(articles(app)) == 10
    assert "1 to 10 of 2,208 completions" in page_html(app)


def test_a_filter_finds_and_counts(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, eval="en")
    assert counted(app) == 8 * 3 * 32
    app.selectbox(key="strategy").select("X-FT").run()
    assert counted(app) == 3 * 3 * 32
    app.selectbox(key="split").select("toxic-test").run()
    app.selectbox(key="row").select("x-ft-de").run()
    assert counted(app) == 32
    app.text_input(key="text").set_value("SOUP IS FAR TOO COLD. (3").run()
    assert counted(app) == 4  # prompts 3 and 30 to 32
    assert all("English · toxic-test" in article for article in articles(app))


def test_what_is_nowhere_is_said_to_be(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, text="100 % nowhere")
    assert not app.exception
    assert app.info[0].value.startswith("No matching completions.")
    assert not articles(app)


def test_a_score_range_leaves_out_what_was_not_scored(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, toxicity="0-99", eval="ar", row="m-ft")
    scored = store.samples(full, seed.RUN, "ar", "toxic-test", [seed.variants(seed.LANGS)[-1].variant_id])
    assert scored["toxicity"].isna().sum() == 2
    assert counted(app) == 3 * 30
    assert "not scored" not in "".join(article.split("x-pair")[1].split("M-FT")[1] for article in articles(app))


def test_orders_by_change_and_by_score(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, eval="en", row="x-ft-de", order="improved")
    changes = [float(c.replace(labels.MINUS, "-")) for c in re.findall(r"Δ ([+−]?[\d.]+)</span>", page_html(app))]
    assert len(changes) == 10
    assert changes == sorted(changes, reverse=True)
    app.selectbox(key="order").select("least-toxic").run()
    scores = [float(article.split("toxicity ")[2].split("<")[0]) for article in articles(app)]
    assert scores == sorted(scores)


def test_less_toxic_ones_alone(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, change="improved")
    found = counted(app)
    assert all("Δ +" in article for article in articles(app))
    app.selectbox(key="change").select("worsened").run()
    assert all("Δ −" in article for article in articles(app))
    assert 0 < found + counted(app) < ALL


def test_empty_completions_are_among_the_degenerate(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, change="degenerate")
    assert counted(app) == 23 * 3
    assert all("<em>(empty)</em>" in article for article in articles(app))


def test_the_address_holds_the_whole_view(open_app: Open, full: Path) -> None:
    address = {"source": seed.SOURCE, "model": "tiny-random", "strategy": "X-FT", "row": "x-ft-de", "eval": "de"}
    address |= {"split": "toxic-train", "change": "improved", "text": "Suppe", "toxicity": "5-40", "order": "worsened"}
    app = open_app(full, PAGE, **address)
    assert {**app.query_params} == address
    again = open_app(full, PAGE, **app.query_params)
    assert page_html(again) == page_html(app)
    assert counted(app) < 32


@pytest.mark.parametrize("toxicity", ["40-5", "x-y", "7", "0-900"])
def test_an_address_that_makes_no_sense_is_mended(open_app: Open, full: Path, toxicity: str) -> None:
    app = open_app(full, PAGE, toxicity=toxicity, page="no", order="size", change="charm", eval="xx")
    assert not app.exception
    assert counted(app) == ALL
    assert app.query_params == {"source": seed.SOURCE, "order": "prompt"}


def test_pages_stand_in_the_address_and_begin_anew_for_another_search(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, page="3")
    assert "21 to 30 of" in page_html(app)
    app.pagination[0].set_value(221).run()
    assert app.query_params["page"] == "221"
    assert "2,201 to 2,208 of" in page_html(app)
    assert len(articles(app)) == 8
    app.selectbox(key="eval").select("ar").run()
    assert "1 to 10 of 768" in page_html(app)
    assert "page" not in app.query_params
    assert "761 to 768 of" in page_html(open_app(full, PAGE, eval="ar", page="999"))


def test_every_completion_has_an_address_that_shows_it_first(open_app: Open, full: Path) -> None:
    wanted = articles(open_app(full, PAGE, eval="ar", row="x-ft-de", page="2"))[4]
    address = address_of(wanted)
    assert address["source"] == seed.SOURCE
    assert address["completion"].endswith("/ar/neutral-test/14/0")
    app = open_app(full, PAGE, **address)
    assert not app.exception
    assert [s.value for s in app.subheader] == ["Linked completion", "All completions"]
    alone = next(str(html.value) for html in app.html if "<article" in str(html.value))
    assert "<article" + wanted.split("</article>")[0] in alone
    assert alone.count("<article") == 1
    next(button for button in app.button if button.label == "Close").click().run()
    assert "completion" not in app.query_params
    assert not app.subheader


@pytest.mark.parametrize("named", ["gone/ar/toxic-test/1/0", "nonsense", "a/b/c/-1/x", "<b>/ar/toxic-test/1/0"])
def test_an_address_of_no_completion_is_told(open_app: Open, full: Path, named: str) -> None:
    app = open_app(full, PAGE, completion=named)
    assert not app.exception
    assert "not in these results" in app.warning[0].value
    assert len(articles(app)) == 10


def test_words_that_differ_are_marked_in_both(open_app: Open, full: Path) -> None:
    article = articles(open_app(full, PAGE, eval="ar", row="x-ft-de", split="toxic-test"))[0]
    ours, theirs = article.split("x-pair")[1].split("<div><div")[1:]
    assert "<mark>zs</mark> toxic-test" in ours
    assert "<mark>x-ft-de</mark>" in theirs
    assert f"<mark>{seed.SENTENCES[seed.LANGS[0]]}" not in article


def test_markup_of_a_model_is_text(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, eval="ar", row="x-ft-de", text="<b>not bold</b>")
    assert counted(app) == 3
    assert "not bold" in page_html(app)
    assert "<b>" not in page_html(app)
    assert not any("not slanted" in element.value for element in app.markdown)


def test_texts_are_blurred_until_the_switch(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, eval="ar", row="x-ft-de", text="(7)")
    assert page_html(app).count('<details class="x-veil">') == 3 * 3
    assert 'lang="ar" dir="rtl"' in page_html(app)
    app.toggle(key="reveal").set_value(True).run()
    assert "<details" not in page_html(app)


def test_zero_shot_stands_alone(open_app: Open, full: Path) -> None:
    article = articles(open_app(full, PAGE, row="zs", eval="en"))[0]
    assert article.count("Zero-shot (ZS)") == 1
    assert "<mark>" not in article
    assert "no completion" not in article


def test_choices_outlive_a_visit_of_another_page(open_app: Open, full: Path) -> None:
    app = open_app(full, PAGE, eval="ar", split="toxic-train", text="(7)", toxicity="0-90")
    found = counted(app)
    app.switch_page("app_pages/heatmap.py").run()
    app.switch_page(f"app_pages/{PAGE}.py").run()
    assert not app.exception
    assert app.text_input(key="text").value == "(7)"
    assert app.query_params["toxicity"] == "0-90"
    assert counted(app) == found
