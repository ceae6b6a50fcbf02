"""What the pages read: the store's read functions, cached. The only place with st.cache_*; it writes nothing.

The cache is keyed by the results file's path, time and size, so that a running sweep shows up at the next click, and
no connection outlives a call. The paper's figures come with the code and need no file.
"""

import argparse
import os
import sys
from pathlib import Path

import pandas as pd
import streamlit as st

from app import live
from app.matrix import NUMBERS
from engine import adapters, analysis, dataset, progress, published, store
from engine.config import ADAPTERS, PROMPT, RESULTS
from engine.metrics import AVERAGES, VARIANT
from engine.vocabulary import Language, Status, Strategy, Variant

CACHE_SECONDS = 60
OFFER_SECONDS = 5
"""A server comes and goes, and a sweep makes adapters: offers are soon read again."""


def results_path() -> Path:
    """The results file: `--db` after the `--` of `streamlit run`, else the project's own."""
    return _path("--db", RESULTS)


def adapters_path() -> Path:
    """The adapters folder: `--adapters` after the `--` of `streamlit run`, else the project's own."""
    return _path("--adapters", ADAPTERS)


def _path(flag: str, of_project: Path) -> Path:
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument(flag, dest="path", type=Path, default=Path(__file__).parent.parent / of_project)
    path: Path = parser.parse_known_args(sys.argv[1:])[0].path
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


def run(source: str) -> pd.Series:
    """A run as it was planned: see `store.run`."""
    return _read("run", runs().at[source, "run_id"]).iloc[0]


def bases(source: str) -> pd.DataFrame:
    """The bases of a run: see `store.bases`."""
    return _read("bases", runs().at[source, "run_id"])


def news() -> progress.News | None:
    """What the last sweep on the results file told of itself. Not cached: it is a small file, and changes."""
    return progress.read(results_path())


def adapters_on_disk() -> pd.DataFrame:
    """What is in the adapters folder: see `adapters.listed`. Read again when a file of it has changed."""
    root = adapters_path()
    return _adapters(str(root), adapters.fingerprint(root))


@st.cache_data(max_entries=4, show_spinner="Reading the adapters folder")
def _adapters(root: str, fingerprint: str) -> pd.DataFrame:
    return adapters.listed(Path(root))


def cells(source: str) -> pd.DataFrame:
    """The finished cells of a source: the view `cells`, and `row`, the label of the variant."""
    found = _published() if source == store.PUBLISHED else _read("cells", source)
    return _with_row(found.reindex(columns=found.columns.union(["variant_id", *NUMBERS], sort=False)))


@st.cache_data
def _published() -> pd.DataFrame:
    return published.cells()


def _with_row(frame: pd.DataFrame) -> pd.DataFrame:
    key = ["strategy", "train_lang", "train_fraction"]
    variants = frame[key].drop_duplicates()
    labels = [Variant("", "", "", Strategy(s), train_lang=t, train_fraction=f).label
              for s, t, f in variants.itertuples(index=False)]  # fmt: skip
    return frame.merge(variants.assign(row=labels), on=key, how="left")


def averages(source: str) -> pd.DataFrame:
    """The averages of a source, the view `averages`; the paper's have no intervals and are not among them."""
    return (
        _read("averages", source)
        if source != store.PUBLISHED
        else pd.DataFrame(columns=["model", *VARIANT, "eval_lang", *AVERAGES])
    )


def _version() -> tuple[str, int, int] | None:
    """What tells one state of the results file from another."""
    path = results_path()
    return (str(path), path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else None


def strategies(source: str) -> pd.DataFrame:
    """X-FT, P-FT and M-FT side by side: see `analysis.strategies`."""
    return _strategies(source, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=20, show_spinner="Comparing the strategies")
def _strategies(source: str, version: object) -> pd.DataFrame:
    return analysis.strategies(cells(source), averages(source))


def adapters(
    source: str, model: str, eval_langs: tuple[str, ...], split: str, scorer: str, fluency: str
) -> pd.DataFrame:
    """The adapters of a base, the best first, with `row`: see `analysis.choose_adapters`."""
    return _adapters(source, model, eval_langs, split, scorer, fluency, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=200, show_spinner="Ranking the adapters")
def _adapters(
    source: str, model: str, eval_langs: tuple[str, ...], split: str, scorer: str, fluency: str, version: object
) -> pd.DataFrame:
    found = cells(source)
    return _with_row(analysis.choose_adapters(found[found["model"] == model], eval_langs, split, scorer, fluency))


def against_published(source: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A run's X-FT cells beside the paper's, and how far they agree: see `analysis.against_published`."""
    return _against_published(source, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=20, show_spinner="Comparing with the paper")
def _against_published(source: str, version: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    return analysis.against_published(cells(source), cells(store.PUBLISHED))


@st.cache_data
def audit() -> pd.DataFrame:
    """The printed averages that are wrong: see `analysis.audit`."""
    return analysis.audit(published.tables(), published.averages())


@st.cache_data
def printed() -> pd.DataFrame:
    """The paper's printed numbers as they stand, with model names as our keys: see `published.tables`."""
    return published.tables().assign(model=lambda t: t["model"].str.lower())


@st.cache_data
def printed_averages() -> pd.DataFrame:
    """The paper's printed averages: see `published.averages`."""
    return published.averages()


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


def desk() -> live.Desk:
    """Where live prompts are handed in: one for all visitors of this process."""
    return _desk(adapters_path(), os.environ.get("VLLM_URL", ""))


@st.cache_resource
def _desk(root: Path, server: str) -> live.Desk:
    return live.open_desk(root, server)


def offers() -> list[live.Offer]:
    """What can be prompted live. Errors: ServerError."""
    return _offers(adapters_path(), os.environ.get("VLLM_URL", ""))


@st.cache_data(ttl=OFFER_SECONDS, max_entries=10, show_spinner="Looking for models")
def _offers(root: Path, server: str) -> list[live.Offer]:
    return _desk(root, server).writer.offers()


@st.cache_data(ttl=CACHE_SECONDS, max_entries=10, show_spinner=False)
def live_scorers(used: tuple[str, ...]) -> list[str]:
    """The scorers that can score a live prompt, ngram first; `used`: those of the results."""
    return list(live.scorers_at_hand(used))


@st.cache_data(show_spinner=False)
def examples(lang: Language) -> list[str]:
    """The bundled sample's toxic sentences in a language: mild ones."""
    sample = dataset.load("sample")
    return [pair.toxic for pair in (*sample.train[lang], *sample.test[lang])]
