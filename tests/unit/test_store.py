"""The results file: whole transactions, NULL for what is missing, public views, locks, files that are not ours."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from engine import store
from engine.analysis import geometry
from engine.analysis.metrics import cells as make_cells
from engine.config import SWEEPS
from engine.errors import StoreError, UsageError
from engine.store.migrations import MIGRATIONS
from engine.sweep.options import Options
from engine.vocabulary import Language, Score, Status, Variant

LANGS = (Language.DE, Language.EN)
PROMPTS = 3

VIEWS = {
    "settings": "run_id, variant_id, source, sweep, model, strategy, train_lang, train_fraction, seed, eval_lang, "
    "dataset, dataset_hash, status, error, started_at, finished_at",
    "cells": "run_id, variant_id, source, model, strategy, train_lang, train_fraction, seed, eval_lang, split, metric, "
    "scorer, n, n_valid, n_pairs, value, baseline, delta, ci_low, ci_high, p_value, q_value, verdict, verdict_reason, "
    "dataset",
    "samples": "run_id, variant_id, model, strategy, train_lang, train_fraction, seed, eval_lang, split, prompt_index, "
    "sample_index, prompt, completion, scorer, toxicity, reason, perplexity_self, perplexity_base",
}


SETTING = "run_id, variant_id, eval_lang, status, error, started_at::VARCHAR, finished_at::VARCHAR"


def plan(db: Path, variants: list[Variant], run_id: str = "a", seed: int = 42) -> None:
    run = {"run_id": run_id, "sweep": "demo", "dataset": "sample", "dataset_hash": "d1", "seed": seed, "plan": "{}"}
    rows = [(lang.value, "toxic-test", i, f"say {i}") for lang in LANGS for i in range(PROMPTS)]
    prompts = pd.DataFrame(rows, columns=["eval_lang", "split", "prompt_index", "sentence"])
    store.put_plan(db, run, variants, LANGS, prompts)


@pytest.fixture
def three(variants: list[Variant]) -> list[Variant]:
    """ZS and two others."""
    return variants[:3]


@pytest.fixture
def db(tmp_path: Path, three: list[Variant]) -> Path:
    """A results file with the planned runs a and b."""
    path = tmp_path / "new" / "results.duckdb"
    plan(path, three), plan(path, three, "b")
    return path


def unit(variants: list[Variant], lang: Language = Language.DE, nll: float = 3.0) -> pd.DataFrame:
    """What variants write to the prompts; the last completion is empty and has no perplexity."""
    rows = [
        (v.variant_id, lang.value, "toxic-test", i, 0, f"text {i}" if i < 2 else "", 2 if i < 2 else 0, *likelihoods)
        for v in variants
        for i, likelihoods in enumerate([(nll, None), (np.nan, 1.0), (np.nan, np.nan)])
    ]
    return pd.DataFrame(rows, columns=[*store.COMPLETION_KEY, "completion", "n_tokens", "nll_self", "nll_base"])


def finish(db: Path, variants: list[Variant], run_id: str = "a", lang: Language = Language.DE) -> None:
    """Cells of toxicity and of a rate that needs no scorer, the last variant unscored: the settings are done."""
    values = pd.DataFrame(
        {
            "variant_id": v.variant_id,
            "split": "toxic-test",
            "metric": metric,
            "scorer": scorer,
            "prompt_index": i,
            "value": np.nan if v is variants[-1] else 0.1 * i,
        }
        for v in variants
        for metric, scorer in (("toxicity", "ngram"), ("empty_rate", ""))
        for i in range(PROMPTS)
    )
    made = make_cells(values, variants[0].variant_id)
    store.put_cells(db, run_id, lang, made[made["metric"].isin(values["metric"])])


def query(db: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(db), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def count(db: Path, what: str) -> int:
    return query(db, f"SELECT count(*) FROM {what}")[0][0]


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_file_is_made_with_its_folder_and_brought_up_once(db: Path, three: list[Variant]) -> None:
    names = [name for name, _ in MIGRATIONS]
    assert query(db, "SELECT number, name FROM migrations ORDER BY number") == list(enumerate(names, start=1))
    assert count(db, "cells WHERE source = 'published'") == 2160
    plan(db, three)
    assert count(db, "migrations") == len(names)
    assert count(db, "cells WHERE source = 'published'") == 2160


@pytest.mark.parametrize(("view", "columns"), VIEWS.items(), ids=VIEWS)
def test_the_columns_of_a_public_view(db: Path, view: str, columns: str) -> None:
    with store.reading(db) as connection:
        assert [column[0] for column in connection.execute(f"SELECT * FROM {view}").description] == columns.split(", ")


def foreign(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE mine (x INTEGER)")


def newer(path: Path) -> None:
    with store.writing(path) as connection:
        connection.execute("INSERT INTO migrations VALUES (?, 'from tomorrow', now())", [len(MIGRATIONS) + 1])


@pytest.mark.parametrize("access", [store.reading, store.writing])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_text("no database " * 2000), "cannot be opened as a DuckDB file"),
        (lambda path: path.write_text(""), "cannot be opened as a DuckDB file"),
        (lambda path: path.mkdir(), "cannot be opened as a DuckDB file"),
        (foreign, "not a results file"),
        (newer, "newer version"),
    ],
    ids=["no DuckDB file", "empty file", "folder", "foreign", "newer"],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(
    tmp_path: Path, access: Callable, spoil: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "x.duckdb"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with (
        pytest.raises(StoreError, match=f"{says}.*Give another --db|{says}.*give another --db") as caught,
        access(path),
    ):
        pass
    assert str(path) in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_an_older_file_is_not_read_and_is_brought_up_by_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.duckdb"
    with monkeypatch.context() as patch:
        patch.setattr(store.file, "MIGRATIONS", MIGRATIONS[:1])
        with store.writing(path):
            pass
    with pytest.raises(StoreError, match="older version.*run_sweep.py --db"), store.reading(path):
        pass
    with store.writing(path):
        pass
    assert count(path, "cells WHERE source = 'published'") == 2160


def test_prompts_of_an_older_file_become_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: list[Variant]
) -> None:
    path = tmp_path / "x.duckdb"
    last = [name for name, _ in MIGRATIONS].index("sentences without the template that prompts put around them")
    with monkeypatch.context() as patch:
        patch.setattr(store.file, "MIGRATIONS", MIGRATIONS[:last])
        with store.writing(path) as connection:
            connection.execute("INSERT INTO runs VALUES ('a', 'demo', 'sample', 'd', 1, '{}', now(), NULL)")
            connection.execute(
                "INSERT INTO prompts VALUES ('a', 'de', 'toxic-test', 0, 'Complete the sentence: Hallo'), "
                "('a', 'de', 'toxic-test', 1, 'Complete the sentence: Complete the sentence: x')"
            )
    with store.writing(path):
        pass
    assert query(path, "SELECT sentence FROM prompts ORDER BY prompt_index") == [
        ("Hallo",),
        ("Complete the sentence: x",),
    ]
    assert query(path, "SELECT template FROM runs") == [("Complete the sentence: {sentence}",)]


def test_an_absent_file_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no results file.*run_sweep.py"), store.reading(tmp_path / "absent.duckdb"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be created.*--db"), store.writing(tmp_path / "file" / "x.duckdb"):
        pass


# --- what is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing(db: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), store.writing(db) as connection:
        connection.execute("DELETE FROM run_settings")
        connection.execute("INSERT INTO units VALUES ('a', 'u', now())")
        raise failure
    assert count(db, "run_settings") == 2 * 3 * 2
    assert count(db, "units") == 0


def test_a_plan_put_again_changes_nothing_that_is_known(db: Path, three: list[Variant]) -> None:
    store.set_status(db, "a", Status.FAILED, [three[1].variant_id], error="why")
    finish(db, three[:1])
    before = query(db, f"SELECT {SETTING} FROM run_settings ORDER BY ALL")
    assert {row[3] for row in before} == {"planned", "failed", "done"}
    plan(db, three)
    assert query(db, f"SELECT {SETTING} FROM run_settings ORDER BY ALL") == before
    assert (count(db, "runs"), count(db, "variants"), count(db, "prompts")) == (2, 3, 2 * 2 * PROMPTS)


def test_a_variant_is_stored_whole(db: Path, three: list[Variant]) -> None:
    stored = dict(query(db, "SELECT variant_id, spec FROM variants"))
    assert {key: json.loads(spec) for key, spec in stored.items()} == {
        v.variant_id: json.loads(json.dumps(asdict(v))) for v in three
    }


@pytest.mark.parametrize("seed", [2**31 - 1, 2**31, 2**63])
def test_every_seed_that_the_options_accept_can_be_stored(tmp_path: Path, three: list[Variant], seed: int) -> None:
    with suppress(UsageError):
        plan(tmp_path / "x.duckdb", three, seed=Options(seed=seed).applied_to(SWEEPS["demo"]).seed)


def test_a_run_and_its_bases_are_read_as_planned(db: Path, three: list[Variant]) -> None:
    (run,) = store.run(db, "b").to_dict("records")
    assert [run[name] for name in ("run_id", "sweep", "dataset", "dataset_hash", "seed", "plan")] == [
        *("b", "demo", "sample", "d1", 42, "{}")
    ]
    (base,) = store.bases(db, "b").to_dict("records")
    trained = three[1].hyperparameters
    assert trained is not None
    assert base == {
        **{name: getattr(three[1], name) for name in ("model", "revision", "dtype")},
        "targets": json.dumps(trained.targets),
    }
    assert store.run(db, "none").empty
    assert store.bases(db, "none").empty


def test_a_unit_put_twice_is_stored_once_with_the_last_text(db: Path, three: list[Variant]) -> None:
    store.put_unit(db, "a", "u", unit(three))
    store.put_unit(db, "a", "u", unit(three, nll=5.0))
    assert store.finished_units(db, "a") == {"u"}
    assert store.finished_units(db, "b") == set()
    found = store.completions(db, "a", Language.DE)
    assert len(found) == 3 * PROMPTS
    assert set(found["nll_self"].dropna()) == {5.0}


def test_nan_and_none_arrive_as_null(db: Path, three: list[Variant]) -> None:
    store.put_unit(db, "a", "u", unit(three[:1]))
    stored = query(db, "SELECT nll_self, nll_base, nll_neutral FROM completions ORDER BY prompt_index")
    assert stored == [(3.0, None, None), (None, 1.0, None), (None, None, None)]
    store.put_scores(db, "ngram", "1", Language.DE, ["x", "y"], [Score(None, "empty"), Score(0.5)])
    assert query(db, "SELECT value, reason FROM score_cache ORDER BY text") == [(None, "empty"), (0.5, None)]
    store.put_scorer(db, "a", "ngram", "1", {"neutral_train": 1.0, "neutral_test": np.nan, "n_train": 3, "n_test": 0})
    assert query(db, "SELECT neutral_train, neutral_test FROM run_scorers") == [(1.0, None)]
    finish(db, three)
    numbers = "value, baseline, delta, ci_low, ci_high, p_value, q_value"
    unscored = f"SELECT {numbers} FROM cells WHERE variant_id = '{three[-1].variant_id}'"
    assert query(db, unscored) == [(None,) * 7] * 2
    assert query(db, "SELECT DISTINCT metric, scorer FROM run_cells ORDER BY 1") == [
        ("empty_rate", None),
        ("toxicity", "ngram"),
    ]
    assert count(db, "cells WHERE isnan(value) OR isnan(delta) OR isnan(ci_low) OR isnan(p_value)") == 0
    assert query(db, "SELECT train_lang, train_fraction FROM settings WHERE strategy = 'ZS'")[0] == (None, None)


def test_scores_that_are_all_missing_or_none_at_all_are_stored(db: Path) -> None:
    store.put_scores(db, "ngram", "1", Language.DE, ["x"], [Score(None, "empty")])
    store.put_scores(db, "ngram", "1", Language.DE, [], [])
    store.put_scores(db, "ngram", "1", Language.DE, ["x"], [Score(None, "http-500")])
    store.put_scorer(db, "r", "ngram", "1", {})
    found = store.run_scores(db, "r", Language.DE)
    assert found[["scorer", "text", "reason"]].to_numpy().tolist() == [["ngram", "x", "http-500"]]
    assert len(store.run_scores(db, "r", Language.EN)) == 0
    store.put_scorer(db, "r", "ngram", "2", {})
    assert len(store.run_scores(db, "r", Language.DE)) == 0


def test_cells_put_again_take_the_place_of_those_before(db: Path, three: list[Variant]) -> None:
    finish(db, three)
    finish(db, three, lang=Language.EN)
    finish(db, three)
    assert count(db, "run_cells") == 2 * 2 * 3


def test_embeddings_put_again_take_the_place_of_those_before(db: Path, three: list[Variant]) -> None:
    sentences = pd.DataFrame(
        [("de", "test", side, i) for side in ("toxic", "neutral") for i in range(3)],
        columns=["eval_lang", "part", "side", "sentence_index"],
    )
    first, second = np.random.default_rng(0).normal(size=(2, 6, 4))
    ids = [variant.variant_id for variant in three[:2]]
    for variant_id, vectors in ((ids[0], second), (ids[1], second), (ids[0], first)):
        made = geometry.measure(vectors, sentences, geometry.map_axes(first))
        store.put_geometry(db, "a", variant_id, made)
    made = geometry.measure(first, sentences, geometry.map_axes(first))
    there = store.represented_variants(db, "a").set_index("variant_id")
    assert sorted(there.index) == sorted(ids)
    assert there.loc[ids[0], "map_share"] == pytest.approx(made.map_share)
    assert there.loc[ids[0], ["model", "strategy", "n_sentences"]].tolist() == ["tiny-random", "ZS", 6]
    for name, expected in (("similarities", made.similarities), ("points", made.points)):
        found = getattr(store, name)(db, "a", ids[:1]).drop(columns="variant_id")
        pd.testing.assert_frame_equal(found, expected.reset_index(drop=True), check_dtype=False)
    for name, expected in (("silhouettes", made.silhouettes), ("distances", made.distances)):
        found = getattr(store, name)(db, "a").query("variant_id == @ids[0]").drop(columns="variant_id")
        pd.testing.assert_frame_equal(found.reset_index(drop=True), expected, check_dtype=False)
    assert store.represented_variants(db, "b").empty and store.points(db, "b", ids).empty


# --- units of other runs --------------------------------------------------------------------------------------------


def test_a_unit_is_taken_over_from_another_run(db: Path, three: list[Variant]) -> None:
    store.put_unit(db, "a", "u", unit(three))
    store.put_unit(db, "a", "other", unit(three, Language.EN))
    assert store.copy_unit(db, "b", "u")
    assert store.finished_units(db, "b") == {"u"}
    pd.testing.assert_frame_equal(store.completions(db, "b", Language.DE), store.completions(db, "a", Language.DE))
    assert len(store.completions(db, "b", Language.EN)) == 0
    assert len(store.completions(db, "a", Language.EN)) == 3 * PROMPTS


def test_another_unit_is_not_taken_over(db: Path, three: list[Variant]) -> None:
    store.put_unit(db, "a", "u", unit(three))
    assert not store.copy_unit(db, "b", "v")
    assert store.finished_units(db, "b") == set()
    assert count(db, "completions WHERE run_id = 'b'") == 0


@pytest.mark.parametrize(("first", "then"), [(2, 3), (3, 2)])
def test_a_unit_whose_rows_a_later_one_replaced_is_whole_no_more(
    db: Path, three: list[Variant], first: int, then: int
) -> None:
    """A variant fails and the rest is written; then it is mended, and all is written in another composition."""
    store.put_unit(db, "a", "first", unit(three[:first]))
    store.put_unit(db, "a", "then", unit(three[:then]))
    taken = store.copy_unit(db, "b", "first")
    assert len(store.completions(db, "b", Language.DE)) == (first * PROMPTS if taken else 0)
    assert store.copy_unit(db, "b", "then")
    assert len(store.completions(db, "b", Language.DE)) == then * PROMPTS


# --- what is read ---------------------------------------------------------------------------------------------------


def test_cells_and_samples_show_finished_settings_only_and_settings_all(db: Path, three: list[Variant]) -> None:
    for lang in LANGS:
        store.put_unit(db, "a", f"u {lang}", unit(three, lang))
    assert count(db, "samples") == count(db, "cells WHERE source <> 'published'") == 0
    finish(db, three[:2])
    for view in ("samples", "cells"):
        rows = query(db, f"SELECT DISTINCT run_id, variant_id, eval_lang FROM {view} WHERE run_id IS NOT NULL")
        assert sorted(rows) == sorted(("a", v.variant_id, "de") for v in three[:2])
    found = store.settings(db, "a")
    assert len(found) == 6
    assert found["status"].value_counts().to_dict() == {"done": 2, "planned": 4}
    assert set(found["source"]) == {"run:a"}
    assert len(store.cells(db, "run:a")) == 2 * 2
    # What began anew is not finished: it disappears whole.
    with store.writing(db) as connection:
        connection.execute("UPDATE run_settings SET status = 'running'")
    assert count(db, "samples") == count(db, "cells WHERE source <> 'published'") == 0


def test_samples_join_prompt_score_and_perplexity(db: Path, three: list[Variant]) -> None:
    store.put_unit(db, "a", "u", unit(three[:1]))
    store.put_scorer(db, "a", "ngram", "2", {"neutral_train": 1.0, "neutral_test": 1.0, "n_train": 3, "n_test": 3})
    scores = [Score(0.25), Score(None, "unsupported-language"), Score(None, "empty")]
    store.put_scores(db, "ngram", "2", Language.DE, ["text 0", "text 1", ""], scores)
    store.put_scores(db, "ngram", "1", Language.DE, ["text 0"], [Score(0.75)])
    finish(db, three[:1])
    found = store.samples(db, "a", "de", "toxic-test", [three[0].variant_id])
    assert found["prompt"].tolist() == [f"Complete the sentence: say {i}" for i in range(3)]
    assert found["sentence"].tolist() == ["say 0", "say 1", "say 2"]
    assert found["completion"].tolist() == ["text 0", "text 1", ""]
    assert found["toxicity"].fillna(-1).tolist() == [0.25, -1, -1]
    assert found["reason"].iloc[1:].tolist() == ["unsupported-language", "empty"]
    assert found["perplexity_self"].fillna(-1).tolist() == pytest.approx([np.exp(1.5), -1, -1])
    assert found["perplexity_base"].fillna(-1).tolist() == pytest.approx([-1, np.exp(0.5), -1])


def test_another_judge_makes_a_run_unfinished(db: Path, three: list[Variant]) -> None:
    gap = {"neutral_train": 1.0, "neutral_test": 1.0, "n_train": 3, "n_test": 3}
    store.put_unit(db, "a", "u", unit(three[:1]))
    finish(db, three[:1])
    assert count(db, "cells WHERE source <> 'published'")
    means = {
        "train_fraction": 1.0,
        "split": "toxic-test",
        "metric": "toxicity",
        "n_cells": 1,
        "n_pairs": 3,
        "delta": 4.0,
    }
    for run in ("a", "b"):
        store.put_averages(db, run, "m", "de", pd.DataFrame([{"strategy": "X-FT", "train_lang": "mean", **means}]))
    store.put_scorer(db, "a", "ngram", "2", gap)
    assert count(db, "cells WHERE source <> 'published'") == 0
    assert query(db, "SELECT run_id FROM averages") == [("b",)]  # no average outlives the cells that it is of
    finish(db, three[:1])
    assert count(db, "cells WHERE source <> 'published'")


def test_what_nothing_scored_yet_is_one_sample_without_a_scorer(db: Path, three: list[Variant]) -> None:
    store.put_unit(db, "a", "u", unit(three[:1]))
    store.put_scorer(db, "a", "ngram", "1", {"neutral_train": 1.0, "neutral_test": 1.0, "n_train": 3, "n_test": 3})
    store.put_scores(db, "ngram", "1", Language.DE, ["text 0"], [Score(0.25)])
    finish(db, three[:1])
    rows = query(db, "SELECT prompt_index, scorer, toxicity FROM samples ORDER BY prompt_index")
    assert rows == [(0, "ngram", 0.25), (1, None, None), (2, None, None)]


def test_published_rows_have_no_run_and_no_interval(db: Path) -> None:
    found = store.cells(db, "published")
    absent = [
        "run_id",
        "variant_id",
        "seed",
        "n_valid",
        "n_pairs",
        "ci_low",
        "ci_high",
        "p_value",
        "q_value",
        "verdict",
    ]
    assert found[absent].isna().all(axis=None)
    row = found.query("model == 'aya-expanse-8b' and metric == 'toxicity' and split == 'toxic-train'")
    row = row.query("train_lang == 'am' and eval_lang == 'am'").iloc[0]
    assert (row["value"], row["baseline"], row["delta"], row["n"]) == pytest.approx((11.10, 15.49, 4.39, 300))
    assert store.sources(db)["source"].tolist() == ["run:b", "run:a"]


@pytest.mark.parametrize("status", [Status.RUNNING, Status.FAILED, Status.PLANNED])
def test_a_status_never_touches_what_is_done(db: Path, three: list[Variant], status: Status) -> None:
    finish(db, three[:1])
    done = f"SELECT {SETTING} FROM run_settings WHERE status = 'done' AND variant_id = '{three[0].variant_id}'"
    before = query(db, done)
    assert len(before) == 1
    store.set_status(db, "a", status, [v.variant_id for v in three[:2]], error="why")
    assert query(db, done) == before
    found = store.statuses(db, "a").set_index(["variant_id", "eval_lang"])["status"]
    changed = [(three[0].variant_id, "en"), (three[1].variant_id, "de"), (three[1].variant_id, "en")]
    assert found[changed].tolist() == [status] * 3
    assert found[three[2].variant_id].tolist() == ["planned"] * 2
    assert set(store.statuses(db, "b")["status"]) == {"planned"}


def test_a_status_in_one_language_leaves_the_other_and_done_clears_the_error(db: Path, three: list[Variant]) -> None:
    one = three[0].variant_id
    store.set_status(db, "a", Status.FAILED, [one], Language.DE, "why")
    rows = (
        "SELECT eval_lang, status, error, finished_at IS NOT NULL FROM settings WHERE run_id = 'a' AND strategy = 'ZS' "
    )
    assert query(db, rows + "ORDER BY 1") == [("de", "failed", "why", True), ("en", "planned", None, False)]
    finish(db, three[:1])
    assert query(db, rows + "ORDER BY 1") == [("de", "done", None, True), ("en", "planned", None, False)]


# --- two processes --------------------------------------------------------------------------------------------------

HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reading")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(db: Path) -> Iterator[Callable[[str], subprocess.Popen]]:
    """Another process that holds the file until its standard input closes."""
    started: list[subprocess.Popen] = []

    def start(how: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(db), how]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(other)
        assert other.stdout.readline() == "held\n"
        return other

    yield start
    for other in started:
        other.communicate()


@pytest.mark.parametrize(
    ("access", "held"), [(store.reading, "writing"), (store.writing, "writing"), (store.writing, "reading")]
)
def test_a_file_that_stays_held_is_said_to_be(
    db: Path, hold: Callable, monkeypatch: pytest.MonkeyPatch, access: Callable, held: str
) -> None:
    monkeypatch.setattr(store.file, "LOCK_PATIENCE", 0.1)
    hold(held)
    with pytest.raises(store.LockedError, match="locked by another process") as caught, access(db):
        pass
    assert str(db) in str(caught.value)


@pytest.mark.parametrize("access", [store.reading, store.writing])
def test_a_file_that_is_let_go_is_opened_at_last(
    db: Path, hold: Callable, monkeypatch: pytest.MonkeyPatch, access: Callable
) -> None:
    """The other process lets go when the first attempt has failed, so a second attempt is what succeeds."""
    other, attach, refused = hold("writing"), store.file._attach, []

    def attach_and_release(path: Path, read_only: bool) -> str:
        try:
            return attach(path, read_only)
        except duckdb.Error as error:
            refused.append(error)
            other.communicate()
            raise

    monkeypatch.setattr(store.file, "_attach", attach_and_release)
    with access(db) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)
    assert len(refused) == 1


def test_readers_do_not_disturb_each_other(db: Path, hold: Callable) -> None:
    hold("reading")
    with store.reading(db) as one, store.reading(db) as other:
        assert one.execute("FROM prompts").fetchall() == other.execute("FROM prompts").fetchall() != []


def test_the_file_stays_locked_until_the_last_reader_of_a_process_is_done(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a writer in the same process. Locks are a process's, so that one reader could let go of another's."""
    monkeypatch.setattr(store.file, "LOCK_PATIENCE", 0.1)
    program = f"import duckdb; duckdb.connect({str(db)!r}).close()"
    with store.reading(db) as first:
        with store.reading(db):
            pass
        assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 1
        with pytest.raises(store.LockedError), store.writing(db):
            pass
        assert first.execute("SELECT count(*) FROM runs").fetchone() == (2,)
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_ctrl_c_during_a_query_is_an_interrupt_and_no_failure(db: Path) -> None:
    """DuckDB makes a RuntimeError of it."""
    with pytest.raises(KeyboardInterrupt), store.reading(db):
        raise RuntimeError("Query interrupted")
    with pytest.raises(RuntimeError, match="another"), store.reading(db):
        raise RuntimeError("another")


