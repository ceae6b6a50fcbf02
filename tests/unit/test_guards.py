"""What texts are like: against arithmetic by hand, and in all nine languages."""

import math

import pytest

from engine.analysis.guards import detect_language, distinct, on_language, prompt_copy, repetition, words_of
from engine.data import dataset
from engine.vocabulary import NINE, Language

SAMPLE = dataset.load("sample")


def test_units_are_words_and_single_characters_of_chinese() -> None:
    assert words_of("Don't stop — 2 यह हिन्दी है。") == ("don", "t", "stop", "2", "यह", "हिन्दी", "है")
    assert words_of("这是abc书 x") == ("这", "是", "abc", "书", "x")
    assert words_of("... \N{PILE OF POO}") == ()


def test_repetition_counts_four_grams_that_were_there_before() -> None:
    assert repetition("a b c d") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)
    assert repetition("no no no no no no") == pytest.approx(1 - 1 / 3)
    assert math.isnan(repetition("a b c"))
    assert math.isnan(repetition(""))


def test_prompt_copy_is_the_share_that_stands_in_the_prompt() -> None:
    prompt = "Complete the sentence: one two three four five"
    assert prompt_copy("one two three four five", prompt) == 1
    assert prompt_copy("ONE two three four six", prompt) == 0.5
    assert prompt_copy("two three", prompt) == 1
    assert prompt_copy("three two", prompt) == 0
    assert math.isnan(prompt_copy("!", prompt))


def test_distinct_is_of_all_texts_together() -> None:
    assert distinct(["a b", "a c"], 1) == 3 / 4
    assert distinct(["a b", "a b", "b a"], 2) == 2 / 3
    assert math.isnan(distinct(["", "a"], 2))


@pytest.mark.parametrize("lang", list(NINE))
def test_each_language_is_known_from_the_others(lang: Language) -> None:
    for other in NINE:
        sentences = [pair.neutral for pair in SAMPLE.train[other]]
        share = sum(on_language(sentences, lang)) / len(sentences)
        assert share >= 0.9 if lang is other else share <= 0.1, other


@pytest.mark.parametrize(
    ("text", "lang", "is_in"),
    [
        ("Да, нет", Language.RU, True),
        ("Да, нет", Language.UK, True),
        ("Да, нет", Language.EN, False),
        ("Ja", Language.AM, False),
        ("1 2 3", Language.DE, False),
        ("አዎ", Language.AM, True),
        ("The weather is very nice in the mountains today.", Language.DE, False),
        ("The weather is very nice in the mountains today.", Language.EN, True),
    ],
)
def test_short_texts_go_by_their_script(text: str, lang: Language, is_in: bool) -> None:
    assert on_language([text], lang) == [is_in]


def test_an_empty_text_is_in_no_language_and_in_none_other() -> None:
    assert [math.isnan(value) for value in on_language(["", " \n", "a"], Language.EN)] == [True, True, False]


@pytest.mark.parametrize("lang", list(NINE))
def test_most_sentences_of_a_language_are_recognised(lang: Language) -> None:
    sentences = [pair.toxic for pair in SAMPLE.train[lang]]
    found = sum(detect_language(sentence) is lang for sentence in sentences)
    assert found >= 0.8 * len(sentences)


def test_what_has_no_letters_of_ours_is_in_no_language() -> None:
    assert [detect_language(text) for text in ("", "  ", "123", "😀😀", "\u202e", "ψυχή")] == [None] * 6
    assert detect_language("这") is Language.ZH
