"""Do intervals hold the truth as often as they say, and how long do 6,000 cells take? On the CPU, by simulation."""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

from bench.harness import REPEATS, Section, median_range, table
from engine.analysis import metrics, statistics
from engine.analysis.statistics import RESAMPLES, TAIL, Array
from engine.vocabulary import Metric, Split

SIMULATED = 2000
"""Cells a distribution and n: the standard error of a share near 95 % is half a per cent."""

SIZES = (10, 30, 100, 300)

Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

DRAWS: dict[str, tuple[Draw, float]] = {
    "toxicity-like: Beta − Beta": (lambda rng, size: rng.beta(1, 6, size) - rng.beta(0.5, 6, size), 1 / 7 - 0.5 / 6.5),
    "half zeros, half Beta": (lambda rng, size: rng.beta(1, 6, size) * (rng.random(size) < 0.5), 1 / 14),
    "perplexity-like: log-normal": (lambda rng, size: rng.lognormal(0, 1, size), float(np.exp(0.5))),
}
"""Differences whose mean is known."""

METHODS = ("percentile", "expanded percentile", "Student's t", "bootstrap-t (ours)")

VARIANTS, LANGS = 14, 11
"""Eleven languages of 546 cells are 6,006."""


def coverage() -> Section:
    section = Section(
        "coverage",
        "Do intervals hold the truth?",
        f"Share of 95 % intervals of a mean difference that hold its true value, {SIMULATED:,} simulated cells each. "
        "The gate is that of toxicity at n = 100 and 300: 93 to 97 %.",
    )
    rows = []
    for name, (draw, truth) in DRAWS.items():
        for n in SIZES:
            shares = interval_coverage(draw(np.random.default_rng(6), (n, SIMULATED)), truth)
            rows.append((name, n, *(f"{share:.3f}" for share in shares)))
            if "toxicity" in name and n >= 100:
                section.gate(f"{name}, n = {n}", 0.93 <= shares[-1] <= 0.97, f"{shares[-1]:.3f}")
    section.body.append(table(("differences", "n", *METHODS), rows))
    return section


def interval_coverage(values: Array, truth: float) -> list[float]:
    """Of the intervals of columns of `values` [n, cells], the share that hold `truth`, by each of `METHODS`."""
    n = len(values)
    counts = statistics._counts(n, RESAMPLES, 0) / n
    means = counts @ values
    # Hesterberg 2015: the percentile interval, widened to what Student's t would reach at this n.
    wider = float(stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(TAIL, n - 1)))
    ends = [np.quantile(means, [tail, 1 - tail], axis=0) for tail in (TAIL, wider)]
    reach = stats.t.ppf(1 - TAIL, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
    ends.append(np.array([values.mean(0) - reach, values.mean(0) + reach]))
    ends.append(np.array(statistics.mean_interval(values)[:2]))
    return [float(((low <= truth) & (truth <= high)).mean()) for low, high in ends]


def cells() -> Section:
    section = Section(
        "cells",
        "6,000 cells on one core",
        "Means, medians, Δ, intervals, permutation tests and verdicts of all metrics, 14 variants, 300 + 100 + 100 "
        "prompts, language after language as a sweep does it. Processor seconds; no baseline.",
    )
    values = _values()
    seconds, made = [], 0
    with threadpool_limits(1):
        for _ in range(REPEATS):
            began = time.process_time()
            made = sum(len(metrics.cells(values, "v0")) for _ in range(LANGS))
            seconds.append(time.process_time() - began)
    section.gate(f"{made:,} cells in under 20 s", sorted(seconds)[len(seconds) // 2] < 20, f"{median_range(seconds)} s")
    section.body.append(table(("cells", "seconds"), [(f"{made:,}", median_range(seconds))]))
    return section


def _values() -> pd.DataFrame:
    """What the completions of one language measure, by chance: the input of `metrics.cells`."""
    rng = np.random.default_rng(0)
    sources = sorted({measure.source for measure in metrics.MEASURES.values()})
    return pd.concat(
        pd.DataFrame(
            {
                "variant_id": f"v{variant}",
                "split": split.value,
                "metric": source.value,
                "scorer": "ngram" if source is Metric.TOXICITY else "",
                "prompt_index": np.arange(n),
                "value": rng.beta(1, 6, n),
            }
        )
        for split, n in zip(Split, (300, 100, 100), strict=True)
        for source in sources
        for variant in range(VARIANTS)
    )
