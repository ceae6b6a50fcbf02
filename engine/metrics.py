"""Values of prompts → cells: means, paired differences from ZS, their intervals, verdicts. Pure.

A cell is one number of a table: a variant, a language, a split and a metric (and a scorer), with how many prompts
stand behind it. Prompts are what is resampled; several samples of a prompt are averaged first.

Toxicity is × 100. A perplexity is exp of the mean over prompts of the negative log-likelihood a token; its Δ and
interval are differences of that mean, in nats a token (a mean of perplexities is whatever its worst prompt says).
"""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from engine.vocabulary import Metric, Verdict

RESAMPLES = 2000
CONFIDENCE = 0.95
MIN_PAIRS_FOR_VERDICT = 30
"""Below this the interval is shown and no verdict is given."""

PERPLEXITIES = (Metric.PERPLEXITY_SELF, Metric.PERPLEXITY_BASE, Metric.PERPLEXITY_NEUTRAL)
KEY = ["split", "metric", "scorer"]
COLUMNS = [
    *("variant_id", *KEY, "n", "n_valid", "n_pairs", "value", "baseline", "delta", "ci_low", "ci_high"),
    *("p_value", "q_value", "verdict", "verdict_reason"),
]


def cells(values: pd.DataFrame, zero_shot: str | None) -> pd.DataFrame:
    """The cells of one run in one language.

    `values`: one row a prompt, sample and metric, with the columns variant_id, split, metric, scorer ('' for none),
    prompt_index, value (toxicity in 0..1, perplexities as nats a token; NaN where there is none).
    `zero_shot`: the variant_id of ZS, None when the run has none. Returns the columns `COLUMNS`; scorer is None
    where the metric needs none.
    """
    by_prompt = values.groupby([*KEY, "prompt_index", "variant_id"], sort=True)["value"].mean()
    tables = []
    for (split, metric, scorer), group in by_prompt.reset_index().groupby(KEY):
        table = group.pivot(index="prompt_index", columns="variant_id", values="value")
        tables.append(_table({"split": str(split), "metric": str(metric), "scorer": str(scorer)}, table, zero_shot))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    found = pd.concat(tables, ignore_index=True)
    found["scorer"] = found["scorer"].where(found["scorer"] != "", None)
    return found[COLUMNS]


def _table(key: dict[str, str], table: pd.DataFrame, zero_shot: str | None) -> pd.DataFrame:
    """Cells of one split, metric and scorer. `table`: prompts × variants."""
    values = table.to_numpy(dtype=float)
    valid = ~np.isnan(values)
    has_zs = zero_shot in table.columns
    is_zs = np.asarray(table.columns == zero_shot)
    zs = values[:, is_zs] if has_zs else np.full((len(values), 1), np.nan)
    # On the ZS row the interval is that of the value itself; elsewhere of the paired difference.
    target = np.where(is_zs, values, zs - values)
    paired = ~np.isnan(target)
    n_pairs = paired.sum(0)
    delta = _mean(target)
    low, high, reason = interval(target)
    value, baseline = _mean(values), _mean(np.where(paired, zs, np.nan))
    scale = 1.0
    if key["metric"] in PERPLEXITIES:
        value, baseline = np.exp(value), np.exp(baseline)
        low, high = np.where(is_zs, np.exp(low), low), np.where(is_zs, np.exp(high), high)
    elif key["metric"] == Metric.TOXICITY:
        scale = 100.0
    verdicts = [
        _verdict(int(n), int(v), r, bool(z) or has_zs)
        for n, v, r, z in zip(n_pairs, valid.sum(0), reason, is_zs, strict=True)
    ]
    return pd.DataFrame(
        {
            "variant_id": table.columns,
            **key,
            "n": len(table),
            "n_valid": valid.sum(0),
            "n_pairs": n_pairs,
            "value": value * scale,
            "baseline": np.where(is_zs, np.nan, baseline * scale),
            "delta": np.where(is_zs, np.nan, delta * scale),
            "ci_low": low * scale,
            "ci_high": high * scale,
            "p_value": np.nan,
            "q_value": np.nan,
            "verdict": [verdict for verdict, _ in verdicts],
            "verdict_reason": [reason for _, reason in verdicts],
        }
    )


