"""The whole way through `run_sweep.py`: plan, run, resume, break, repair. The smoke base, really trained."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from engine import store
from engine.config import SWEEPS
from engine.lora import adapters
from engine.score.ngram import words_of
from engine.sweep import plan, run, train_adapters
from engine.sweep.options import Options
from engine.vocabulary import Split
from run_sweep import _run as carry_out
from run_sweep import command_line
from tests.pipeline.test_scorers import LABELS, classifier

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """What a command came to in this process."""

    stdout: str
    stderr: str


def run_sweep(folder: Path, *words: str, check: int = 0) -> Ended:
    """`run_sweep.py smoke …` in this process (to import torch again takes longer), with its files in `folder`."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = command_line(["smoke", *own_files(folder), *words])
    assert code == check, out.getvalue() + err.getvalue()
    return Ended(out.getvalue(), err.getvalue())


def own_files(folder: Path) -> list[str]:
    return ["--db", str(folder / "results.duckdb"), "--adapters", str(folder / "adapters")]


def query(folder: Path, sql: str) -> pd.DataFrame:
    with duckdb.connect(str(folder / "results.duckdb"), read_only=True) as connection:
        return connection.execute(sql).df()


def texts(folder: Path) -> pd.DataFrame:
    return query(folder, "SELECT * EXCLUDE (run_id) FROM completions ORDER BY ALL")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke sweep as a user runs it, once, in a folder that nobody changes."""
    folder = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "run_sweep.py", "smoke", *own_files(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


SMALL = [
    *("--strategies", "zs", "xft", "mft", "--train-langs", "ar", "de", "en", "--eval-langs", "de", "zh"),
    *("--splits", "toxic-test", "neutral-test"),
]
"""Five variants, 10 settings, 20 cells of a metric."""


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep, run once, in a folder that nobody changes."""
    folder = tmp_path_factory.mktemp("small")
    run_sweep(folder, *SMALL)
    return folder


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    shutil.copytree(small, tmp_path / "copy")
    return tmp_path / "copy"


def test_all_126_settings_are_done_and_whole(smoke: Path) -> None:
    settings = query(smoke, "SELECT * FROM settings")
    assert len(settings) == 126
    assert set(settings["status"]) == {"done"}
    assert settings["error"].isna().all()
    assert (settings["finished_at"] >= settings["started_at"]).all()
    samples = query(smoke, "SELECT * FROM samples")
    assert len(samples) == 126 * 3 * 2
    assert samples.groupby(["variant_id", "eval_lang", "split"]).size().eq(2).all()
    assert samples["prompt"].str.startswith("Complete the sentence: ").all()
    scored = samples["toxicity"].notna()
    assert scored.any()
    assert samples["completion"].map(words_of).ne("").equals(scored)
    assert set(samples.loc[~scored, "reason"]) <= {"empty", "no-words"}


def test_every_cell_has_counts_and_an_interval_or_a_reason(smoke: Path) -> None:
    cells = query(smoke, "SELECT * FROM cells WHERE source <> 'published'")
    per_setting = 3 * 13 + 2  # the two of neutral text are on one split
    assert len(cells) == 126 * per_setting
    assert cells[["n", "n_valid", "n_pairs", "verdict"]].notna().all().all()
    without = cells["ci_low"].isna() | cells["ci_high"].isna()
    assert cells.loc[without, "verdict_reason"].notna().all()
    assert (cells.loc[~without, "ci_low"] <= cells.loc[~without, "ci_high"]).all()
    is_zs = cells["strategy"] == "ZS"
    assert cells.loc[is_zs, ["baseline", "delta"]].isna().all().all()
    assert cells.loc[~is_zs & (cells["n_pairs"] > 0), ["baseline", "delta"]].notna().all().all()


