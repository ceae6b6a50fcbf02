"""Pairs → training text and prompts: one partition, nested shares, limits."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.dataset import Dataset
from engine.data.splits import partition, split, subset
from engine.vocabulary import NINE, TRAIN_FRACTIONS, Language, Pair, Split, Strategy, Variant


def pairs(n: int) -> list[Pair]:
    return [Pair(f"t{i}", f"n{i}") for i in range(n)]


@given(n=st.integers(1, 400), seed=st.integers(0, 2**31), number=st.integers(0, 8))
def test_shares_are_nested_and_never_empty(n: int, seed: int, number: int) -> None:
    ten, twenty, thirty, everything = (subset(n, f, (seed, number)) for f in (*TRAIN_FRACTIONS, 1.0))
    assert set(ten) <= set(twenty) <= set(thirty) <= set(everything)
    assert everything == list(range(n))
    for share in (ten, twenty, thirty):
        assert 0 < len(share) == len(set(share))
        assert share == sorted(share)


@pytest.mark.parametrize(("n", "sizes"), [(300, [30, 60, 90]), (30, [3, 6, 9]), (10, [1, 2, 3])])
def test_a_share_has_the_size_it_says(n: int, sizes: list[int]) -> None:
    assert [len(subset(n, fraction, (42, 0))) for fraction in TRAIN_FRACTIONS] == sizes


def test_a_share_depends_on_seed_and_language() -> None:
    drawn = {tuple(subset(300, 0.1, key)) for key in [(42, 0), (42, 1), (43, 0)]}
    assert len(drawn) == 3


@pytest.mark.parametrize("n", [400, 450])
def test_four_hundred_pairs_are_300_and_100_of_the_documented_permutation(n: int) -> None:
    everything = pairs(n)
    order = np.random.default_rng(42).permutation(n)
    train, test = partition(everything)
    assert list(train) == [everything[i] for i in order[:300]]
    assert list(test) == [everything[i] for i in order[300:400]]


@given(st.integers(14, 399))
def test_fewer_pairs_are_split_three_to_one_without_loss(n: int) -> None:
    train, test = partition(pairs(n))
    assert len(train) == n * 3 // 4
    assert set(train) | set(test) == set(pairs(n))
    assert not set(train) & set(test)


@pytest.fixture
def learns(sample: Dataset, variants: list[Variant]) -> Callable[..., list[str]]:
    """The training text of the variant with a label."""
    by_label = {v.label: v for v in variants}

    def text(label: str, limit_train: int | None = None, **changes: object) -> list[str]:
        pairs = split(sample.train, sample.test, limit_train).training_pairs(replace(by_label[label], **changes))
        return [pair.neutral for pair in pairs]

    return text


def test_what_each_strategy_learns(sample: Dataset, learns: Callable[..., list[str]]) -> None:
    assert learns("zs") == []
    assert learns("x-ft-de") == [pair.neutral for pair in sample.train[Language.DE]]
    assert learns("m-ft") == [pair.neutral for lang in NINE for pair in sample.train[lang]]


@pytest.mark.parametrize(("label", "share"), [("p-ft-10", 3), ("p-ft-20", 6), ("p-ft-30", 9)])
def test_p_ft_pools_its_share_of_every_language(
    sample: Dataset, learns: Callable[..., list[str]], label: str, share: int
) -> None:
    text = learns(label)
    assert len(text) == 9 * share
    for lang in NINE:
        assert sum(pair.neutral in text for pair in sample.train[lang]) == share
    assert text != learns(label, seed=43)


def test_p_ft_is_nested_and_drawn_from_the_set_as_limited(learns: Callable[..., list[str]]) -> None:
    for limit in (None, 10):
        ten, twenty, thirty, everything = (
            set(learns(label, limit)) for label in ("p-ft-10", "p-ft-20", "p-ft-30", "m-ft")
        )
        assert ten < twenty < thirty < everything
    assert len(learns("p-ft-30", 10)) == 27


@pytest.mark.parametrize(
    ("limit_train", "limit_eval"), [(None, None), (5, None), (None, 3), (5, 3), (3, 5), (999, 999)]
)
def test_limits_are_the_first_pairs_and_the_first_prompts(
    sample: Dataset, limit_train: int | None, limit_eval: int | None
) -> None:
    made = split(sample.train, sample.test, limit_train, limit_eval)
    train, test = sample.train[Language.RU][:limit_train], sample.test[Language.RU]
    assert made.train[Language.RU] == train
    assert made.prompt_pairs(Split.TOXIC_TRAIN, Language.RU) == train[:limit_eval]
    for part in (Split.TOXIC_TEST, Split.NEUTRAL_TEST):
        assert made.prompt_pairs(part, Language.RU) == test[:limit_eval]


def test_a_split_prompts_with_its_side_of_a_pair() -> None:
    pair = Pair("toxic", "neutral")
    assert [pair.prompt_side(part) for part in Split] == ["toxic", "toxic", "neutral"]


def test_no_test_sentence_is_ever_learnt(sample: Dataset, variants: list[Variant]) -> None:
    made = split(sample.train, sample.test)
    held_out = {pair.neutral for found in sample.test.values() for pair in found}
    learnt = {pair.neutral for v in variants if v.strategy is not Strategy.ZS for pair in made.training_pairs(v)}
    assert not held_out & learnt
