"""Colours, words and numbers of the charts, without the app."""

import math
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app import labels
from app.charts import differences, matrix
from engine.vocabulary import Metric

PALETTES = list(labels.PALETTES.values())


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [part / 255 for part in bytes.fromhex(colour[1:])]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_a_number_reads_on_every_colour(palette: labels.Palette, share: float) -> None:
    scales = [(palette.middle, palette.worse), (palette.middle, palette.better), (palette.low, palette.high)]
    for colour in [*(labels.mix(*ends, share) for ends in scales), palette.missing]:
        light, dark = sorted((_luminance(palette.ink), _luminance(colour)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("theme", labels.PALETTES)
def test_streamlits_charts_have_our_colours(theme: str) -> None:
    config = tomllib.loads((Path(__file__).parents[2] / ".streamlit" / "config.toml").read_text())["theme"][theme]
    palette, categories = labels.PALETTES[theme], labels.CATEGORIES[theme]
    assert config["chartCategoricalColors"] == list(categories)
    ramp = [labels.mix(palette.middle, categories[0], step / 9) for step in range(10)]
    assert config["chartSequentialColors"] == ramp
    worse = [labels.mix(palette.worse, palette.middle, step / 5) for step in range(5)]
    better = [labels.mix(palette.middle, palette.better, step / 5) for step in range(1, 6)]
    assert config["chartDivergingColors"] == worse + better
    for colour in categories:
        dark, light = sorted((_luminance(colour), _luminance(config["backgroundColor"])))
        assert (light + 0.05) / (dark + 0.05) >= 3


@pytest.mark.parametrize(
    ("number", "text"),
    [(1.26, "1.3"), (-1.26, "−1.3"), (-0.01, "0.0"), (662.4, "662"), (math.nan, "–")],
)
def test_numbers_as_written(number: float, text: str) -> None:
    assert labels.format_number(number, 1) == text


def test_a_sign_and_a_unit_when_asked_for() -> None:
    assert labels.format_number(2.0, 2, sign=True, unit="points") == "+2.00 points"


@pytest.mark.parametrize(
    ("row", "short", "long"),
    [
        ("zs", "ZS", "Zero-shot (ZS)"),
        ("x-ft-de", "de", "German (X-FT)"),
        ("p-ft-10", "P-FT 10 %", "10 % of each language (P-FT)"),
        ("m-ft", "M-FT", "All languages (M-FT)"),
    ],
)
def test_rows_have_names(row: str, short: str, long: str) -> None:
    assert (labels.row_name(row), labels.row_name(row, long=True)) == (short, long)


def test_adapters_have_readable_names() -> None:
    named = {
        "gemma-3-270m-x-ft-de-b19fd7fc9141": "German (X-FT)",
        "tiny-random-p-ft-10-21e6fad3c221": "10 % of each language (P-FT)",
        "gemma-3-270m-m-ft-e8f4bdff60d0": "All languages (M-FT)",
        "my-own": "my-own",
        "x-ft-xx": "x-ft-xx",
        "warm-fth": "warm-fth",
    }
    assert {name: labels.adapter_name(name) for name in named} == named


@pytest.mark.parametrize(
    ("metric", "delta", "direction"),
    [
        (Metric.TOXICITY, -7.16, "more toxic"),
        (Metric.TOXICITY, 7.16, "less toxic"),
        (Metric.TOXICITY, 0.0, "no change"),
        (Metric.TOXICITY, math.nan, "missing"),
        (Metric.ON_LANGUAGE_RATE, 0.2, "fewer"),
        (Metric.ON_LANGUAGE_RATE, -0.2, "more"),
    ],
)
@pytest.mark.parametrize("kind", [float, np.float64])
def test_a_delta_has_its_direction_as_numpy_s_number_too(
    kind: type[float], metric: Metric, delta: float, direction: str
) -> None:
    assert labels.MEASURES[metric].direction(kind(delta)) == direction


@pytest.mark.parametrize(
    ("metric", "delta", "side"),
    [
        (Metric.TOXICITY, -7.16, "worse"),
        (Metric.TOXICITY, 7.16, "better"),
        (Metric.ON_LANGUAGE_RATE, 7.16, "worse"),
        (Metric.ON_LANGUAGE_RATE, -7.16, "better"),
    ],
)
@pytest.mark.parametrize("kind", [float, object])
def test_colours_say_what_the_words_say(metric: Metric, delta: float, side: str, kind: type) -> None:
    """A column of floats gives Python's, one of objects numpy's."""
    palette, measure = labels.PALETTES["light"], labels.MEASURES[metric]
    colour = getattr(palette, side)
    assert measure.direction(delta) == getattr(measure, side)
    cells = pd.DataFrame({"shown": pd.Series([np.float64(delta)], dtype=kind), "state": "plain", "is_score": False})
    assert matrix._fills(cells, matrix.Scale(7.16, 0, 1), palette, measure) == [colour]
    cell = pd.Series({"delta": np.float64(delta), "ci_low": delta - 1, "ci_high": delta + 1})
    chart = differences.histogram(pd.Series([delta], name="delta"), cell, measure, palette)
    assert chart.to_dict()["layer"][1]["mark"]["color"] == colour
