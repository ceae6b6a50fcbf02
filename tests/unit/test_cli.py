"""The command line, in this process: exit codes, messages, and nothing made where nothing was to be done."""

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

import run_sweep


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What a plan imports (torch, mostly) is no test's time."""
    importlib.import_module("engine.sweep.report")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], offline: None
) -> Callable[..., Ended]:
    """`python run_sweep.py …` in an empty folder, on a wide terminal, with the hub out of reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")

    def run(*words: str) -> Ended:
        try:
            code = run_sweep.command_line(words)
        except SystemExit as stop:
            code = stop.code
        return Ended(code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["smokey"], "smoke"),
        (["--strategies", "ZS", "XF"], "x-ft"),
        (["--train-langs", "eng"], "en"),
        (["--eval-langs", "am", "deu"], "de"),
        (["--splits", "toxic-tset"], "toxic-test"),
        (["--dataset", "sampel"], "sample"),
        (["--models", "gema-3-270m"], "gemma-3-270m"),
        (["--scorers", "ngrams"], "ngram"),
        (["--backend", "transformer"], "transformers"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else words,
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_an_unknown_word_ends_with_2_and_the_nearest_and_makes_nothing(
    cli: Callable[..., Ended], tmp_path: Path, words: list[str], nearest: str, dry: list[str]
) -> None:
    ended = cli(*words, *dry)
    assert ended.code == run_sweep.BAD_INPUT == 2
    assert f"Did you mean '{nearest}'?" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["search", "--train-langs", "xx"],
        ["search", "--epochs", "0"],
        ["search", "--epochs", "2", "--halving"],
        ["search", "--models", "gema"],
        ["search", "--dry-run", "--nonsense"],
        ["smoke", "--hyperparameters", "from-serch"],
        ["--epochs", "0"],
        ["--seed", "-1"],
        ["--dataset", "no/such/folder"],
        ["--epochs", "many"],
        ["--nonsense"],
    ],
    ids=" ".join,
)
def test_other_bad_usage_ends_with_2_and_makes_nothing(
    cli: Callable[..., Ended], tmp_path: Path, words: list[str]
) -> None:
    ended = cli(*words)
    assert ended.code == 2
    assert words[-1].lstrip("-") in ended.err + ended.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "settings", "variants"),
    [
        (["smoke"], 126, 14),
        (["demo"], 126, 14),
        (["paper"], 504, 56),
        (["smoke", "--strategies", "zs", "xft", "--train-langs", "de", "--eval-langs", "de", "en"], 4, 2),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_a_dry_run_prints_the_plan_and_makes_nothing(
    cli: Callable[..., Ended], tmp_path: Path, words: list[str], settings: int, variants: int
) -> None:
    ended = cli(*words, "--dry-run")
    assert ended.code == run_sweep.DONE == 0, ended.err
    rows = dict(
        re.findall(
            r"^ *(variants|settings|prompts|tokens|time|memory|disk) +(?:at most )?(?:about )?([\d,.:]+)",
            ended.out,
            re.M,
        )
    )
    assert (rows["settings"], rows["variants"]) == (str(settings), str(variants))
    assert {"prompts", "tokens", "time", "memory", "disk"} <= rows.keys()
    assert list(tmp_path.iterdir()) == []


def test_the_sizes_of_a_dry_run_by_hand(cli: Callable[..., Ended]) -> None:
    """`demo` is 2 splits × 4 prompts × 9 languages × 14 variants of 12 tokens, and one epoch."""
    out = cli("demo", "--dry-run").out
    assert "72, 1,008 completions" in out
    assert "12,096 new tokens" in out
    # 20 pairs of each language: X-FT 9 × 20, P-FT 9 × (2 + 4 + 6), M-FT 180.
    assert "468 rows" in out


def test_a_dry_run_of_the_paper_says_that_it_assumes_the_papers_sizes(cli: Callable[..., Ended]) -> None:
    ended = cli("paper", "--dry-run")
    assert "sizes are the paper's, 300 + 100 pairs per language" in ended.out
    # 300 + 100 + 100 prompts in 9 languages, under 56 variants
    assert "4,500, 252,000 completions" in ended.out
    assert ended.out.count("one wave of 13 adapters, 13 at once") == 4
    assert ended.out.count("memory of training: ") == ended.out.count("memory of generation: ") == 4
    assert "on one H100 with 80 GB (estimate)" in ended.out
    assert ended.out.count("generation by vLLM") == 2
    assert ended.out.count("generation by the built-in backend: vLLM cannot load its adapters") == 2


def test_a_results_file_in_a_folder_that_cannot_be_made_ends_with_2(cli: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = cli("smoke", "--db", "file/results.duckdb")
    assert ended.code == 2
    assert "--db" in ended.err


def test_a_results_file_that_is_no_duckdb_file_ends_with_2_and_is_left_alone(
    cli: Callable[..., Ended], tmp_path: Path
) -> None:
    path = tmp_path / "results.duckdb"
    path.write_text("no database\n" * 2000)
    ended = cli("smoke", "--db", "results.duckdb")
    assert ended.code == 2
    assert "results.duckdb: cannot be opened as a DuckDB file" in ended.err
    assert path.read_text() == "no database\n" * 2000


def test_a_second_sweep_on_the_same_file_ends_with_2(cli: Callable[..., Ended], tmp_path: Path) -> None:
    with FileLock(tmp_path / "results.duckdb.lock"):
        ended = cli("smoke", "--db", "results.duckdb")
    assert ended.code == 2
    assert "another sweep is writing" in ended.err
    assert not (tmp_path / "results.duckdb").exists()


def test_nothing_heavy_is_imported_before_the_words_are_checked() -> None:
    code = "import sys, run_sweep; print({'torch', 'transformers', 'peft', 'pandas', 'duckdb'} & sys.modules.keys())"
    root = Path(run_sweep.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
