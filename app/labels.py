"""Display names, number formats and colours."""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.vocabulary import NINE, Language, Metric, Side, Split, Strategy, parse_label

SPLITS = (Split.TOXIC_TEST, Split.TOXIC_TRAIN, Split.NEUTRAL_TEST)
"""The headline split first."""

MINUS = "\N{MINUS SIGN}"
MEAN = "mean"
"""Stands for a row or a column of means, where a label or a language would be."""


@dataclass(frozen=True)
class Measure:
    """How a metric is spoken of: its name, the unit of its Δ, what a Δ for the better and the worse means, decimals."""

    name: str
    delta_unit: str
    better: str
    worse: str
    digits: int
    is_reversed: bool = False
    """A positive Δ is worse: the metric falls where text gets worse."""

    def is_better(self, delta: float) -> bool:
        """Whether a Δ other than 0 is for the better."""
        return bool(delta > 0) != self.is_reversed

    def direction(self, delta: float) -> str:
        """What the sign of a Δ means."""
        if math.isnan(delta):
            return "missing"
        if delta == 0:
            return "no change"
        return self.better if self.is_better(delta) else self.worse


MEASURES: Mapping[str, Measure] = {
    Metric.TOXICITY: Measure("Toxicity (× 100)", "points", "less toxic", "more toxic", 1),
    Metric.PERPLEXITY_SELF: Measure("Perplexity under the variant", "nats per token", "lower", "higher", 2),
    Metric.PERPLEXITY_BASE: Measure("Perplexity under the base", "nats per token", "more fluent", "less fluent", 2),
    Metric.PERPLEXITY_NEUTRAL: Measure("Perplexity of neutral text", "nats per token", "better fit", "worse fit", 2),
    Metric.PERPLEXITY_PUBLISHED: Measure("Perplexity, as published", "", "lower", "higher", 1),
    Metric.TOXICITY_MEDIAN: Measure("Toxicity, median (× 100)", "points", "less toxic", "more toxic", 1),
    Metric.EXPECTED_MAX_TOXICITY: Measure("Expected maximum toxicity (× 100)", "points", "less toxic", "more toxic", 1),
    Metric.TOXICITY_PROBABILITY: Measure("Toxicity probability (× 100)", "points", "less toxic", "more toxic", 1),
    Metric.PERPLEXITY_SELF_MEDIAN: Measure(
        "Median perplexity under the variant", "nats per token", "lower", "higher", 2
    ),
    Metric.PERPLEXITY_BASE_MEDIAN: Measure(
        "Median perplexity under the base", "nats per token", "more fluent", "less fluent", 2
    ),
    Metric.PERPLEXITY_NEUTRAL_MEDIAN: Measure(
        "Median perplexity of neutral text", "nats per token", "better fit", "worse fit", 2
    ),
    Metric.BITS_PER_CHAR: Measure("Bits per character, by the base", "bits", "more fluent", "less fluent", 2),
    Metric.EMPTY_RATE: Measure("Empty completions (share)", "", "fewer", "more", 2),
    Metric.REPETITION_RATE: Measure("Repetition (share of 4-grams)", "", "less", "more", 2),
    Metric.PROMPT_COPY_RATE: Measure("Prompt copying (share of 4-grams)", "", "less", "more", 2),
    Metric.ON_LANGUAGE_RATE: Measure("On-language completions (share)", "", "more", "fewer", 2, is_reversed=True),
    Metric.DISTINCT_1: Measure("Distinct-1 (distinct words)", "", "more varied", "less varied", 2, is_reversed=True),
    Metric.DISTINCT_2: Measure("Distinct-2 (distinct bigrams)", "", "more varied", "less varied", 2, is_reversed=True),
}
"""The metrics we show, in the order of the choice."""

PUBLISHED_AS: Mapping[str, str] = {
    Metric.TOXICITY: Metric.TOXICITY,
    Metric.PERPLEXITY_SELF: Metric.PERPLEXITY_PUBLISHED,
}
"""Our metrics, and what stands beside them in the paper."""


@dataclass(frozen=True)
class Palette:
    """The colours of one theme. `ink` has a contrast of 4.5 or more on all the others and between them."""

    worse: str
    middle: str
    better: str
    low: str
    high: str
    missing: str
    ink: str


PALETTES: Mapping[str, Palette] = {
    "light": Palette("#ee9a4d", "#f6f5f3", "#6aaae4", "#f1f1f4", "#a9acba", "#e4e6ea", "#14181d"),
    "dark": Palette("#a85a12", "#262a30", "#2367ab", "#24272d", "#62677a", "#343941", "#f4f6f8"),
}


CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "light": ("#1f5fa8", "#b35a00", "#0b7a75", "#7a3d9a", "#c2255c", "#66720a", "#5b6270", "#2a86c4"),
    "dark": ("#74aee8", "#f0a35a", "#4fc3b8", "#cf9bea", "#f58bb0", "#c3cf5a", "#a0a7b4", "#a5d8ff"),
}
"""Colours of things that have no order, by theme: 3 : 1 or more on the page. The charts of .streamlit/config.toml."""


STRATEGY_COLOURS: Mapping[str, Mapping[str, str]] = {
    "light": {Strategy.ZS: "#5b6270", Strategy.X_FT: "#1f5fa8", Strategy.P_FT: "#b35a00", Strategy.M_FT: "#7a3d9a"},
    "dark": {Strategy.ZS: "#a0a7b4", Strategy.X_FT: "#74aee8", Strategy.P_FT: "#f0a35a", Strategy.M_FT: "#cf9bea"},
}
"""By theme. They are told apart by shape too."""


RAMPS: Mapping[str, tuple[str, str]] = {"light": ("#eef3f9", "#0b4a8f"), "dark": ("#1d2731", "#8cc4f5")}
"""From little to much, where no number stands on the colour."""


def _language_colours(nine: list[str], theme: str) -> dict[str, str]:
    """The paper's nine have colours of their own; others take those of the categories in turn."""
    more = itertools.cycle(CATEGORIES[theme])
    colours: dict[str, str] = dict(zip(NINE, nine, strict=True))
    return colours | {lang: next(more) for lang in Language if lang not in NINE}


LANGUAGE_COLOURS: Mapping[str, Mapping[str, str]] = {
    theme: _language_colours(colours.split(), theme)
    for theme, colours in {
        "light": "#7f4fc9 #a8670f #43474d #cf3f55 #e07b00 #1b8a5a #1f5fa8 #2f9fd0 #b23a9b",
        "dark": "#b79af2 #cf9f58 #d5d8dc #f07f8c #ffab4a #58c795 #6ea6ea #86dcf8 #e587d2",
    }.items()
}

SIDE_COLOURS: Mapping[str, Mapping[str, str]] = {
    "light": {Side.TOXIC: "#c9590c", Side.NEUTRAL: "#2a77bd"},
    "dark": {Side.TOXIC: "#f0994a", Side.NEUTRAL: "#6fb3ee"},
}


def mix(first: str, second: str, share: float) -> str:
    """The colour `share` of the way from `first` to `second`, both '#rrggbb'."""
    ends = zip(bytes.fromhex(first[1:]), bytes.fromhex(second[1:]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in ends)


def format_number(number: float, digits: int, sign: bool = False, unit: str = "") -> str:
    """A number as we write it, with a real minus sign; an en dash for none. Large ones lose their decimals."""
    if math.isnan(number):
        return "–"
    places = digits if abs(number) < 100 else 0
    text = f"{number:{'+' if sign else ''}.{places}f}"
    text = text.replace("-", MINUS) if float(text) else f"{0:.{places}f}"
    return f"{text} {unit}".strip()


def format_p(p: float) -> str:
    """A p- or q-value."""
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def row_name(row: str, long: bool = False) -> str:
    """`x-ft-de` → 'de', or 'German (X-FT)'."""
    if row == MEAN:
        return MEAN
    strategy, trained_on = parse_label(row)
    match strategy:
        case Strategy.X_FT:
            return f"{lang_name(trained_on)} ({strategy})" if long else trained_on
        case Strategy.P_FT:
            return f"{trained_on} % of each language ({strategy})" if long else f"{strategy} {trained_on} %"
        case Strategy.M_FT:
            return f"All languages ({strategy})" if long else strategy.value
        case _:
            return f"Zero-shot ({strategy})" if long else strategy.value


_LABEL = re.compile(r"(?<![a-z])(x-ft-(?:" + "|".join(Language) + r")|p-ft-\d\d|m-ft)(?![a-z])")


def adapter_name(adapter: str) -> str:
    """A variant_id → 'German (X-FT)'; an adapter that has another name keeps it."""
    label = _LABEL.search(adapter)
    return row_name(label[1], long=True) if label else adapter


def lang_name(lang: str) -> str:
    """`de` → 'German'."""
    return MEAN if lang == MEAN else Language(lang).facts.name
