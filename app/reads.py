"""What the pages read: the store's read functions, cached. The only place with st.cache_*; it writes nothing.

The cache is keyed by the results file's path, time and size, so that a running sweep shows up at the next click, and
no connection outlives a call. The paper's figures come with the code and need no file.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import streamlit as st

from app.matrix import NUMBERS
from engine import published, store
from engine.config import PROMPT, RESULTS
from engine.vocabulary import Status, Strategy, Variant

CACHE_SECONDS = 60


def results_path() -> Path:
    """The results file: `--db` after the `--` of `streamlit run`, else the project's own."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--db", type=Path, default=Path(__file__).parent.parent / RESULTS)
    path: Path = parser.parse_known_args(sys.argv[1:])[0].db
    return path


@st.cache_data(ttl=CACHE_SECONDS, max_entries=200, show_spinner="Reading the results file")
def _cached(function: str, path: str, changed: int, size: int, *arguments: object) -> pd.DataFrame:
    frame: pd.DataFrame = getattr(store, function)(Path(path), *arguments)
    return frame


def _read(function: str, *arguments: object) -> pd.DataFrame:
    """A read function of the store, by name. Errors: StoreError, LockedError."""
    path = results_path()
    stat = path.stat()
    return _cached(function, str(path), stat.st_mtime_ns, stat.st_size, *arguments)


def runs() -> pd.DataFrame:
    """The runs by source, newest first: run_id, sweep, dataset, seed, created_at, settings, done, failed."""
    if not results_path().exists():
        return pd.DataFrame(columns=["run_id", "settings", "done", "failed"])
    return _read("sources").set_index("source")


def sources() -> dict[str, str]:
    """What to call every source: the runs, newest first, then the paper's figures."""
    labels = {str(source): _label(run) for source, run in runs().iterrows()}
    return {**labels, store.PUBLISHED: "The paper's published figures"}


def _label(run: pd.Series) -> str:
    return (
        f"{run['sweep']} · {run['created_at']:%Y-%m-%d} · {run['dataset']} · seed {run['seed']} · {run['run_id'][:8]}"
    )


def plan(source: str) -> pd.DataFrame:
    """What should be there: row, model, strategy, train_lang, train_fraction, eval_lang, variant_id, status, error."""
    if source == store.PUBLISHED:
        key = ["row", "model", "strategy", "train_lang", "train_fraction", "eval_lang"]
        return cells(source)[key].drop_duplicates().assign(variant_id=None, status=Status.DONE.value, error=None)
    return _with_row(_read("settings", runs().at[source, "run_id"]))


def cells(source: str) -> pd.DataFrame:
    """The finished cells of a source: the view `cells`, and `row`, the label of the variant."""
    found = published.cells() if source == store.PUBLISHED else _read("cells", source)
    return _with_row(found.reindex(columns=found.columns.union(NUMBERS, sort=False)))


def _with_row(frame: pd.DataFrame) -> pd.DataFrame:
    variants = frame[["strategy", "train_lang", "train_fraction"]].itertuples(index=False)
    rows = [Variant("", "", "", Strategy(s), train_lang=t, train_fraction=f).label for s, t, f in variants]
    return frame.assign(row=rows)


def represented(source: str) -> pd.DataFrame:
    """The variants of a source whose sentence embeddings were measured: model, row, variant_id, n_sentences, map_share.

    The published ones have a variant_id of model and label, and NaN for both numbers.
    """
    if source == store.PUBLISHED:
        found = _published("silhouettes")[["variant_id", "model", "row"]].drop_duplicates(ignore_index=True)
        return found.assign(n_sentences=float("nan"), map_share=float("nan"))
    return _with_row(_read("represented", runs().at[source, "run_id"]))


def similarities(source: str, variant_ids: tuple[str, ...]) -> pd.DataFrame:
    """Mean similarity of groups of sentences: variant_id, group_a, group_b, similarity; each pair once."""
    if source == store.PUBLISHED:
        found = _published("similarities")
        return found[found["variant_id"].isin(variant_ids)]
    return _read("similarities", runs().at[source, "run_id"], variant_ids)


def silhouettes(source: str) -> pd.DataFrame:
    """Mean silhouettes of languages: variant_id, clusters (`language` or `toxicity`), part, eval_lang, silhouette."""
    if source == store.PUBLISHED:
        return _published("silhouettes").assign(clusters="language")
    return _read("silhouettes", runs().at[source, "run_id"])


def distances(source: str) -> pd.DataFrame:
    """Of toxic from neutral text: variant_id, part, eval_lang, pair_distance, mean_distance; none are published."""
    return _read("distances", runs().at[source, "run_id"])


def points(source: str, variant_ids: tuple[str, ...]) -> pd.DataFrame:
    """Where sentences lie on the map: variant_id, eval_lang, part, side, sentence_index, x, y; none are published."""
    return _read("points", runs().at[source, "run_id"], variant_ids)


@st.cache_data(show_spinner=False)
def _published(name: str) -> pd.DataFrame:
    found: pd.DataFrame = getattr(published, name)().rename(columns={"variant": "row"})
    return found.assign(variant_id=found["model"] + " " + found["row"])


def scorer_gap(source: str, scorer: str) -> tuple[float, float] | None:
    """Mean score × 100 of (learnt, unseen) neutral sentences, where it was measured."""
    found = _read("scorers", runs().at[source, "run_id"]).set_index("scorer")[["neutral_train", "neutral_test"]]
    means = found.reindex([scorer]).iloc[0]
    return None if means.isna().any() else (float(means.iloc[0]), float(means.iloc[1]))


def side_by_side(
    source: str, eval_lang: str, split: str, scorer: str, zero_shot: str | None, variant: str | None
) -> pd.DataFrame:
    """The completions of a cell, ZS beside the variant's, one row a prompt and sample.

    Columns: sentence (the prompt without its template), completion, toxicity (× 100), reason, the three of ZS with
    `_zs` at the end, and change = ZS − variant. `variant` None: ZS alone, in the plain columns.
    """
    ids = [i for i in (zero_shot, variant) if i]
    found = _read("samples", runs().at[source, "run_id"], eval_lang, split, ids)
    found = found[(found["scorer"] == scorer) | found["scorer"].isna()] if scorer else found
    key = ["prompt_index", "sample_index"]
    found = found.drop_duplicates([*key, "variant_id"]).assign(
        sentence=lambda t: t["prompt"].str.removeprefix(PROMPT.partition("{")[0]),
        toxicity=lambda t: 100 * t["toxicity"],
    )
    columns = [*key, "sentence", "completion", "toxicity", "reason"]
    mine = found.loc[found["variant_id"] == (variant or zero_shot), columns]
    base = found.loc[found["variant_id"] == zero_shot, columns].drop(columns="sentence")
    rows = mine.merge(base, on=key, how="left", suffixes=("", "_zs"))
    return rows.assign(change=rows["toxicity_zs"] - rows["toxicity"])
