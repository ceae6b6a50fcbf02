"""What the pages read: the store's read functions, cached. The only place with st.cache_*; it writes nothing.

What a query returns is kept until the results file changes (its path, time or size), so that a running sweep shows up
at the next click, and no connection outlives a call. The paper's figures come with the code and need no file.
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import pandas as pd
import streamlit as st

from app.live.job_queue import AvailableModel, JobQueue, available_scorers, open_queue
from app.tables import grid
from app.tables.grid import NUMBERS, Show
from engine import analysis, store
from engine.analysis.metrics import MEASURES
from engine.analysis.seeds import POOLED
from engine.analysis.tables import labels
from engine.config import ADAPTERS, RESULTS
from engine.data import dataset, linguistics, published
from engine.lora import adapters
from engine.store import browse
from engine.sweep import progress
from engine.vocabulary import NINE, Language, Metric, Status, Strategy

CACHE_SECONDS = 60
MAX_ENTRIES = 200
MAX_SHARED = 20
"""Answers of a query that are kept; those that are shared are large."""

READING = "Reading the results file"
AVAILABLE_SECONDS = 5
"""A server comes and goes, and a sweep makes adapters: the models are soon read again."""

P = ParamSpec("P")
R = TypeVar("R")


def cached(spinner: str = "", is_shared: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keeps what a query returns until the results file changes. `is_shared`: all visitors get the same object, which
    nobody writes into, since a copy of all cells takes 10 ms and a page wants a dozen; else each call gets a copy."""

    def decorate(query: Callable[P, R]) -> Callable[P, R]:
        def at_version(version: object, *arguments: P.args, **named: P.kwargs) -> R:
            return query(*arguments, **named)

        at_version.__qualname__ = f"{query.__qualname__}.at_version"  # Streamlit tells caches apart by it
        keep, entries = (st.cache_resource, MAX_SHARED) if is_shared else (st.cache_data, MAX_ENTRIES)
        kept = keep(ttl=CACHE_SECONDS, max_entries=entries, show_spinner=spinner or False)(at_version)

        @wraps(query)
        def latest(*arguments: P.args, **named: P.kwargs) -> R:
            return kept(_version(), *arguments, **named)

        return latest

    return decorate


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


