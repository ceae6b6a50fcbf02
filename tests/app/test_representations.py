"""The representations page on a seeded run and on the paper's figures: its numbers are the file's, before and after."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from engine import store
from engine.data import published
from tests.app import seed
from tests.app.conftest import Open
from tests.app.reading import page_html

PAGE = "app_pages/representations.py"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with the embeddings of all its variants."""
    path = tmp_path_factory.mktemp("embedded") / "results.duckdb"
    seed.planned(path)
    seed.finished(path)
    seed.represented(path)
    return path


def opened(open_app: Open, path: Path, **address: str) -> AppTest:
    app = open_app(path, **address).switch_page(PAGE).run()
    assert not app.exception
    return app


def charts(app: AppTest) -> list[list[dict[str, Any]]]:
    """The rows of every chart, in the order of the page."""
    found = []
    for chart in app.get("vega_lite_chart"):
        spec = json.loads(chart.proto.spec)
        name = spec["data"]["name"]
        (rows,) = [d.data.data for d in chart.proto.datasets if d.name == name]
        found.append(pa.ipc.open_stream(rows).read_all().to_pylist())
    return found


def ids() -> dict[str, str]:
    return {variant.label: variant.variant_id for variant in seed.variants(seed.LANGS)}


def values(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """The number of each language, of one variant."""
    return {row["eval_lang"]: row["value"] for row in rows if row["name"] == name}


def test_both_matrices_are_whole_and_the_files(open_app: Open, embedded: Path) -> None:
    shown = charts(opened(open_app, embedded))
    assert len(shown) == 2 + 2 + 2 + 2
    for label, cells in zip(("zs", "m-ft"), shown, strict=False):
        stored = store.similarities(embedded, seed.RUN, [ids()[label]])
        assert len(stored) == 12 * 13 // 2 and len(cells) == 12 * 12
        by_pair = {(cell["group_a"], cell["group_b"]): cell["similarity"] for cell in cells}
        for row in stored.itertuples():
            both = by_pair[row.group_a, row.group_b], by_pair[row.group_b, row.group_a]
            assert both == pytest.approx((row.similarity, row.similarity))
    assert {cell["a"] for cell in shown[0]} >= {"Arabic, train, toxic", "German, test, neutral"}


def test_the_change_is_after_less_before(open_app: Open, embedded: Path) -> None:
    before, after, *_ = charts(opened(open_app, embedded, after="x-ft-de"))
    app = opened(open_app, embedded, after="x-ft-de", show="change")
    (moved, *others) = charts(app)
    assert len(others) == 6
    assert "German (X-FT) − Zero-shot (ZS)" in page_html(app)
    key = ["group_a", "group_b"]
    one, other, change = (
        pd.DataFrame(cells).set_index(key)["similarity"].sort_index() for cells in (before, after, moved)
    )
    pd.testing.assert_series_equal(change, other - one)
    assert change.abs().max() > 0.05


def test_silhouettes_and_distances_are_the_files_for_every_variant(open_app: Open, embedded: Path) -> None:
    shown = charts(opened(open_app, embedded, part="test"))
    by_language, by_toxicity, pairs, means = shown[2], shown[3], shown[6], shown[7]
    silhouettes = store.silhouettes(embedded, seed.RUN).query("part == 'test'")
    distances = store.distances(embedded, seed.RUN).query("part == 'test'")
    for label, name in (("zs", "Zero-shot (ZS)"), ("m-ft", "All languages (M-FT)"), ("x-ft-de", "German (X-FT)")):
        own = silhouettes[silhouettes["variant_id"] == ids()[label]]
        for rows, clusters in ((by_language, "language"), (by_toxicity, "toxicity")):
            stored = own[own["clusters"] == clusters].set_index("eval_lang")["silhouette"].to_dict()
            assert values(rows, name) == pytest.approx(stored)
        own = distances[distances["variant_id"] == ids()[label]].set_index("eval_lang")
        assert values(pairs, name) == pytest.approx(own["pair_distance"].to_dict())
        assert values(means, name) == pytest.approx(own["mean_distance"].to_dict())
    assert {row["kind"] for row in by_language} == {"Zero-shot (ZS)", "All languages (M-FT)", "other variants"}


@pytest.mark.parametrize(("colour", "field"), [("language", "language"), ("toxicity", "side")])
def test_both_maps_have_the_same_axes_and_the_colour_asked_for(
    open_app: Open, embedded: Path, colour: str, field: str
) -> None:
    app = opened(open_app, embedded, colour=colour, part="train")
    maps = [json.loads(chart.proto.spec)["encoding"] for chart in app.get("vega_lite_chart")[4:6]]
    assert maps[0]["color"]["field"] == maps[1]["color"]["field"] == field
    domains = [[encoding[axis]["scale"]["domain"] for axis in ("x", "y")] for encoding in maps]
    assert domains[0] == domains[1]
    shown = charts(app)[4:6]
    for label, points in zip(("zs", "m-ft"), shown, strict=True):
        stored = store.points(embedded, seed.RUN, [ids()[label]]).query("part == 'train'")
        assert len(points) == len(stored) == 3 * 2 * 12
        assert sorted(point["x"] for point in points) == pytest.approx(sorted(stored["x"]))
        (low, high), _ = domains[0]
        assert all(low <= point["x"] <= high for point in points)


def test_the_address_holds_the_whole_view(open_app: Open, embedded: Path) -> None:
    address = {"source": seed.SOURCE, "model": "tiny-random", "after": "x-ft-ar", "part": "test"}
    address |= {"show": "change", "colour": "toxicity"}
    app = opened(open_app, embedded, **address)
    assert {key: app.selectbox(key=key).value for key in address} == address
    app.selectbox(key="after").select("m-ft").run()
    assert not app.exception
    assert {key: app.query_params[key] for key in address} == {**address, "after": "m-ft"}


def test_a_run_without_embeddings_names_the_command_that_adds_them(open_app: Open, full: Path) -> None:
    app = opened(open_app, full)
    assert "has no sentence embeddings" in app.info[0].value
    assert app.code[0].value == f"python run_sweep.py demo … --db {full} --represent"
    assert not app.get("vega_lite_chart")


def test_a_variant_that_is_not_embedded_yet_is_no_choice(open_app: Open, tmp_path: Path) -> None:
    path = tmp_path / "partly.duckdb"
    seed.planned(path, prompts=2)
    seed.represented(path, labels=("zs", "x-ft-de"))
    app = opened(open_app, path, after="m-ft")
    assert app.selectbox(key="after").value == "x-ft-de"
    assert len(app.selectbox(key="after").options) == 1


def test_zero_shot_alone_is_shown_alone(open_app: Open, tmp_path: Path) -> None:
    path = tmp_path / "alone.duckdb"
    seed.planned(path, prompts=2)
    seed.represented(path, labels=("zs",))
    app = opened(open_app, path, show="change")
    assert app.selectbox(key="after").value == "zs"
    assert [len(cells) for cells in charts(app)] == [144, 3, 3, 102, 3, 3]


def test_one_language_has_no_silhouette_by_language(open_app: Open, tmp_path: Path) -> None:
    path = tmp_path / "one.duckdb"
    seed.planned(path, seed.LANGS[:1], prompts=2)
    seed.represented(path, seed.LANGS[:1])
    app = opened(open_app, path)
    assert "Cannot compute silhouette, by language" in page_html(app)
    assert len(charts(app)) == 2 + 1 + 2 + 2


@pytest.mark.parametrize("name", ["none.duckdb", "empty"])
def test_the_published_figures_need_no_file(open_app: Open, tmp_path: Path, empty: Path, name: str) -> None:
    app = opened(open_app, empty if name == "empty" else tmp_path / name, model="bloom-7b1", after="p-ft-20")
    before, after, silhouettes = charts(app)
    assert len(before) == len(after) == 36 * 36
    printed = published.similarities().query("model == 'bloom-7b1' and variant == 'p-ft-20'")
    by_pair = {(cell["group_b"], cell["group_a"]): cell["similarity"] for cell in after}
    assert all(by_pair[row.group_a, row.group_b] == row.similarity for row in printed.itertuples())
    paper = published.silhouettes().query("model == 'bloom-7b1' and variant == 'zs' and part == 'combined'")
    assert values(silhouettes, "Zero-shot (ZS)") == paper.set_index("eval_lang")["silhouette"].to_dict()
    assert "position 0" in page_html(app)
    assert "The paper publishes no map" in page_html(app)


def test_figures_that_fine_tuning_did_not_move_are_named(open_app: Open, tmp_path: Path) -> None:
    same = "No difference before and after"
    assert same in page_html(opened(open_app, tmp_path / "none.duckdb", model="mt5-large"))
    assert same not in page_html(opened(open_app, tmp_path / "none.duckdb", model="aya-23-8b"))
