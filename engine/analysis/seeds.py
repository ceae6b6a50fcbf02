"""Runs that differ in their seed: variance between seeds, and pooled Δ."""

import numpy as np
import pandas as pd

from engine.analysis.metrics import VARIANT
from engine.analysis.statistics import student_quantile
from engine.vocabulary import Strategy, Verdict

PLACE = ["model", *VARIANT, "eval_lang", "split", "metric", "scorer"]
POOLED = [*PLACE, "n_seeds", "seeds", "delta", "seed_sd", "ci_low", "ci_high"]


def pool_seeds(cells: pd.DataFrame) -> pd.DataFrame:
    """Trained cells of runs that differ in their seed alone → one row a cell with at least two seeds: `POOLED`.

    `cells`: the view. `delta`: the mean over seeds; `seed_sd`: the standard deviation between them, in the unit of Δ.
    The interval speaks of prompts *and* seeds: variances of the mean over seeds and of a cell over prompts are added
    (the seeds share their prompts, so averaging seeds does not shrink what prompts add; a little too wide where seeds
    and prompts interact), freedom by Welch and Satterthwaite. NaN where a cell has no interval. Degenerate cells are
    left out.
    """
    trained = cells[
        (cells["strategy"] != Strategy.ZS) & cells["delta"].notna() & (cells["verdict"] != Verdict.DEGENERATE)
    ]
    freedom = (trained["n_pairs"] - 1.0).clip(lower=1.0)
    reach = student_quantile(freedom.to_numpy(dtype=float))
    trained = trained.assign(variance=((trained["ci_high"] - trained["ci_low"]) / 2 / reach) ** 2, freedom=freedom)
    groups = trained.groupby(PLACE, dropna=False)
    means = groups.agg(
        n_seeds=("seed", "nunique"),
        seeds=("seed", lambda seeds: ", ".join(map(str, sorted(seeds.astype(int).unique())))),
        delta=("delta", "mean"),
        seed_sd=("delta", "std"),
        of_prompts=("variance", lambda variances: variances.mean(skipna=False)),
        freedom=("freedom", "min"),
    )
    means = means[means["n_seeds"] > 1].reset_index()
    of_seeds = means["seed_sd"] ** 2 / means["n_seeds"]
    total = means["of_prompts"] + of_seeds
    parts = means["of_prompts"] ** 2 / means["freedom"] + of_seeds**2 / (means["n_seeds"] - 1)
    step = student_quantile((total**2 / parts).to_numpy(dtype=float)) * np.sqrt(total)
    return means.assign(ci_low=means["delta"] - step, ci_high=means["delta"] + step)[POOLED]
