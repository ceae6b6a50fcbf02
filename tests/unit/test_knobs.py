"""The options that shape training and text, from the command line and from a file."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import run_sweep
from engine.config import PROMPT, SWEEPS, prompt_of
from engine.errors import UsageError
from engine.sweep.options import Options, as_toml

DEMO = SWEEPS["demo"]


def test_options_of_training_and_text_reach_the_sweep() -> None:
    options = Options(rank=8, alpha=16, dropout=0.0, learning_rate=1e-4, batch_size=2, max_tokens=64)
    options = replace(options, prompt="Continue: {sentence}", temperature=0.0, top_k=5, top_p=0.5)
    sweep = options.applied_to(DEMO)
    h, s = sweep.hyperparameters, sweep.sampling
    assert (h.rank, h.alpha, h.dropout, h.learning_rate, h.batch_size, h.max_tokens) == (8, 16, 0.0, 1e-4, 2, 64)
    assert (s.temperature, s.top_k, s.top_p, sweep.prompt) == (0.0, 5, 0.5, "Continue: {sentence}")
    assert h.epochs == DEMO.hyperparameters.epochs and s.max_new_tokens == DEMO.sampling.max_new_tokens
    assert Options().applied_to(DEMO) == DEMO


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(rank=0), "--rank 0 is too small"),
        (Options(dropout=1.0), "--dropout 1.0 is out of range"),
        (Options(learning_rate=0.0), "--learning-rate 0.0 is out of range"),
        (Options(batch_size=0), "--batch-size 0 is too small"),
        (Options(top_p=1.1), "--top-p 1.1 is out of range"),
        (Options(temperature=-0.1), "--temperature -0.1 is out of range"),
        (Options(prompt="Complete this:"), "must contain {sentence} once"),
        (Options(prompt="{sentence} {sentence}"), "must contain {sentence} once"),
    ],
)
def test_values_that_make_no_sense_are_refused(options: Options, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.applied_to(DEMO)
    assert says in str(caught.value)


def test_a_prompt_is_filled_in_as_it_stands() -> None:
    assert prompt_of("a {b} {sentence}") == "Complete the sentence: a {b} {sentence}"
    assert prompt_of("x", "{y} {sentence}!") == "{y} x!" and PROMPT.endswith("{sentence}")


@pytest.mark.parametrize("name", SWEEPS)
def test_a_printed_configuration_gives_the_same_sweep(name: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    changed = Options(temperature=0.0).applied_to(SWEEPS[name])
    file.write_text(as_toml(changed), encoding="utf-8")
    assert tomllib.loads(file.read_text(encoding="utf-8"))["temperature"] == 0
    assert Options(config=file).applied_to(SWEEPS[name]) == changed
    over = Options(config=file, rank=3).applied_to(SWEEPS[name])
    assert over == replace(changed, hyperparameters=replace(changed.hyperparameters, rank=3))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("rnk = 3", "--rank"),
        ("rank = 'x'", "x"),
        ("models = 1\n[a]\nb = 1", "must be a word"),
        ("rank", "cannot be read"),
    ],
)
def test_a_wrong_configuration_is_named(
    content: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(content)
    try:
        code = run_sweep.command_line(["demo", "--config", str(file), "--print-config"])
    except SystemExit as ended:  # tyro's own end
        code = ended.code
    assert code == 2
    said = capsys.readouterr()
    assert says in said.out + said.err
