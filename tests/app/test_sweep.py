"""The sweep page: the plan as stored, news of a sweep, failures with their reasons, adapters and their losses."""

import json
import os
import platform
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.text import sweep_words
from engine import store
from engine.config import SWEEPS
from engine.sweep import progress
from engine.sweep.progress import SweepStatus
from engine.vocabulary import Status
from tests.app import seed
from tests.app.conftest import Open
from tests.app.reading import page_html, places, tables

PAGE = "sweep"
DEMO = SWEEPS["demo"]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    seed.trained(root)
    return root


def headings(app: AppTest) -> list[str]:
    return [heading.value for heading in app.subheader]


def test_the_plan_of_a_run_is_told_as_stored(open_app: Open, full: Path, adapters: Path) -> None:
    app = open_app(full, PAGE, adapters)
    assert not app.exception
    said = page_html(app)
    for name, value in {
        "Bases": "tiny-random (0, float32)",
        "Trained on": "Arabic, German, English",
        "Training pairs": f"at most {DEMO.limit_train} per language",
        "Prompts per split": f"at most {DEMO.limit_eval} per language",
        "Top-k, top-p": "50, 0.9",
        "New tokens": f"at most {DEMO.sampling.max_new_tokens}",
        "Target modules": "q_proj, v_proj",
        "LoRA": "rank 16, α 32, dropout 0.05",
        "Training seed": "42",
        "Scorers": "ngram",
    }.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in said


def test_settings_are_counted_by_strategy_and_status(open_app: Open, full: Path) -> None:
    said = re.sub("</?span[^>]*>", "", page_html(open_app(full, PAGE)))
    rows = {"X-FT cross-lingual fine-tuning": (3, 9, 0, 0, 9, 0), "P-FT percent-based fine-tuning": (3, 9, 0, 0, 8, 1)}
    rows["All"] = (8, 24, 0, 0, 23, 1)
    for name, numbers in rows.items():
        cells = "".join(f"<td>{number}</td>" for number in numbers)
        assert f'<tr><th scope="row">{name}</th>{cells}</tr>' in said


