"""Intervals, tests and corrections for many cells at once. Pure numpy and scipy; knows nothing of cells.

Arrays are [prompts, cells] with NaN for what is missing. Prompts are what is resampled or flipped, and all columns
share one matrix of resamples or signs, so that thousands of cells take seconds (docs/method.md has the simulations).
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import false_discovery_control

CONFIDENCE = 0.95
RESAMPLES = 2000
MEDIAN_RESAMPLES = 1000
FLIPS = 9999
EXACT_PAIRS = 13
"""Up to so many differences all 2 ** n sign flips are fewer than `FLIPS`, and each is looked at."""

FEW = 10
"""Below so many prompts the tails of a bootstrap are unknown."""

CELLS_AT_ONCE = 256
"""Columns whose resampled means are held at once: bounds the memory that a test takes."""

Array = NDArray[np.float64]
TAIL = (1 - CONFIDENCE) / 2


def mean(values: Array) -> Array:
    """Column means over what is not NaN; the mean of nothing is NaN."""
    n = (~np.isnan(values)).sum(0)
    return np.where(n > 0, np.nansum(values, 0) / np.maximum(n, 1), np.nan)


def median(values: Array) -> Array:
    """Column medians over what is not NaN; the median of nothing is NaN."""
    medians = np.full(values.shape[1], np.nan)
    has_values = ~np.isnan(values).all(0)
    medians[has_values] = np.nanmedian(values[:, has_values], axis=0)
    return medians


def mean_interval(values: Array, seed: int = 0) -> tuple[Array, Array, list[str | None]]:
    """Studentised bootstrap intervals of column means → low, high, reasons.

    Where there is no interval both ends are NaN and the reason says why. Source: Efron and Tibshirani (1993),
    chapter 12.5 ("bootstrap-t"). Of the percentile, expanded percentile, Student and studentised intervals it kept
    nearest to its 95 % on toxicity-like and skewed differences.
    """
    n_rows, n_cells = values.shape
    low, high = np.full(n_cells, np.nan), np.full(n_cells, np.nan)
    valid = ~np.isnan(values)
    n = valid.sum(0)
    centre = mean(values)
    filled = np.where(valid, values - centre, 0.0)
    spread = np.sqrt((filled**2).sum(0) / np.maximum(n - 1, 1))
    usable = (n >= 2) & (spread > 1e-12 * (1 + np.abs(np.nan_to_num(centre))))
    if usable.any():
        counts = _counts(n_rows, RESAMPLES, seed).astype(float)
        drawn = counts @ valid[:, usable]
        drawn = np.where(drawn > 0, drawn, np.nan)
        offset = counts @ filled[:, usable] / drawn
        variance = np.maximum(counts @ filled[:, usable] ** 2 / drawn - offset**2, 0)
        standard_error = np.sqrt(variance / np.maximum(drawn - 1, 1))
        # A resample without spread says nothing of the spread of means; it is left out.
        has_spread = standard_error > 1e-6 * spread[usable]
        t = np.divide(offset, standard_error, out=np.full_like(offset, np.nan), where=has_spread)
        t_low, t_high = np.nanquantile(t, [TAIL, 1 - TAIL], axis=0)
        # Where more resamples have none than a tail holds, or prompts are few, the tails are unknown: Student's.
        student = student_quantile(n[usable] - 1)
        unknown = (has_spread.mean(0) < 1 - TAIL) | (n[usable] < FEW)
        t_low, t_high = np.where(unknown, -student, t_low), np.where(unknown, student, t_high)
        step = spread[usable] / np.sqrt(n[usable])
        low[usable], high[usable] = centre[usable] - t_high * step, centre[usable] - t_low * step
    return low, high, _reasons(usable, n)


def median_difference_interval(
    minuend: Array, subtrahend: Array | None = None, seed: int = 0
) -> tuple[Array, Array, list[str | None]]:
    """Percentile bootstrap intervals of median(minuend) − median(subtrahend), by column → low, high, reasons.

    Rows that are NaN in either are left out. Without a subtrahend: of the median itself.
    """
    n_rows, n_cells = minuend.shape
    low, high = np.full(n_cells, np.nan), np.full(n_cells, np.nan)
    valid = ~np.isnan(minuend) if subtrahend is None else ~np.isnan(minuend) & ~np.isnan(subtrahend)
    n = valid.sum(0)
    counts = _counts(n_rows, MEDIAN_RESAMPLES, seed)
    for cell in np.flatnonzero(n >= 2):
        rows = valid[:, cell]
        drawn = _resampled_medians(minuend[rows, cell], counts[:, rows])
        if subtrahend is not None:
            drawn -= _resampled_medians(subtrahend[rows, cell], counts[:, rows])
        low[cell], high[cell] = np.nanquantile(drawn, [TAIL, 1 - TAIL])
    usable = high > low
    return np.where(usable, low, np.nan), np.where(usable, high, np.nan), _reasons(usable, n)


def _resampled_medians(values: Array, counts: NDArray[np.int16]) -> Array:
    """The median of each resample: `counts` [resamples, values] says how often each value was drawn."""
    order = np.argsort(values)
    reached = np.cumsum(counts[:, order], axis=1, dtype=np.int16)
    twice, total = 2 * reached, reached[:, -1:]
    lower, upper = (twice >= total).argmax(1), (twice > total).argmax(1)
    ordered = values[order]
    return np.where(total[:, 0] > 0, (ordered[lower] + ordered[upper]) / 2, np.nan)


def paired_permutation_test(differences: Array, seed: int = 0) -> Array:
    """Two-sided p-values of the hypothesis that differences are symmetric around zero, by column.

    The signs of differences are flipped: in all ways up to `EXACT_PAIRS` of them, else in `FLIPS` random ones and as
    they are (Phipson and Smyth 2010: p is never 0). NaN below two differences, and where all are zero.
    """
    p_values = np.full(differences.shape[1], np.nan)
    valid = ~np.isnan(differences)
    filled = np.where(valid, differences, 0.0)
    n = valid.sum(0)
    usable = (n >= 2) & (filled != 0).any(0)
    for cell in np.flatnonzero(usable & (n <= EXACT_PAIRS)):
        observed = filled[valid[:, cell], cell]
        signs = np.array(list(product((1.0, -1.0), repeat=len(observed))))
        p_values[cell] = _as_extreme(signs, observed[:, None])[0] / len(signs)
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1.0, 1.0]), size=(FLIPS, len(differences)))
    many = np.flatnonzero(usable & (n > EXACT_PAIRS))
    for start in range(0, len(many), CELLS_AT_ONCE):
        block = many[start : start + CELLS_AT_ONCE]
        p_values[block] = (_as_extreme(signs, filled[:, block]) + 1) / (FLIPS + 1)
    return p_values


def _as_extreme(signs: Array, differences: Array) -> NDArray[np.intp]:
    """How many of the flips have a sum as far from zero as the differences have, by column; rounding forgiven."""
    observed = np.abs(differences.sum(0))
    forgiven = 1e-9 * np.abs(differences).sum(0)
    extreme: NDArray[np.intp] = (np.abs(signs @ differences) >= observed - forgiven).sum(0)
    return extreme


def student_quantile(freedom: Array) -> Array:
    """How many standard errors an interval of a mean reaches to each side."""
    reach: Array = stdtrit(freedom, 1 - TAIL)
    return reach


def q_values(p_values: Array) -> Array:
    """Benjamini and Hochberg's (1995) adjusted p-values of one family; NaN stays, and counts for nothing."""
    q = np.full(len(p_values), np.nan)
    tested = ~np.isnan(p_values)
    if tested.any():
        q[tested] = false_discovery_control(p_values[tested], method="bh")
    return q


def _counts(n_rows: int, resamples: int, seed: int) -> NDArray[np.int16]:
    """[resamples, rows]: how often each row is drawn, with replacement."""
    return np.random.default_rng(seed).multinomial(n_rows, np.full(n_rows, 1 / n_rows), resamples).astype(np.int16)


def _reasons(usable: NDArray[np.bool_], n: NDArray[np.intp]) -> list[str | None]:
    return [
        None if ok else "fewer than two prompts" if k < 2 else "no variation across prompts"
        for ok, k in zip(usable.tolist(), n.tolist(), strict=True)
    ]