def _version() -> tuple[str, int, int] | None:
    """What tells one state of the results file from another."""
    path = results_path()
    return (str(path), path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else None


@cached(READING)
def runs() -> pd.DataFrame:
    """The runs by source, newest first: run_id, sweep, dataset, seed, created_at, settings, done, failed."""
    if not results_path().exists():
        return pd.DataFrame(columns=["run_id", "settings", "done", "failed"])
    return store.sources(results_path()).set_index("source")


def run_id(source: str) -> str:
    """Of a source that is a run."""
    return str(runs().at[source, "run_id"])


def sources() -> dict[str, str]:
    """What to call every source: the runs, newest first, then the paper's figures."""
    labels = {str(source): _label(run) for source, run in runs().iterrows()}
    return {**labels, store.PUBLISHED: "The paper's published results"}


def _label(run: pd.Series) -> str:
    return (
        f"{run['sweep']} · {run['created_at']:%Y-%m-%d} · {run['dataset']} · seed {run['seed']} · {run['run_id'][:8]}"
    )


@cached(READING, is_shared=True)
def plan(source: str) -> pd.DataFrame:
    """What should be there: row, model, strategy, train_lang, train_fraction, eval_lang, variant_id, status, error."""
    if source == store.PUBLISHED:
        key = ["row", "model", "strategy", "train_lang", "train_fraction", "eval_lang"]
        return cells(source)[key].drop_duplicates().assign(variant_id=None, status=Status.DONE.value, error=None)
    return _with_row(store.settings(results_path(), run_id(source)))


@cached(READING)
def run(source: str) -> pd.Series:
    """A run as it was planned: see `store.run`."""
    return store.run(results_path(), run_id(source)).iloc[0]


@cached(READING)
def bases(source: str) -> pd.DataFrame:
    """The bases of a run: see `store.bases`."""
    return store.bases(results_path(), run_id(source))


@cached(READING)
def searches() -> pd.DataFrame:
    """The hyper-parameter searches, newest first: see `store.searches`."""
    return store.searches(results_path()) if results_path().exists() else pd.DataFrame(columns=["search_id"])


@cached(READING)
def search_points(search_id: str) -> pd.DataFrame:
    """The points of a search that were judged, the best first: see `store.search_points`."""
    return store.search_points(results_path(), search_id)


def sweep_status() -> progress.SweepStatus | None:
    """What the last sweep on the results file said of itself. Not cached: it is a small file, and changes."""
    return progress.read(results_path())


def adapters_on_disk() -> pd.DataFrame:
    """What is in the adapters folder: see `adapters.list_adapters`. Read again when a file of it has changed."""
    root = adapters_path()
    return _adapters(str(root), adapters.fingerprint(root))


@st.cache_data(max_entries=4, show_spinner="Reading the adapters folder")
def _adapters(root: str, fingerprint: str) -> pd.DataFrame:
    return adapters.list_adapters(Path(root))


@cached(READING, is_shared=True)
def cells(source: str) -> pd.DataFrame:
    """The finished cells of a source: the view `cells`, and `row`, the label of the variant."""
    cells = published.cells() if source == store.PUBLISHED else store.cells(results_path(), source)
    return _with_row(cells.reindex(columns=cells.columns.union(["variant_id", *NUMBERS], sort=False)))


def _with_row(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(row=labels(frame))


@cached(READING)
def averages(source: str) -> pd.DataFrame:
    """The averages of a source, the view `averages`; the paper's have no intervals and are not among them."""
    if source == store.PUBLISHED:
        return grid.NO_AVERAGES.assign(model=None)
    return store.averages(results_path(), source)


@cached("Comparing the strategies")
def strategies(source: str) -> pd.DataFrame:
    """X-FT, P-FT and M-FT side by side: see `analysis.strategies`."""
    return analysis.strategies(cells(source), averages(source))


@cached()
def pooled_seeds(source: str) -> pd.DataFrame:
    """The cells of a run together with those of other seeds of its plan, with `row`: see `analysis.pooled`. Empty where
    the run has one seed alone."""
    shapes = store.shapes(results_path())
    same_plan = [cells(f"run:{other}") for other, shape in shapes.items() if shape == shapes[run_id(source)]]
    pooled = analysis.pool_seeds(pd.concat(same_plan)) if len(same_plan) > 1 else pd.DataFrame(columns=POOLED)
    return _with_row(pooled)


@cached("Computing permutation tests")
def transfer(source: str, model: str, split: str, metric: str) -> pd.DataFrame:
    """What the Δ of X-FT follows: see `analysis.transfer`."""
    every = cells(source)
    part = every[(every["model"] == model) & (every["split"] == split) & (every["metric"] == metric)]
    return analysis.transfer(part, linguistics.syntactic_distances(), linguistics.shares())


@cached()
def share_of_data(source: str) -> pd.DataFrame:
    """P-FT versus M-FT, also of other runs: see `analysis.share_of_data`."""
    every = [cells(str(any_source)) for any_source in (source, *(other for other in runs().index if other != source))]
    pooled = [frame[frame["strategy"].isin([Strategy.P_FT, Strategy.M_FT])] for frame in every]
    shares = analysis.share_of_data(pd.concat(pooled), store.training(results_path()))
    return shares[shares["run_id"] == run_id(source)]


@cached()
def cost(source: str) -> pd.DataFrame:
    """What detoxification costs in perplexity: see `analysis.cost`."""
    return analysis.cost(cells(source))


@cached("Ranking the adapters")
def ranked_adapters(
    source: str, model: str, eval_langs: tuple[str, ...], split: str, scorer: str, fluency: str
) -> pd.DataFrame:
    """The adapters of a base, the best first, with `row`: see `analysis.choose_adapters`."""
    every = cells(source)
    return _with_row(analysis.choose_adapters(every[every["model"] == model], eval_langs, split, scorer, fluency))


@cached("Comparing with the paper")
def against_published(source: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A run's X-FT cells beside the paper's, and how far they agree: see `analysis.against_published`."""
    return analysis.against_published(cells(source), cells(store.PUBLISHED))


@cached()
def audit() -> pd.DataFrame:
    """The printed averages that are wrong: see `analysis.audit`."""
    return analysis.audit(published.tables(), published.averages())


@cached()
def copied_rows() -> pd.DataFrame:
    """The printed rows that are copies of another: see `analysis.copied_rows`."""
    return analysis.copied_rows(published.tables())


@cached()
def paper_tables() -> pd.DataFrame:
    """The paper's printed numbers as they stand, with model names as our keys: see `published.tables`."""
    return published.tables().assign(model=lambda t: t["model"].str.lower())


@cached()
def printed_averages() -> pd.DataFrame:
    """The paper's printed averages: see `published.averages`."""
    return published.averages()


@cached()
def measures(source: str) -> pd.DataFrame:
    """What there are cells of: model, split, metric, scorer, prompts (different ones) and answers (n of all cells)."""
    key = ["model", "split", "metric", "scorer"]
    per_lang = cells(source).groupby([*key, "eval_lang"], dropna=False, sort=False)["n"].agg(["max", "sum"])
    counts = per_lang.groupby(level=key, dropna=False, sort=False).sum().reset_index()
    return counts.rename(columns={"max": "prompts", "sum": "answers"})


@cached()
def matrix(source: str, model: str, split: str, metric: str, scorer: str, show: Show = Show.DELTA) -> pd.DataFrame:
    """The grid of one matrix with its averages: see `app.tables.grid`. scorer '' where the metric needs none."""
    planned, key = plan(source), (model, split, metric, scorer)
    of_cells = grid.grid(
        planned[planned["model"] == model], _matrix_cells(cells(source), *key), source != store.PUBLISHED, show
    )
    is_log = metric in set(MEASURES) and MEASURES[Metric(metric)].is_nll
    of_means = grid.means(of_cells, _matrix_cells(averages(source), *key), show, is_log)
    return pd.concat([of_cells, of_means], ignore_index=True).assign(model=model)


def _matrix_cells(frame: pd.DataFrame, model: str, split: str, metric: str, scorer: str) -> pd.DataFrame:
    is_here = (frame["model"] == model) & (frame["split"] == split) & (frame["metric"] == metric)
    return frame[is_here & (frame["scorer"] == scorer) if scorer else is_here]


@cached(READING)
def unscored(source: str) -> pd.DataFrame:
    """How many completions have no score, and why: see `store.unscored`."""
    return store.unscored(results_path(), run_id(source))


@cached(READING)
def scorer_facts(source: str) -> pd.DataFrame:
    """Who judged a run: see `store.scorers`."""
    return store.scorers(results_path(), run_id(source))


def scorers(source: str) -> list[str]:
    """The names of who judged a run."""
    return sorted(scorer_facts(source)["scorer"])


@cached(READING)
def agreement(source: str) -> pd.DataFrame:
    """How far the scorers of a run agree, by language: see `analysis.agreement`. No rows until its sweep has ended."""
    return store.agreement(results_path(), run_id(source))


@cached(READING)
def represented_variants(source: str) -> pd.DataFrame:
    """The variants of a source whose sentence embeddings were measured: model, row, variant_id, n_sentences, map_share.

    The published ones have a variant_id of model and label, and NaN for both numbers.
    """
    if source == store.PUBLISHED:
        variants = _published("silhouettes")[["variant_id", "model", "row"]].drop_duplicates(ignore_index=True)
        return variants.assign(n_sentences=float("nan"), map_share=float("nan"))
    return _with_row(store.represented_variants(results_path(), run_id(source)))


@cached(READING)
def similarities(source: str, variant_ids: tuple[str, ...]) -> pd.DataFrame:
    """Mean similarity of groups of sentences: variant_id, group_a, group_b, similarity; each pair once."""
    if source == store.PUBLISHED:
        every = _published("similarities")
        return every[every["variant_id"].isin(variant_ids)]
    return store.similarities(results_path(), run_id(source), variant_ids)


@cached(READING)
def silhouettes(source: str) -> pd.DataFrame:
    """Mean silhouettes of languages: variant_id, clusters (`language` or `toxicity`), part, eval_lang, silhouette."""
    if source == store.PUBLISHED:
        return _published("silhouettes").assign(clusters="language")
    return store.silhouettes(results_path(), run_id(source))


@cached(READING)
def distances(source: str) -> pd.DataFrame:
    """Of toxic from neutral text: variant_id, part, eval_lang, pair_distance, mean_distance; none are published."""
    return store.distances(results_path(), run_id(source))


@cached(READING)
def points(source: str, variant_ids: tuple[str, ...]) -> pd.DataFrame:
    """Where sentences lie on the map: variant_id, eval_lang, part, side, sentence_index, x, y; none are published."""
    return store.points(results_path(), run_id(source), variant_ids)


@cached()
def _published(name: str) -> pd.DataFrame:
    tables = {"silhouettes": published.silhouettes, "similarities": published.similarities}
    frame = tables[name]().rename(columns={"variant": "row"})
    return frame.assign(variant_id=frame["model"] + " " + frame["row"])


def scorer_gap(source: str, scorer: str) -> tuple[float, float] | None:
    """Mean score × 100 of (learnt, unseen) neutral sentences, where it was measured."""
    means = scorer_facts(source).set_index("scorer")[["neutral_train", "neutral_test"]].reindex([scorer]).iloc[0]
    return None if means.isna().any() else (float(means.iloc[0]), float(means.iloc[1]))


@cached(READING)
def side_by_side(
    source: str, eval_lang: str, split: str, scorer: str, zero_shot: str | None, variant: str | None
) -> pd.DataFrame:
    """The completions of a cell, ZS beside the variant's, one row a prompt and sample.

    Columns: sentence (the prompt without its template), completion, toxicity (× 100), reason, perplexity_self and
    perplexity_base, the five of ZS with `_zs` at the end, and change = ZS − variant in toxicity. `variant` None: ZS
    alone, in the plain columns.
    """
    ids = [i for i in (zero_shot, variant) if i]
    samples = store.samples(results_path(), run_id(source), eval_lang, split, ids)
    samples = samples[(samples["scorer"] == scorer) | samples["scorer"].isna()] if scorer else samples
    key = ["prompt_index", "sample_index"]
    samples = samples.drop_duplicates([*key, "variant_id"]).assign(
        toxicity=lambda t: 100 * t["toxicity"],
    )
    columns = [*key, "sentence", "completion", "toxicity", "reason", "perplexity_self", "perplexity_base"]
    mine = samples.loc[samples["variant_id"] == (variant or zero_shot), columns]
    base = samples.loc[samples["variant_id"] == zero_shot, columns].drop(columns="sentence")
    rows: pd.DataFrame = mine.merge(base, on=key, how="left", suffixes=("", "_zs"))
    return rows.assign(change=rows["toxicity_zs"] - rows["toxicity"])


@cached(READING)
def completions_page(source: str, filters: browse.Filters, order: browse.Order, first: int, size: int) -> pd.DataFrame:
    """Completions of a run, see `browse.rows`; what is added and × 100 is told at `_beside_zs`."""
    return _beside_zs(source, browse.rows(results_path(), filters, order, first, size))


@cached(READING)
def completions_count(filters: browse.Filters) -> int:
    """How many completions there are to browse."""
    return browse.count(results_path(), filters)


@cached(READING)
def linked_completion(source: str, scorer: str, key: browse.Key) -> pd.DataFrame:
    """One completion of a run, as `completions_page` has it, or no row."""
    return _beside_zs(source, browse.completion(results_path(), run_id(source), scorer, key))


def _beside_zs(source: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Adds model and row (the label of the variant), and change = ZS − variant; toxicity and change are × 100."""
    names = plan(source).drop_duplicates("variant_id").set_index("variant_id")[["model", "row"]]
    rows = rows.join(names, on="variant_id")
    rows = rows.assign(toxicity=100 * rows["toxicity"], toxicity_zs=100 * rows["toxicity_zs"])
    return rows.assign(change=rows["toxicity_zs"] - rows["toxicity"])


def job_queue() -> JobQueue:
    """Where live prompts are handed in: one for all visitors of this process."""
    return _job_queue(adapters_path(), os.environ.get("VLLM_URL", ""))


@st.cache_resource
def _job_queue(root: Path, server: str) -> JobQueue:
    return open_queue(root, server)


def available_models() -> list[AvailableModel]:
    """What can be prompted live. Errors: ServerError."""
    return _available_models(adapters_path(), os.environ.get("VLLM_URL", ""))


@st.cache_data(ttl=AVAILABLE_SECONDS, max_entries=10, show_spinner="Looking for models")
def _available_models(root: Path, server: str) -> list[AvailableModel]:
    return _job_queue(root, server).writer.available_models()


@st.cache_data(ttl=CACHE_SECONDS, max_entries=10, show_spinner=False)
def live_scorers(used: tuple[str, ...]) -> list[str]:
    """The scorers that can score a live prompt, ngram first; `used`: those of the results."""
    return list(available_scorers(used))


def languages() -> list[Language]:
    """The paper's nine, and those of the run that is shown."""
    of_run = set(plan(st.session_state["source"])["eval_lang"])
    return [lang for lang in Language if lang in NINE or lang in of_run]


@st.cache_data(show_spinner=False)
def examples(lang: Language) -> list[str]:
    """The bundled sample's toxic sentences in a language: mild ones; none beyond the nine."""
    sample = dataset.load("sample")
    return [pair.toxic for pair in (*sample.train.get(lang, ()), *sample.test.get(lang, ()))]
