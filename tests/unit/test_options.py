"""Words and numbers of the command line: what they change, and what is said of those we do not know."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import RESERVED, SWEEPS, Sweep, find_sweep
from engine.errors import ModelError, UsageError
from engine.model import registry
from engine.sweep.options import Options
from engine.vocabulary import Language, Split, Strategy

DEMO = SWEEPS["demo"]


def applied(**given: object) -> Sweep:
    return Options(**given).applied_to(DEMO)


@pytest.mark.parametrize(
    ("option", "word", "nearest"),
    [
        ("strategies", "XF", "x-ft"),
        ("strategies", "P-FTT", "p-ft"),
        ("train_langs", "eng", "en"),
        ("eval_langs", "uk1", "uk"),
        ("splits", "toxic-tset", "toxic-test"),
        ("scorers", "n-gram", "ngram"),
        ("backend", "transformer", "transformers"),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_known(option: str, word: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        applied(**{option: word if option == "backend" else (word,)})
    message = str(caught.value)
    assert repr(word) in message
    assert f"Did you mean {nearest!r}?" in message
    assert f"--{option.replace('_', '-')}" in message


def test_an_unknown_sweep_is_refused_with_the_nearest_and_a_reserved_one_as_such() -> None:
    with pytest.raises(UsageError, match="Did you mean 'smoke'"):
        find_sweep("smokey")
    for name in RESERVED:
        with pytest.raises(UsageError, match="reserved"):
            find_sweep(name)


def test_a_word_like_none_we_know_gets_the_list_and_no_wild_guess() -> None:
    with pytest.raises(UsageError) as caught:
        applied(strategies=("qqqqqqq",))
    assert "Did you mean" not in str(caught.value)
    assert "ZS, X-FT, P-FT, M-FT" in str(caught.value)


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'gemma-3-270m'"):
        registry.resolve("gema-3-270m")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["./models/absent", "/models/absent", "a b/c", "x/y/z", "aya-23-8b/", "owner/model"])
def test_a_base_that_is_not_to_be_had_is_refused_by_name_in_a_dry_run_too(name: str) -> None:
    told = []
    for find in (registry.resolve, registry.describe):
        with pytest.raises((UsageError, ModelError)) as caught:
            find(name)
        told.append(str(caught.value))
    assert name in told[0] and told[0] == told[1]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no config.json"),
        ({"config.json": "{}"}, "no \\*.safetensors"),
        ({"config.json": "{", "a.safetensors": ""}, "config.json: not valid JSON"),
        ({"config.json": '{"model_type": "gpt9"}', "a.safetensors": ""}, "gpt9 is no causal language model"),
    ],
)
def test_a_folder_that_is_no_base_is_refused(tmp_path: Path, files: dict[str, str], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=says):
        registry.resolve(str(tmp_path))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["tiny-random", "gemma-3-270m"])
def test_the_case_of_a_key_does_not_matter(name: str) -> None:
    found, exact = registry.resolve(name.title()), registry.resolve(name)
    assert (found.name, found.revision) == (exact.name, exact.revision)


@pytest.mark.parametrize("word", ["xft", "X-FT", "x_ft", "x-ft", "XFT"])
def test_a_strategy_may_be_spelled_in_several_ways(word: str) -> None:
    assert applied(strategies=(word,)).strategies == (Strategy.X_FT,)


def test_words_come_out_in_the_vocabularys_order_and_once() -> None:
    chosen = applied(
        strategies=("mft", "zs", "ZS"), eval_langs=("ZH", "am", "am"), splits=("toxic_test", "TOXIC-TRAIN")
    )
    assert chosen.strategies == (Strategy.ZS, Strategy.M_FT)
    assert chosen.eval_langs == (Language.AM, Language.ZH)
    assert chosen.splits == (Split.TOXIC_TRAIN, Split.TOXIC_TEST)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[(name, 0) for name in ("epochs", "limit_train", "limit_eval", "samples_per_prompt", "max_new_tokens")],
        ("epochs", -3),
        ("seed", -1),
    ],
)
def test_a_number_too_small_is_refused_by_its_flag(option: str, value: int) -> None:
    with pytest.raises(UsageError) as caught:
        applied(**{option: value})
    assert f"--{option.replace('_', '-')} {value} is too small" in str(caught.value)
    applied(**{option: value + 4})


@pytest.mark.parametrize("option", ["models", "strategies", "train_langs", "eval_langs", "splits", "scorers"])
def test_no_word_at_all_is_refused_by_its_flag(option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}"):
        applied(**{option: ()})


def test_only_x_ft_needs_train_langs() -> None:
    assert applied(strategies=("zs", "mft"), train_langs=()).train_langs == ()


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
def test_no_option_changes_nothing(sweep: Sweep) -> None:
    assert Options().applied_to(sweep) == sweep


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        ("models", ("bloom-7b1", "bloom-7b1"), {"models": ("bloom-7b1",)}),
        ("strategies", ("zs",), {"strategies": (Strategy.ZS,)}),
        ("train_langs", ("de",), {"train_langs": (Language.DE,)}),
        ("eval_langs", ("de",), {"eval_langs": (Language.DE,)}),
        ("splits", ("neutral-test",), {"splits": (Split.NEUTRAL_TEST,)}),
        ("dataset", "paradetox", {"dataset": "paradetox"}),
        ("scorers", ("ngram",), {"scorers": ("ngram",)}),
        ("backend", "transformers", {"backend": "transformers"}),
        ("db", Path("x.duckdb"), {"db": Path("x.duckdb")}),
        ("adapters", Path("x"), {"adapters": Path("x")}),
        ("epochs", 7, {"hyperparameters": replace(DEMO.hyperparameters, epochs=7)}),
        ("limit_train", 7, {"limit_train": 7}),
        ("limit_eval", 7, {"limit_eval": 7}),
        ("samples_per_prompt", 7, {"samples_per_prompt": 7}),
        ("max_new_tokens", 7, {"sampling": replace(DEMO.sampling, max_new_tokens=7)}),
        ("seed", 7, {"seed": 7}),
        ("represent", True, {"represent": True}),
    ],
)
def test_an_option_changes_what_it_names_and_nothing_else(option: str, given: object, expected: dict) -> None:
    assert applied(**{option: given}) == replace(DEMO, **expected)