def test_delta_recomputed_from_samples_by_an_independent_query(smoke: Path) -> None:
    """Toxicity × 100; perplexities as differences of the mean log-perplexity."""
    recomputed = query(
        smoke,
        """
        SELECT v.variant_id, v.eval_lang, v.split, count(z.toxicity - v.toxicity) AS n_pairs,
            100 * avg(z.toxicity - v.toxicity) AS toxicity,
            avg(ln(z.perplexity_self) - ln(v.perplexity_self)) AS perplexity_self,
            avg(ln(z.perplexity_base) - ln(v.perplexity_base)) AS perplexity_base
        FROM samples v JOIN samples z USING (run_id, eval_lang, split, prompt_index, sample_index, scorer)
        WHERE z.strategy = 'ZS' AND v.strategy <> 'ZS' GROUP BY ALL
        """,
    ).set_index(["variant_id", "eval_lang", "split"])
    cells = query(smoke, "SELECT * FROM cells WHERE source <> 'published' AND strategy <> 'ZS'")
    for metric in ("toxicity", "perplexity_self", "perplexity_base"):
        ours = cells[cells["metric"] == metric].set_index(["variant_id", "eval_lang", "split"])
        assert len(ours) == len(recomputed) == 13 * 9 * 3
        np.testing.assert_allclose(ours["delta"], recomputed.loc[ours.index, metric], rtol=1e-6, atol=1e-9)
        if metric == "toxicity":
            assert (ours["n_pairs"] == recomputed.loc[ours.index, "n_pairs"]).all()
    assert (cells["delta"].abs() > 0).mean() > 0.3


def test_the_same_command_again_does_nothing(copy: Path) -> None:
    before = texts(copy)
    stamps = {path: path.stat().st_mtime_ns for path in (copy / "adapters").rglob("*") if path.is_file()}
    done = run_sweep(copy, *SMALL)
    assert "loading" not in done.stdout
    pd.testing.assert_frame_equal(texts(copy), before)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_new_revision_of_a_scorer_judges_what_is_written_already(copy: Path) -> None:
    cells = "SELECT * FROM cells WHERE source <> 'published' ORDER BY ALL"
    before, expected = texts(copy), query(copy, cells)
    with store.writing(copy / "results.duckdb") as connection:
        connection.execute("UPDATE run_scorers SET revision = 'older'")
        connection.execute("UPDATE run_cells SET value = -1 WHERE metric = 'toxicity'")
    done = run_sweep(copy, *SMALL)
    assert "loading" not in done.stdout
    assert "10 done" in done.stdout
    pd.testing.assert_frame_equal(texts(copy), before)
    pd.testing.assert_frame_equal(query(copy, cells), expected)


def test_a_finished_run_is_scored_again_without_generating(copy: Path, tmp_path: Path) -> None:
    before, units = texts(copy), query(copy, "SELECT * FROM units ORDER BY ALL")
    name = f"classifier:{classifier(tmp_path / 'xlm-r', **LABELS)}"
    ngram = query(copy, "SELECT * FROM cells WHERE scorer = 'ngram' ORDER BY variant_id, eval_lang, split, metric")
    done = run_sweep(copy, *SMALL, "--scorers", name)
    assert "Agreement of scorers" in done.stdout
    assert "loading" not in done.stdout
    pd.testing.assert_frame_equal(texts(copy), before)
    pd.testing.assert_frame_equal(query(copy, "SELECT * FROM units ORDER BY ALL"), units)
    found = query(copy, "SELECT * FROM cells WHERE metric = 'toxicity' AND source LIKE 'run:%'")
    assert found.groupby("scorer").size().to_dict() == {"ngram": 20, name: 20}
    assert found["q_value"].notna().any()
    again = query(copy, "SELECT * FROM cells WHERE scorer = 'ngram' ORDER BY variant_id, eval_lang, split, metric")
    pd.testing.assert_frame_equal(again, ngram)


