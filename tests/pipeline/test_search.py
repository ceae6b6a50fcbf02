"""The hyperparameter search on a tiny base, really trained: what is learnt, judged, stored, resumed and used."""

from dataclasses import replace
from math import isnan
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import run_sweep
from engine import store
from engine.config import SWEEPS, Search
from engine.errors import UsageError
from engine.lora import train
from engine.sweep import plan as plans
from engine.sweep import run_search, search
from engine.sweep.progress import Reporter
from engine.sweep.search import BaseSearch
from engine.vocabulary import Hyperparameters, Language

GRID = tuple(
    Hyperparameters(batch_size=batch_size, learning_rate=rate, rank=rank, alpha=2 * rank)
    for batch_size, rate, rank in ((4, 2e-2, 4), (6, 2e-3, 4), (8, 2e-4, 8), (4, 1e-9, 2))
)


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "GRID", GRID)


def planned(folder: Path, **changes: object) -> BaseSearch:
    wanted = Search(models=("tiny-random",), train_langs=(Language.DE, Language.ZH), limit_train=15, epochs=4)
    (made,) = search.plan(replace(wanted, db=folder / "results.duckdb", **changes))
    return made


def carried_out(made: BaseSearch) -> pd.DataFrame:
    """The points that are stored after a search."""
    with Reporter(made.search.db, Console(quiet=True)) as reporter:
        run_search.run(made, reporter)
    return store.search_points(made.search.db, made.search_id)


def test_what_is_held_out_is_never_learnt_and_never_a_prompt(tmp_path: Path) -> None:
    made = planned(tmp_path)
    assert (len(made.learnt), len(made.validation)) == (24, 6)
    assert not set(made.learnt) & set(made.validation)
    train_pairs = {pair for pairs in made.data.train.values() for pair in pairs}
    test_pairs = {pair for pairs in made.data.test.values() for pair in pairs}
    assert set(made.learnt) | set(made.validation) <= train_pairs - test_pairs
    assert set(planned(tmp_path, seed=43).validation) != set(made.validation)


def test_the_likeliest_point_is_first_and_the_bare_base_is_beside_it(tmp_path: Path) -> None:
    made = planned(tmp_path)
    points = carried_out(made)
    assert len(points) == 4 and points["nll"].is_monotonic_increasing
    assert (points["epochs"] == 4).all() and (points["rung"] == 0).all()
    found = store.searches(made.search.db).iloc[0]
    assert found["finished_at"] is not pd.NaT and found["train_langs"] == "de zh"
    still = points.set_index("learning_rate")["nll"]
    assert still[1e-9] == pytest.approx(found["base_nll"], abs=1e-4)
    assert still[2e-2] < found["base_nll"]


def test_a_search_that_was_interrupted_comes_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = carried_out(planned(tmp_path / "whole", halving=True))
    made, original, calls = planned(tmp_path / "cut", halving=True), train.train, []

    def cut(*args: object, **words: object) -> None:
        calls.append(len(args[2]))  # type: ignore[arg-type]
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "train", cut)
    with pytest.raises(KeyboardInterrupt):
        carried_out(made)
    assert store.searches(made.search.db)["finished_at"].isna().all()
    assert len(store.search_points(made.search.db, made.search_id)) == 4
    again = carried_out(made)
    assert calls == [4, 2, 2, 1]  # the first rung is stored, and was not trained again
    pd.testing.assert_frame_equal(again, whole)
    assert not list(tmp_path.glob("*/*.pt"))
    calls.clear()
    carried_out(made)
    assert calls == []


def test_halving_leaves_the_worse_half_behind_and_says_what_it_trains(tmp_path: Path) -> None:
    made = planned(tmp_path, halving=True)
    points = carried_out(made)
    assert points["epochs"].tolist() == [4, 2, 1, 1] and points["rung"].tolist() == [2, 1, 0, 0]
    assert made.cost == pytest.approx(points["epochs"].sum() / 16)
    assert points["nll"].iloc[1] <= points["nll"].iloc[2:].min() or points["rung"].iloc[1] == 1


def test_a_point_that_breaks_is_stored_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = replace(GRID[0], learning_rate=1e30, max_grad_norm=1e30)
    monkeypatch.setattr(search, "GRID", (wild, *GRID[1:]))
    last = carried_out(planned(tmp_path)).iloc[-1]
    assert isnan(last["nll"]) and "loss became" in last["failure"]


def test_a_sweep_takes_the_chosen_point_of_its_own_base_and_data(tmp_path: Path) -> None:
    made = planned(tmp_path)
    sweep = replace(SWEEPS["smoke"], db=made.search.db, from_search=True)
    with pytest.raises(UsageError, match="run_sweep.py search --models tiny-random"):
        plans.make(sweep)
    best = carried_out(made).iloc[0]
    used = plans.make(sweep).bases[0].trained[0].hyperparameters
    assert used is not None
    assert [used.rank, used.alpha, used.learning_rate, used.batch_size] == best[search.POINT].tolist()
    assert used.epochs == sweep.hyperparameters.epochs
    assert plans.make(sweep).run_id != plans.make(replace(sweep, from_search=False)).run_id


def test_the_command_prints_the_plan_then_the_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "--models", "tiny-random", "--train-langs", "de", "--limit-train", "10", "--epochs", "1"]
    words += ["--db", str(tmp_path / "results.duckdb")]
    assert run_sweep.command_line([*words, "--dry-run"]) == 0
    assert "4 points, one wave" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert run_sweep.command_line(words) == 0
    said = capsys.readouterr().out
    assert "nats per token" in said and "--hyperparameters from-search" in said
