"""What the pages read: the store's read functions, cached. The only place with st.cache_*; it writes nothing.

The cache is keyed by the results file's path, time and size, so that a running sweep shows up at the next click, and
no connection outlives a call. The paper's figures come with the code and need no file.
"""

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import streamlit as st

from app.matrix import NUMBERS
from engine import browse, published, store
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
def _cached(module: str, function: str, path: str, changed: int, size: int, *arguments: object) -> Any:
    return getattr(sys.modules[module], function)(Path(path), *arguments)


def _read(function: str, *arguments: object, module: ModuleType = store) -> Any:
    """What a read function of the store, or of another module, returns. Errors: StoreError, LockedError."""
    path = results_path()
    stat = path.stat()
    return _cached(module.__name__, function, str(path), stat.st_mtime_ns, stat.st_size, *arguments)


def runs() -> pd.DataFrame:
    """The runs by source, newest first: run_id, sweep, dataset, seed, created_at, settings, done, failed."""
    if not results_path().exists():
        return pd.DataFrame(columns=["run_id", "settings", "done", "failed"])
    found: pd.DataFrame = _read("sources")
    return found.set_index("source")


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
    """Adds `row`, made once for every variant: there are tens of thousands of cells."""
    key = ["strategy", "train_lang", "train_fraction"]
    number = frame.groupby(key, dropna=False, sort=False).ngroup()
    variants = frame.loc[~number.duplicated(), key].itertuples(index=False)
    labels = [Variant("", "", "", Strategy(s), train_lang=t, train_fraction=f).label for s, t, f in variants]
    return frame.assign(row=number.map(dict(enumerate(labels))).astype("str"))


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
    rows: pd.DataFrame = mine.merge(base, on=key, how="left", suffixes=("", "_zs"))
    return rows.assign(change=rows["toxicity_zs"] - rows["toxicity"])


def scorers(source: str) -> list[str]:
    """The scorers that judged a run."""
    return sorted(_read("scorers", runs().at[source, "run_id"])["scorer"])


def browsed(source: str, wanted: browse.Wanted, order: browse.Order, first: int, size: int) -> pd.DataFrame:
    """Completions of a run, see `browse.rows`; what is added and × 100 is told at `_beside`."""
    return _beside(source, _read("rows", wanted, order, first, size, module=browse))


def browsed_count(wanted: browse.Wanted) -> int:
    """How many completions there are to browse."""
    return int(_read("count", wanted, module=browse))


def linked(source: str, scorer: str, key: browse.Key) -> pd.DataFrame:
    """One completion of a run, as `browsed` has it, or no row."""
    return _beside(source, _read("one", runs().at[source, "run_id"], scorer, key, module=browse))


def _beside(source: str, found: pd.DataFrame) -> pd.DataFrame:
    """Adds model and row (the label of the variant), and change = ZS − variant; toxicity and change are × 100."""
    names = plan(source).drop_duplicates("variant_id").set_index("variant_id")[["model", "row"]]
    found = found.join(names, on="variant_id")
    found = found.assign(toxicity=100 * found["toxicity"], toxicity_zs=100 * found["toxicity_zs"])
    return found.assign(change=found["toxicity_zs"] - found["toxicity"])