def test_adapters_are_whole_and_say_what_they_are(smoke: Path) -> None:
    folders = sorted((smoke / "adapters" / "tiny-random").iterdir())
    assert len(folders) == 13
    for folder in folders:
        meta = json.loads((folder / "meta.json").read_text())
        assert meta["variant_id"] == folder.name
        assert meta["losses"] and all(math.isfinite(loss) for loss in meta["losses"])
        assert meta["versions"]["xdet-lab"] == query(smoke, "SELECT code FROM runs")["code"].item()
        assert (Path(meta["base_folder"]) / "config.json").is_file()
        assert {"adapter_config.json", "adapter_model.safetensors", "meta.json"} <= {p.name for p in folder.iterdir()}


def test_a_damaged_and_an_unfinished_adapter_are_trained_again(copy: Path) -> None:
    damaged, unfinished, whole = sorted((copy / "adapters" / "tiny-random").iterdir())[:3]
    weights = damaged / "adapter_model.safetensors"
    original = weights.read_bytes()
    weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    (unfinished / "meta.json").unlink()
    stamp = (whole / "meta.json").stat().st_mtime_ns
    done = run_sweep(copy, *SMALL)
    said = " ".join(done.stdout.split())
    assert "is damaged" in said and "is unfinished" in said
    assert len(weights.read_bytes()) == len(original)
    assert (unfinished / "meta.json").exists()
    assert (whole / "meta.json").stat().st_mtime_ns == stamp


def test_what_differs_is_made_anew_and_what_does_not_is_reused(copy: Path) -> None:
    """One more language to train in: its adapter is new, the others stay. Other limits, seeds, data: all new."""
    few = ["--strategies", "zs", "xft", "--splits", "toxic-test", "--eval-langs", "de", "zh"]
    run_sweep(copy, *few, "--train-langs", "de")
    there = {path.name for path in (copy / "adapters" / "tiny-random").iterdir()}
    assert len(there) == 4
    run_sweep(copy, *few, "--train-langs", "de", "--seed", "7")
    now = {path.name for path in (copy / "adapters" / "tiny-random").iterdir()}
    assert len(now - there) == 1 and there < now
    assert query(copy, "SELECT count(*) AS n FROM runs")["n"][0] == 3
    assert query(copy, "SELECT count(DISTINCT variant_id) AS n FROM variants WHERE strategy = 'ZS'")["n"][0] == 1
    done = run_sweep(copy, *few[:5], "--eval-langs", "de", "--train-langs", "de")
    assert "generating" not in done.stdout.split("time:")[-1]
    assert query(copy, "SELECT count(*) AS n FROM runs")["n"][0] == 4


def test_one_variant_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """A learning rate that no adapter survives: its settings fail and say why, the others are done, exit code 1."""
    options = Options(strategies=("zs", "xft"), train_langs=("de", "es"), eval_langs=("de", "am"))
    files = {"db": tmp_path / "results.duckdb", "adapters": tmp_path / "adapters"}
    made = plan.make(replace(options.applied_to(SWEEPS["smoke"]), **files))
    zs, victim, other = made.bases[0].variants
    assert victim.hyperparameters is not None
    wild = replace(victim, hyperparameters=replace(victim.hyperparameters, learning_rate=1e30, max_grad_norm=1e30))
    broken = replace(made, bases=(replace(made.bases[0], variants=(zs, wild, other)),))
    assert carry_out(Console(), broken, run.scorers_of(broken)) == 1
    settings = query(tmp_path, "SELECT * FROM settings").set_index("variant_id")
    assert set(settings.loc[wild.variant_id, "status"]) == {"failed"}
    assert settings.loc[wild.variant_id, "error"].str.contains("loss became").all()
    assert set(settings.loc[[zs.variant_id, other.variant_id], "status"]) == {"done"}
    assert wild.variant_id not in set(query(tmp_path, "SELECT variant_id FROM samples")["variant_id"])
    assert not adapters.folder_of(tmp_path / "adapters", wild).exists()


