"""The paper's figures: printed ones (tables 1 and 3–25) as cells, unreadable ones as NULL; similarities and
silhouettes of sentence embeddings from its authors' repository.
"""

import pandas as pd

from engine.config import DATA, PAPER_MODELS
from engine.vocabulary import NINE, Metric, Split, Strategy

FOLDER = DATA / "published"
TABLES = FOLDER / "published.csv"
PROMPTS = {Split.TOXIC_TRAIN: 300, Split.TOXIC_TEST: 100, Split.NEUTRAL_TEST: 100}
LOST = "lost in the paper's text"


def cells() -> pd.DataFrame:
    """One row a printed number, or one that should be there: 4 models × 3 splits × 2 metrics × (9 ZS + 81 X-FT).

    Columns: model, strategy, train_lang, train_fraction, eval_lang, split, metric, scorer, n, value, baseline, delta,
    verdict_reason. value = ZS − Δ and baseline = ZS; a lost number has neither value nor delta, and says so.
    """
    printed = tables()
    printed["model"] = printed["model"].str.lower()
    printed["metric"] = printed["metric"].replace({"perplexity": Metric.PERPLEXITY_PUBLISHED.value})
    place = ["model", "split", "metric", "eval_lang"]
    zs = printed[printed["strategy"] == Strategy.ZS].set_index(place)["value"].rename("baseline")
    delta = printed[printed["strategy"] == Strategy.X_FT].set_index([*place, "train_lang"])["value"].rename("delta")

    langs = [lang.value for lang in NINE]
    metrics = [Metric.TOXICITY.value, Metric.PERPLEXITY_PUBLISHED.value]
    grid = pd.MultiIndex.from_product(
        [PAPER_MODELS, list(PROMPTS), metrics, langs, [None, *langs]], names=[*place, "train_lang"]
    )
    rows = grid.to_frame(index=False).join(zs, on=place).join(delta, on=[*place, "train_lang"])
    is_zs = rows["train_lang"].isna()
    rows["strategy"] = is_zs.map({True: Strategy.ZS.value, False: Strategy.X_FT.value})
    rows["train_fraction"] = is_zs.map({True: None, False: 1.0}).astype(float)
    rows["value"] = rows["baseline"].where(is_zs, (rows["baseline"] - rows["delta"]).round(4))
    rows["baseline"] = rows["baseline"].mask(is_zs)
    rows["scorer"] = (rows["metric"] == Metric.TOXICITY).map({True: "perspective", False: None})
    rows["n"] = rows["split"].map(PROMPTS)
    rows["verdict_reason"] = rows["value"].isna().map({True: LOST, False: None})
    rows["split"] = rows["split"].astype(str)
    return rows


def tables() -> pd.DataFrame:
    """As they stand: table, model, split, metric, strategy, train_lang (NaN: ZS), eval_lang, value."""
    return pd.read_csv(TABLES)


def averages() -> pd.DataFrame:
    """The printed averages: table, train_lang (`ZS`, a language, `mean`: of a column), eval_lang (or `mean`), value.

    Tables 16 to 21 have lost those of their X-FT rows, tables 10 to 12 all but that of ZS.
    """
    return pd.read_csv(FOLDER / "averages.csv")


def similarities() -> pd.DataFrame:
    """Mean cosine similarity of sentences, 4 models × 5 variants × 666 pairs of 36 groups (each pair once).

    Columns: model, variant (`zs`, `p-ft-10`, `p-ft-20`, `p-ft-30`, `m-ft`), group_a, group_b (`de train toxic`:
    language, part and side), similarity. The mean of a group with itself counts each sentence with itself too.
    """
    return pd.read_csv(FOLDER / "similarities.csv.gz")


def silhouettes() -> pd.DataFrame:
    """Mean silhouette of a language's sentences, the languages being the clusters.

    Columns: model, variant (as in `similarities`), part (`train`, `test`, `combined`), eval_lang, silhouette.
    """
    return pd.read_csv(FOLDER / "silhouettes.csv")