def test_a_plan_that_an_older_version_stored_has_dashes(open_app: Open, tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    seed.planned(path, prompts=1)
    with store.writing(path) as connection:
        connection.execute("UPDATE runs SET plan = '{}'")
    app = open_app(path, PAGE)
    assert not app.exception
    assert "<dt>Splits</dt><dd>–</dd>" in page_html(app)
    assert "<dt>Temperature</dt><dd>–</dd>" in page_html(app)


def test_a_failure_has_its_last_line_and_its_traceback_on_demand(open_app: Open, tmp_path: Path) -> None:
    path = tmp_path / "failed.duckdb"
    seed.planned(path, prompts=1)
    zs, arabic = (variant.variant_id for variant in seed.variants(seed.LANGS)[:2])
    trace = "Traceback (most recent call last):\n  File a.py\nValueError: <b>no</b> *number*"
    store.set_status(path, seed.RUN, Status.FAILED, [arabic], error=trace)
    store.set_status(path, seed.RUN, Status.FAILED, [zs], seed.LANGS[1], "the base is too large")
    app = open_app(path, PAGE)
    assert not app.exception
    assert "Failures" in headings(app)
    said = page_html(app)
    assert "<b>ValueError: &lt;b&gt;no&lt;/b&gt; *number*</b>" in said
    assert "3 settings: Arabic (X-FT) in ar, de, en" in said
    assert "<b>the base is too large</b>" in said
    assert "1 setting: Zero-shot (ZS) in de" in said
    assert [(block.label, block.code[0].value) for block in app.expander] == [("Full traceback", trace)]


def test_without_failures_there_is_no_word_of_them(open_app: Open, planned: Path) -> None:
    assert headings(open_app(planned, PAGE)) == ["Plan", "Adapters on disk", "Hyperparameter search"]


def test_adapters_are_listed_with_what_is_wrong_with_them(open_app: Open, full: Path, tmp_path: Path) -> None:
    seed.trained(tmp_path / "adapters")
    folders = {path.name.split("-random-")[1][:-13]: path for path in (tmp_path / "adapters/tiny-random").iterdir()}
    (folders["x-ft-de"] / "meta.json").unlink()
    (folders["x-ft-ar"] / "adapter_model.safetensors").write_bytes(b"other")
    app = open_app(full, PAGE, tmp_path / "adapters")
    assert not app.exception
    shown = app.dataframe[0].value.set_index("Adapter")
    assert shown.loc["M-FT", ["State", "Texts", "In this run"]].tolist() == ["finished", 240, True]
    assert shown.loc["X-FT ar", "State"] == "damaged"
    assert shown.loc[folders["x-ft-de"].name, "State"] == "unfinished"
    assert "X-FT ar: damaged, weights do not match the saved checksum" in page_html(app)
    assert f"{folders['x-ft-de'].name}: unfinished, no meta.json" in page_html(app)
    losses = json.loads((folders["x-ft-en"] / "meta.json").read_text())["losses"]
    assert shown.loc["X-FT en", "Final loss"] == losses[-1]
    assert "2 of this run&#x27;s 7 adapters are missing from this folder or unfinished." in page_html(app)
    assert "X-FT ar" not in app.multiselect(key="curves").options


def test_adapters_of_another_run_are_not_this_runs(open_app: Open, tmp_path: Path, adapters: Path) -> None:
    path = tmp_path / "other.duckdb"
    seed.planned(path, seed.LANGS[:1], prompts=1)
    shown = open_app(path, PAGE, adapters).dataframe[0].value.set_index("Adapter")["In this run"]
    assert shown["X-FT ar"]
    assert not shown["X-FT de"]


def test_curves_are_chosen_and_stay_in_the_address(open_app: Open, full: Path, adapters: Path) -> None:
    app = open_app(full, PAGE, adapters)
    assert len(app.multiselect(key="curves").value) == 4
    name = seed.variants(seed.LANGS)[1].variant_id
    app.multiselect(key="curves").set_value([name]).run()
    app.toggle(key="smooth").set_value(True).run()
    assert not app.exception
    assert (app.query_params["curves"], app.query_params["smooth"]) == (name, "1")
    assert "moving average over 10 % of an adapter&#x27;s steps" in page_html(app)
    again = open_app(full, PAGE, adapters, curves=name, smooth="1")
    assert again.multiselect(key="curves").value == [name]
    assert again.toggle(key="smooth").value


def test_no_adapters_and_no_run_say_so(open_app: Open, tmp_path: Path) -> None:
    app = open_app(tmp_path / "none.duckdb", PAGE, tmp_path / "nowhere")
    assert not app.exception
    assert "have no sweep" in app.info[0].value
    assert "adapters folder is empty" in app.info[1].value
    assert "No progress file found" in page_html(app)


NO_PROCESS = 2**22 + 1
"""Larger than any process id."""


@pytest.mark.parametrize(
    ("changes", "quiet", "says"),
    [
        ({}, 5, "A sweep is generating, 84 of 252 completions. Last update 5 s ago."),
        ({"stage": "", "done": 0, "total": 0}, 5, "A sweep is preparing. Last update"),
        (
            {"pid": NO_PROCESS},
            90,
            f"Interrupted while generating, 84 of 252 completions: process {NO_PROCESS} is gone",
        ),
        ({"pid": NO_PROCESS}, 90, "last update 1 minute ago. Run the same command to resume."),
        (
            {"pid": NO_PROCESS, "host": "elsewhere"},
            90,
            "A sweep is generating, 84 of 252 completions. Last update 1 minute",
        ),
        (
            {"host": "elsewhere"},
            1800,
            "A sweep was generating, 84 of 252 completions; no update for 30",
        ),
        ({"state": "finished"}, 7200, "The last sweep finished 2 hours ago, after 10 s."),
        (
            {"state": "interrupted"},
            5,
            "was interrupted 5 s ago while generating, 84 of 252 completions. Run the same command",
        ),
        ({"state": "failed"}, 5, "stopped 5 s ago while generating"),
    ],
)
def test_news_of_a_sweep(changes: dict[str, Any], quiet: int, says: str) -> None:
    now = datetime.now(UTC)
    told = news_at(now - timedelta(seconds=quiet), **changes)
    assert says in sweep_words.state_sentence(told, now)


def news_at(moment: datetime, **changes: Any) -> SweepStatus:
    """What this very process would have told at a moment, ten seconds after it began to."""
    news = {"state": "running", "stage": "generating", "done": 84, "total": 252, "unit": "completions"}
    news |= {"pid": os.getpid(), "host": platform.node(), "updated_at": moment.isoformat()}
    return SweepStatus(**{**news, "started_at": (moment - timedelta(seconds=10)).isoformat(), **changes})


def test_a_process_that_was_given_the_number_later_is_not_the_sweep() -> None:
    long_ago = datetime.now(UTC) - timedelta(days=400)
    assert news_at(long_ago).is_gone
    assert not news_at(datetime.now(UTC)).is_gone


def test_the_page_shows_the_news_beside_the_results_file(open_app: Open, planned: Path) -> None:
    news = news_at(datetime.now(UTC), stage="training", done=5, total=20, unit="rows")
    progress.progress_file(planned).write_text(json.dumps(asdict(news)))
    app = open_app(planned, PAGE)
    assert not app.exception
    assert "A sweep is training, 5 of 20 rows." in page_html(app)
    assert [bar.proto.value for bar in app.get("progress")] == [25]
    progress.progress_file(planned).write_text('{"state": "runn')
    app.run()
    assert not app.exception
    assert "No progress file found" in page_html(app)


def test_a_search_is_shown_with_the_point_that_was_chosen(open_app: Open, planned: Path) -> None:
    seed.searched(planned)
    app = open_app(planned, "sweep")
    assert not app.exception
    assert "Chosen: rank 32, α 64, learning rate 0.0002, batch 4: 4.1250 nats per token" in page_html(app)
    assert "0.3750 below the base model" in page_html(app)
    (shown,) = [table for table in tables(app) if table.find("figcaption") is not None]
    names = [line.findtext("th") for line in shown.findall(".//tbody/tr")]
    assert names[0] == "rank 32, α 64, learning rate 0.0002, batch 4"
    assert places(shown)[names[-1] or "", "validation loss (nats per token)"].text == "×"
    assert "loss became nan at step 3" in page_html(app)
    assert "used 50% of the full training cost" in page_html(app)


def test_a_search_that_goes_on_says_how_far_it_is(open_app: Open, planned: Path) -> None:
    seed.searched(planned, is_finished=False)
    app = open_app(planned, "sweep")
    assert "Not finished: 4 of 24 points are finished." in page_html(app)


def test_without_a_search_the_command_is_named(open_app: Open, planned: Path) -> None:
    app = open_app(planned, "sweep")
    assert "python run_sweep.py search" in page_html(app)