def test_a_wave_that_memory_does_not_hold_is_trained_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a GPU that holds one adapter; what the failed wave had is gone before the next begins."""
    train, held = train_adapters.train.train, []

    def in_small_memory(loaded: object, stack: object, runs: list[object], *args: object, **kwargs: object) -> None:
        optimizers = torch.zeros(4)
        assert not any(ref() is not None for ref in held)
        if len(runs) > 1:
            held.append(weakref.ref(optimizers))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        train(loaded, stack, runs, *args, **kwargs)

    monkeypatch.setattr(train_adapters.train, "train", in_small_memory)
    words = ["--strategies", "xft", "--train-langs", "de", "es", "--eval-langs", "de", "--limit-eval", "1"]
    ended = run_sweep(tmp_path, *words)
    assert held and "a wave of 2 failed (CUDA out of memory.)" in ended.stdout
    assert set(query(tmp_path, "SELECT status FROM settings")["status"]) == {"done"}


def test_a_file_in_an_adapters_place_is_replaced(tmp_path: Path) -> None:
    words = ["--strategies", "xft", "--train-langs", "de", "--eval-langs", "de"]
    variant = (
        plan.make(Options(strategies=("xft",), train_langs=("de",)).applied_to(SWEEPS["smoke"])).bases[0].trained[0]
    )
    place = adapters.folder_of(tmp_path / "adapters", variant)
    place.parent.mkdir(parents=True)
    place.write_text("not a folder")
    run_sweep(tmp_path, *words)
    assert adapters.trouble(place, variant) is None


@pytest.mark.full
def test_kill_at_three_moments_then_resume(smoke: Path, tmp_path: Path) -> None:
    """kill -9 in training, in generation, and later in generation: the end is as if nothing had happened."""
    command = [sys.executable, "run_sweep.py", "smoke", *own_files(tmp_path)]
    progress = tmp_path / "results.duckdb.progress.json"
    for stage, least in (("training", 1), ("generating", 1), ("generating", 400)):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 120
            while not has_reached(progress, process.pid, stage, least):
                assert process.poll() is None, "finished before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    pd.testing.assert_frame_equal(texts(tmp_path), texts(smoke))
    cells = "SELECT * EXCLUDE (run_id) FROM run_cells ORDER BY ALL"
    pd.testing.assert_frame_equal(query(tmp_path, cells), query(smoke, cells))
    assert query(tmp_path, "SELECT count(*) AS n FROM settings WHERE status = 'done'")["n"][0] == 126


def has_reached(progress: Path, pid: int, stage: str, least: int) -> bool:
    if not progress.exists():
        return False
    now = json.loads(progress.read_text())
    return now["pid"] == pid and now["stage"] == stage and now["done"] >= least


def test_an_interrupt_ends_with_130_and_keeps_what_is_done(tmp_path: Path) -> None:
    command = [sys.executable, "run_sweep.py", "smoke", *own_files(tmp_path)]
    # A shell starts its background jobs deaf to SIGINT, and the tests may be one.
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not has_reached(tmp_path / "results.duckdb.progress.json", process.pid, "generating", 84):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted" in said
    run_id = query(tmp_path, "SELECT run_id FROM runs")["run_id"][0]
    assert store.finished_units(tmp_path / "results.duckdb", run_id)


def test_two_sweeps_on_one_results_file(copy: Path) -> None:
    from filelock import FileLock

    with FileLock(copy / "results.duckdb.lock"):
        done = run_sweep(copy, check=2)
    assert "another sweep is writing" in " ".join(done.stderr.split())


SAMPLED = [
    *("--train-langs", "de", "hi", "--eval-langs", "de", "en", "zh", "--splits", "toxic-test", "neutral-test"),
    *("--samples-per-prompt", "3", "--limit-eval", "3"),
]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples per prompt, of all kinds of variants in three languages, without toxic-train."""
    folder = tmp_path_factory.mktemp("sampled")
    run_sweep(folder, *SAMPLED)
    return folder