def _verdict(n_pairs: int, n_valid: int, no_interval: str | None, has_baseline: bool) -> tuple[str, str | None]:
    if n_valid == 0:
        return Verdict.UNSCORED.value, "no prompt has a value"
    if not has_baseline:
        return Verdict.TOO_FEW.value, "the run has no ZS to compare with"
    if n_pairs < MIN_PAIRS_FOR_VERDICT:
        why = f"{n_pairs} prompts; a verdict needs {MIN_PAIRS_FOR_VERDICT}"
        return Verdict.TOO_FEW.value, f"{why}; no interval: {no_interval}" if no_interval else why
    return Verdict.OK.value, f"no interval: {no_interval}" if no_interval else None


def _mean(values: np.ndarray) -> np.ndarray:
    """Column means over what is not NaN; the mean of nothing is NaN."""
    n = (~np.isnan(values)).sum(0)
    return np.where(n > 0, np.nansum(values, 0) / np.maximum(n, 1), np.nan)


def interval(values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """Studentised bootstrap intervals of column means: [prompts, cells] with NaN for missing → low, high, reasons.

    Where there is no interval both ends are NaN and the reason says why. All columns share one matrix of
    resamples. Source: Efron and Tibshirani (1993), chapter 12.5 ("bootstrap-t"). Of the percentile, expanded
    percentile, Student and studentised intervals it kept nearest to its 95 % on toxicity-like and skewed
    differences (docs/method.md has the simulation).
    """
    n_rows, n_cells = values.shape
    low, high = np.full(n_cells, np.nan), np.full(n_cells, np.nan)
    valid = ~np.isnan(values)
    n = valid.sum(0)
    mean = _mean(values)
    filled = np.where(valid, values - mean, 0.0)
    spread = np.sqrt((filled**2).sum(0) / np.maximum(n - 1, 1))
    usable = (n >= 2) & (spread > 1e-12 * (1 + np.abs(np.nan_to_num(mean))))
    if usable.any():
        counts = np.random.default_rng(seed).multinomial(n_rows, np.full(n_rows, 1 / n_rows), RESAMPLES).astype(float)
        drawn = counts @ valid[:, usable]
        drawn = np.where(drawn > 0, drawn, np.nan)
        offset = counts @ filled[:, usable] / drawn
        variance = np.maximum(counts @ filled[:, usable] ** 2 / drawn - offset**2, 0)
        standard_error = np.sqrt(variance / np.maximum(drawn - 1, 1))
        # A resample without spread says nothing of the spread of means; it is left out.
        has_spread = standard_error > 1e-6 * spread[usable]
        t = np.divide(offset, standard_error, out=np.full_like(offset, np.nan), where=has_spread)
        tail = (1 - CONFIDENCE) / 2
        t_low, t_high = np.nanquantile(t, [tail, 1 - tail], axis=0)
        # Where more resamples have none than a tail holds, or prompts are few, the tails are unknown: Student's.
        student = stdtrit(n[usable] - 1, 1 - tail)
        unknown = (has_spread.mean(0) < 1 - tail) | (n[usable] < 10)
        t_low, t_high = np.where(unknown, -student, t_low), np.where(unknown, student, t_high)
        step = spread[usable] / np.sqrt(n[usable])
        low[usable], high[usable] = mean[usable] - t_high * step, mean[usable] - t_low * step
    reasons = [
        None if ok else "fewer than two prompts" if k < 2 else "all prompts agree"
        for ok, k in zip(usable.tolist(), n.tolist(), strict=True)
    ]
    return low, high, reasons
