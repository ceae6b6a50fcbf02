"""Text checks that need no scorer: repetition, prompt copying, language. Pure.

A word of Chinese is a single character. The guards say when a completion is no answer: a variant that
writes nothing, the same thing again, its prompt, or English is not detoxified (docs/method.md has the formulas).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from math import nan
from typing import TYPE_CHECKING

import regex

from engine.vocabulary import NINE, Language, Metric

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

N_GRAM = 4
SURE_LETTERS = 20
"""An identifier is asked about texts with so many letters; below them the script alone decides."""

SCRIPTS = {"Ge'ez": r"\p{Ethiopic}", "Japanese": r"\p{Han}\p{Hiragana}\p{Katakana}"}
"""A script of ours → Unicode's names of it, where they differ."""

WORD = regex.compile(r"\p{Han}|[[\p{L}\p{M}\p{N}]--\p{Han}]+", regex.V1)
"""A word, or a character of Chinese."""
_LETTERS = regex.compile(r"\p{L}")

Words = tuple[str, ...]


def words_of(text: str) -> Words:
    """The words of a text, case folded."""
    return tuple(WORD.findall(text.casefold()))


def n_grams(words: Words, n: int) -> list[Words]:
    """All runs of `n` words, in their order, repeats and all."""
    return [words[i : i + n] for i in range(len(words) - n + 1)]


def repetition(text: str) -> float:
    """The share of 4-grams that have stood in the text before ("seq-rep-4", Welleck et al. 2020); NaN without any."""
    grams = n_grams(words_of(text), N_GRAM)
    return 1 - len(set(grams)) / len(grams) if grams else nan


def prompt_copy(text: str, prompt: str) -> float:
    """The share of the text's 4-grams (shorter ones, when it is shorter) that stand in its prompt; NaN without any."""
    words = words_of(text)
    n = min(N_GRAM, len(words))
    if not n:
        return nan
    prompt_grams = set(n_grams(words_of(prompt), n))
    grams = n_grams(words, n)
    return sum(gram in prompt_grams for gram in grams) / len(grams)


def distinct(texts: Iterable[str], n: int) -> float:
    """Different n-grams of all texts together over their number (Li et al. 2016); NaN without any."""
    grams = [gram for text in texts for gram in n_grams(words_of(text), n)]
    return len(set(grams)) / len(grams) if grams else nan


def on_language(texts: Sequence[str], lang: Language) -> list[float]:
    """1 where a text is in `lang`, 0 where it is not, NaN where it is empty.

    Most letters are of the language's script, and, in texts of `SURE_LETTERS` or more, the identifier finds `lang` the
    likeliest of the nine and itself; NaN there where it does not know `lang`. A text without a letter is in none.
    """
    return [_is_in(text, lang) if text.strip() else nan for text in texts]


def detect_language(text: str) -> Language | None:
    """The likeliest of the nine languages in whose script most letters of `text` are; None where no script has most."""
    langs = [lang for lang in NINE if _is_written_in(text, lang)]
    identifier = _identifier(NINE[0])
    if len(langs) < 2 or identifier is None:
        return langs[0] if langs else None
    return next(Language(name) for name, _ in identifier.rank(text) if name in langs)


def _is_in(text: str, lang: Language) -> float:
    if not _is_written_in(text, lang):
        return 0.0
    if len(_LETTERS.findall(text)) < SURE_LETTERS:
        return 1.0
    identifier = _identifier(lang)
    return nan if identifier is None else float(identifier.classify(text)[0] == lang.value)


def _is_written_in(text: str, lang: Language) -> bool:
    """Whether more than half of the letters are of the language's script."""
    script = SCRIPTS.get(lang.facts.script, rf"\p{{{lang.facts.script}}}")
    letters = regex.findall(rf"[\p{{L}}&&[{script}]]", text, regex.V1)
    return 2 * len(letters) > len(_LETTERS.findall(text))


def _identifier(lang: Language) -> "LanguageIdentifier | None":
    """One that tells the nine, and `lang`, apart; None where it does not know `lang`."""
    return _identifier_of(None if lang in NINE else lang)


@cache
def _identifier_of(another: Language | None) -> "LanguageIdentifier | None":
    """py3langid (Lui and Baldwin 2012), held to the nine and another."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    if another is not None and another.value not in identifier.nb_classes:
        return None
    identifier.set_languages([lang.value for lang in (*NINE, *([another] if another else []))])
    return identifier


TextMetric = Callable[[Sequence[str], Sequence[str], Language], Sequence[float]]

TEXT_METRICS: Mapping[Metric, TextMetric] = {
    Metric.EMPTY_RATE: lambda texts, prompts, lang: [float(not text.strip()) for text in texts],
    Metric.REPETITION_RATE: lambda texts, prompts, lang: [repetition(text) for text in texts],
    Metric.PROMPT_COPY_RATE: lambda texts, prompts, lang: list(map(prompt_copy, texts, prompts)),
    Metric.ON_LANGUAGE_RATE: lambda texts, prompts, lang: on_language(texts, lang),
}
"""The metrics of a text alone: completions, their prompts and the evaluation language → a number each, NaN for none."""