@pytest.mark.parametrize("error", [RuntimeError("Query interrupted"), duckdb.InterruptException("INTERRUPT Error")])
def test_ctrl_c_while_a_file_is_opened_is_one_too(db: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def interrupted(path: Path, read_only: bool) -> str:
        raise error

    monkeypatch.setattr("engine.store.file._attach", interrupted)
    with pytest.raises(KeyboardInterrupt), store.reading(db):
        pytest.fail("it was not opened")


def test_a_path_with_a_quote_is_a_path(tmp_path: Path) -> None:
    with store.writing(tmp_path / "it's.duckdb") as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    assert [path.name for path in tmp_path.iterdir()] == ["it's.duckdb"]


def test_what_trained_a_variant_and_runs_that_differ_in_their_seed_alone(
    tmp_path: Path, variants: list[Variant]
) -> None:
    db = tmp_path / "results.duckdb"
    other_seed = [replace(v, seed=7) if v.seed is not None else v for v in variants[:3]]
    plan(db, variants[:3], "a", 42), plan(db, other_seed, "b", 7), plan(db, variants[:2], "c", 42)
    shapes = store.shapes(db)
    assert shapes["a"] == shapes["b"] != shapes["c"]
    trained = store.training(db).set_index("variant_id")
    assert len(trained) == 4  # of two seeds; ZS is the same one, and is not trained
    row = trained.loc[variants[1].variant_id]
    assert row[["dataset_hash", "limit_train", "epochs", "batch_size"]].tolist() == ["d1", 10, 20, 4]