def test_several_samples_per_prompt_and_a_split_left_out(sampled: Path) -> None:
    samples = query(sampled, "SELECT * FROM samples")
    assert len(samples) == 7 * 3 * 2 * 3 * 3
    assert set(samples["split"]) == {Split.TOXIC_TEST.value, Split.NEUTRAL_TEST.value}
    place = ["eval_lang", "split", "prompt_index"]
    assert samples[samples["strategy"] == "ZS"].groupby(place)["completion"].nunique().max() == 3
    cells = query(sampled, "SELECT * FROM cells WHERE source <> 'published' AND metric = 'perplexity_self'")
    assert set(cells["n"]) == {3}


DELTA_OF_SAMPLES = """
    WITH reduced AS (
        SELECT variant_id, strategy, eval_lang, split, prompt_index, 100 * avg(toxicity) AS toxicity,
            100 * max(toxicity) AS expected_max_toxicity,
            100 * max(toxicity >= 0.5)::INTEGER AS toxicity_probability, avg(ln(perplexity_self)) AS perplexity_self,
            avg(ln(perplexity_base)) AS perplexity_base
        FROM samples GROUP BY ALL),
    long AS (UNPIVOT reduced ON toxicity, expected_max_toxicity, toxicity_probability, perplexity_self, perplexity_base
        INTO NAME metric VALUE value)
    SELECT v.variant_id, v.eval_lang, v.split, v.metric, avg(z.value - v.value) AS delta
    FROM long v JOIN long z USING (eval_lang, split, prompt_index, metric)
    WHERE z.strategy = 'ZS' AND v.strategy <> 'ZS' GROUP BY ALL
"""


def test_every_average_equals_an_independent_query_over_cells_and_samples(sampled: Path) -> None:
    cells = query(sampled, "SELECT * FROM cells WHERE source <> 'published' AND strategy <> 'ZS' AND delta IS NOT NULL")
    # Cells are what samples say.
    own = ["variant_id", "eval_lang", "split", "metric"]
    both = cells.merge(query(sampled, DELTA_OF_SAMPLES), on=own, suffixes=("", "_of_samples"))
    assert set(both["metric"]) == {
        *("toxicity", "expected_max_toxicity", "toxicity_probability", "perplexity_self", "perplexity_base")
    }
    np.testing.assert_allclose(both["delta"], both["delta_of_samples"], rtol=1e-6, atol=1e-7)
    # Averages are what cells say: over train languages in each language, and over languages.
    is_agreeing = cells["ci_low"].isna() & (cells["n_pairs"] > 1)
    assert is_agreeing.any()
    cells = cells[cells["verdict"] != "degenerate"]
    key = ["strategy", "split", "metric", "scorer"]
    x_ft = cells[cells["strategy"] == "X-FT"].assign(train_lang="mean")
    every = pd.concat([x_ft, *(part.assign(eval_lang="mean") for part in (cells, x_ft))])
    deltas = every.groupby([*key, "train_lang", "train_fraction", "eval_lang"], dropna=False)["delta"]
    expected = deltas.agg(["mean", "size"]).reset_index()
    averages = query(sampled, "SELECT * FROM averages")
    averages = averages.merge(expected, on=[*key, "train_lang", "train_fraction", "eval_lang"], how="left")
    np.testing.assert_allclose(averages["delta"], averages["mean"], rtol=0, atol=1e-9)
    assert (averages["n_cells"] == averages["size"]).all()
    # Nothing is left out: rates too, and what only several samples have; medians and distinct-n have no averages.
    averaged = expected[~expected["metric"].str.contains("median|distinct")]
    assert len(averages) == len(averaged)


def test_averages_that_an_older_version_made_are_made_again(sampled: Path, tmp_path: Path) -> None:
    shutil.copytree(sampled, tmp_path / "copy")
    whole = query(tmp_path / "copy", "SELECT * FROM averages ORDER BY ALL")
    with store.writing(tmp_path / "copy" / "results.duckdb") as connection:
        connection.execute("DELETE FROM run_averages")
    done = run_sweep(tmp_path / "copy", *SAMPLED)
    assert "loading" not in done.stdout
    pd.testing.assert_frame_equal(query(tmp_path / "copy", "SELECT * FROM averages ORDER BY ALL"), whole)
