"""The paper's research questions as tables. Descriptive: nine languages are few, and one training seed is one draw.

RQ1: does transfer follow script, family, syntax, the share of pre-training text? RQ2: what does a part of the data give
against all of it? RQ3: what does detoxification cost in perplexity?
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.analysis.tables import complete, labels, rank_correlation, usable_cells
from engine.vocabulary import Language, Metric, Strategy

PERMUTATIONS = 9999
FEWEST = 5
"""Languages that a matrix, or a correlation over languages, needs."""
MOST_MISSING = 0.25
"""The share of a matrix that may have no number."""

PLACE = ["model", "split", "metric", "scorer"]
TRANSFER = [*PLACE, "predictor", "n", "effect", "correlation", "p_value"]
SHARE = ["run_id", *PLACE, "row", "compared_with", "passes", "passes_with", "n", "delta", "delta_with", "kept"]
COST = [*PLACE, "fluency", "strategy", "n", "delta", "fluency_delta", "correlation"]

Matrix = NDArray[np.float64]


# --- RQ1 --------------------------------------------------------------------------------------------------------------


def transfer(cells: pd.DataFrame, distances: pd.DataFrame, shares: pd.DataFrame) -> pd.DataFrame:
    """Does Δ of X-FT follow what the train and the evaluation language share? A row a matrix and predictor.

    `cells`: the view. `distances`: lang_a, lang_b, syntactic. `shares`: model, lang, percent. Returns `TRANSFER`.

    Predictors of pairs of different languages: `same script`, `same family` (Indo-European, Afro-Asiatic, …),
    `syntactic closeness` (−distance). Train and evaluation languages differ as such; so Δ is first freed of the effects
    of its row and its column (least squares). `correlation`: Pearson's, of what is left with the predictor. `effect`:
    how much higher Δ is, in its unit, where the predictor is above its median (1 and not 0; nearer and not farther).
    `own language` asks whether the nine cells on the diagonal stand out, over the same two effects. `share of train
    language`, `share of evaluation language`: Spearman's of the row means (column means) of Δ with the share of
    pre-training text, over the `n` languages whose means are of the same cells (`tables.complete`); no effect.
    `p_value`: two-sided, over 9,999 permutations of the languages that move rows and columns of a matrix together
    (Mantel 1967; Krackhardt 1988). Matrices that lack a language's row or column, or more than a quarter of their cells
    (lost or degenerate), are left out.
    """
    rows = []
    trained = usable_cells(cells)
    trained = trained[trained["strategy"] == Strategy.X_FT]
    for place, group in trained.groupby(PLACE, dropna=False):
        wide = (
            group.pivot_table(index="train_lang", columns="eval_lang", values="delta").sort_index().sort_index(axis=1)
        )
        langs = [lang for lang in wide.index if lang in wide.columns]
        matrix = wide.reindex(index=langs, columns=langs).to_numpy(dtype=float)
        if len(langs) < FEWEST or len(langs) < max(wide.shape) or np.isnan(matrix).mean() > MOST_MISSING:
            continue
        named = dict(zip(PLACE, place, strict=True))
        answers = [
            *_pairs(matrix, langs, distances),
            *_shares(matrix, langs, shares[shares["model"] == named["model"]]),
        ]
        rows += [named | row for row in answers]
    return pd.DataFrame(rows, columns=TRANSFER)


def _pairs(matrix: Matrix, langs: Sequence[str], distances: pd.DataFrame) -> list[dict[str, object]]:
    facts = [Language(lang).facts for lang in langs]
    closeness = {frozenset(pair[:2]): -pair[2] for pair in distances.itertuples(index=False)}
    predictors = {
        "same script": [[a.script == b.script for b in facts] for a in facts],
        "same family": [[_family(a.family) == _family(b.family) for b in facts] for a in facts],
    }
    if all(frozenset(pair) in closeness for pair in combinations(langs, 2)):  # known of the paper's nine
        predictors["syntactic similarity"] = [[closeness.get(frozenset((a, b)), 0.0) for b in langs] for a in langs]
    apart, diagonal, orders = ~np.eye(len(langs), dtype=bool), np.eye(len(langs)), _orders(len(langs))
    rows = []
    for name, values in predictors.items():
        predictor = np.array(values, float)
        together = predictor[orders[:, :, None], orders[:, None, :]]
        rows.append({"predictor": name, **_permutation_test(residuals(matrix, apart), predictor, together)})
    # Other cells take the diagonal's place when its columns are moved against its rows.
    answer = _permutation_test(residuals(matrix, apart | ~apart), diagonal, diagonal[orders])
    return [*rows, {"predictor": "same language", **answer}]


def _family(family: str) -> str:
    return family.partition(" (")[0]


def _shares(matrix: Matrix, langs: Sequence[str], shares: pd.DataFrame) -> list[dict[str, object]]:
    percent = shares.set_index("lang")["percent"].reindex(list(langs))
    if percent.isna().any():
        return []
    numbers = pd.DataFrame(matrix, index=list(langs), columns=list(langs))
    rows = []
    for name, side in (("pre-training share (train)", numbers), ("pre-training share (evaluation)", numbers.T)):
        means = complete(side).mean(axis=1)
        if len(means) >= FEWEST:
            ranks = np.asarray(percent[means.index].rank(), np.float64)
            answer = _permutation_test(np.asarray(means.rank(), np.float64), ranks, ranks[_orders(len(ranks))])
            rows.append({"predictor": name, **answer, "effect": np.nan})
    return rows


def residuals(matrix: Matrix, counted: NDArray[np.bool_]) -> Matrix:
    """[n, n] less the effects of its rows and columns, by least squares over the cells that are counted and have a
    number; NaN elsewhere."""
    is_counted = counted & ~np.isnan(matrix)
    rows, columns = np.nonzero(is_counted)
    design = np.concatenate([np.eye(len(matrix))[rows], np.eye(len(matrix))[columns]], axis=1)
    fitted = design @ np.linalg.lstsq(design, matrix[is_counted], rcond=None)[0]
    left = np.full_like(matrix, np.nan)
    left[is_counted] = matrix[is_counted] - fitted
    return left


def _permutation_test(values: Matrix, predictor: Matrix, permuted: Matrix) -> dict[str, object]:
    """Values (NaN: none) beside a predictor of their shape, and beside `permuted` [permutations, …] ones.

    The p-value counts what was found as one of the permutations (Phipson and Smyth 2010).
    """
    is_valid = ~np.isnan(values)
    deviations = values[is_valid] - values[is_valid].mean()
    predictors = np.concatenate([predictor[None], permuted])[:, is_valid]
    centred = predictors - predictors.mean(1, keepdims=True)
    norms = np.sqrt((centred**2).sum(1) * (deviations**2).sum())
    correlations = np.divide(centred @ deviations, norms, out=np.full(len(norms), np.nan), where=norms > 1e-12)
    correlation, high = correlations[0], predictors[0] > np.median(predictors[0])
    effect = values[is_valid][high].mean() - values[is_valid][~high].mean() if high.any() else np.nan
    as_far = (np.abs(correlations) >= abs(correlation) - 1e-12).sum()
    p_value = np.nan if np.isnan(correlation) else as_far / len(correlations)
    return {"n": int(is_valid.sum()), "effect": effect, "correlation": correlation, "p_value": p_value}


def _orders(n: int) -> NDArray[np.intp]:
    """[permutations, n]: orders of the languages."""
    return np.random.default_rng(0).permuted(np.tile(np.arange(n), (PERMUTATIONS, 1)), axis=1)


# --- RQ2 --------------------------------------------------------------------------------------------------------------


def share_of_data(cells: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """What 10, 20 and 30 % of the data (P-FT) give beside 100 % (M-FT): `SHARE`.

    `cells`: the view, of one run or of several on the same data and base. `training`: variant_id, dataset_hash,
    limit_train, epochs, batch_size (`store.training`). A row a P-FT variant (of the run `run_id`) and an M-FT variant
    of its base, data and batch size: over the `n` languages in which both have a number, mean Δ of P-FT (`delta`) and
    of M-FT (`delta_with`), and `kept`, their quotient (NaN unless M-FT's is positive). `passes` and `passes_with`:
    epochs × share of the data, which steps are proportional to. `compared_with` is `same epochs` for variants of one
    run, and `same steps` where passes are within 10 % of each other (10 % for 20 epochs, and all of it for 2, in a run
    with other `--epochs`).
    """
    pooled = usable_cells(cells[cells["strategy"].isin([Strategy.P_FT, Strategy.M_FT])]).merge(
        training, on="variant_id"
    )
    pooled = pooled.assign(row=labels(pooled), passes=pooled["epochs"] * pooled["train_fraction"])
    key = [*PLACE, "eval_lang", "dataset_hash", "limit_train", "batch_size"]
    all_of_it = pooled[pooled["strategy"] == Strategy.M_FT]
    both = pooled[pooled["strategy"] == Strategy.P_FT].merge(all_of_it, on=key, suffixes=("", "_with"))
    is_near = (both["passes"] / both["passes_with"] - 1).abs() <= 0.1
    both["compared_with"] = is_near.map({True: "same steps", False: "same epochs"})
    both["is_own"] = both["run_id"] == both["run_id_with"]
    both = both[is_near | both["is_own"]]
    # A variant that several runs have counts once, with what it did in the run of the other one if it is there too.
    both = both.sort_values("is_own", ascending=False, kind="stable")
    row = ["run_id", *PLACE, "row", "compared_with", "passes", "passes_with", "variant_id_with"]
    groups = both.drop_duplicates([*row, "eval_lang"]).groupby(row, dropna=False)
    means = groups[["delta", "delta_with"]].mean().assign(n=groups.size()).reset_index()
    means["kept"] = (means["delta"] / means["delta_with"]).where(means["delta_with"] > 0)
    return means[SHARE]


# --- RQ3 --------------------------------------------------------------------------------------------------------------


def cost(cells: pd.DataFrame) -> pd.DataFrame:
    """What detoxification costs in perplexity, by one source: `COST`, a row a matrix, metric of fluency and strategy.

    Over the `n` settings that have both: mean Δ toxicity (`delta`), mean Δ of the fluency metric (`fluency_delta`;
    below 0 the perplexity rose: that is the cost), and Spearman's correlation of the two over settings (below 0: the
    less toxic, the less fluent). A setting is a variant in a language.
    """
    trained = usable_cells(cells)
    setting = ["model", "split", "strategy", "train_lang", "train_fraction", "eval_lang"]
    toxic = trained.loc[trained["metric"] == Metric.TOXICITY, [*setting, "metric", "scorer", "delta"]]
    fluent = trained.loc[trained["metric"].isin(FLUENCY), [*setting, "metric", "delta"]]
    fluent = fluent.rename(columns={"metric": "fluency", "delta": "fluency_delta"})
    both = toxic.merge(fluent, on=setting)
    rows = []
    for place, group in both.groupby([*PLACE, "fluency", "strategy"], dropna=False):
        means = group[["delta", "fluency_delta"]].mean()
        rows.append([*place, len(group), *means, rank_correlation(group["delta"], group["fluency_delta"])])
    return pd.DataFrame(rows, columns=COST)


FLUENCY = (Metric.PERPLEXITY_SELF, Metric.PERPLEXITY_BASE, Metric.PERPLEXITY_NEUTRAL, Metric.PERPLEXITY_PUBLISHED)
