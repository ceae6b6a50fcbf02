"""What the pages read: the store's read functions, cached. The only place with st.cache_*; it writes nothing.

The cache is keyed by the results file's path, time and size, so that a running sweep shows up at the next click, and
no connection outlives a call. The paper's figures come with the code and need no file.
"""

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import streamlit as st

from app.live.job_queue import AvailableModel, JobQueue, available_scorers, open_queue
from app.tables import grid
from app.tables.grid import NUMBERS, Show
from engine import analysis, store
from engine.analysis.metrics import MEASURES
from engine.analysis.seeds import POOLED
from engine.analysis.tables import labels
from engine.config import ADAPTERS, PROMPT, RESULTS
from engine.data import dataset, linguistics, published
from engine.lora import adapters
from engine.store import browse
from engine.sweep import progress
from engine.vocabulary import Language, Metric, Status, Strategy

CACHE_SECONDS = 60
AVAILABLE_SECONDS = 5
"""A server comes and goes, and a sweep makes adapters: the models are soon read again."""


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
def _cached(module: str, function: str, path: str, changed: int, size: int, *arguments: object) -> Any:
    return getattr(sys.modules[module], function)(Path(path), *arguments)


def _read(function: str, *arguments: object, module: ModuleType = store) -> pd.DataFrame:
    """The frame of a read function of the store, or of another module. Errors: StoreError, LockedError."""
    frame: pd.DataFrame = _found(function, *arguments, module=module)
    return frame


def _found(function: str, *arguments: object, module: ModuleType = store) -> Any:
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
    return _plan(source, _version())


@st.cache_resource(ttl=CACHE_SECONDS, max_entries=20, show_spinner="Reading the results file")
def _plan(source: str, version: object) -> pd.DataFrame:
    """Shared like `_cells`: nobody writes into it."""
    return _with_row(_read("settings", runs().at[source, "run_id"]))


def run(source: str) -> pd.Series:
    """A run as it was planned: see `store.run`."""
    return _read("run", runs().at[source, "run_id"]).iloc[0]


def bases(source: str) -> pd.DataFrame:
    """The bases of a run: see `store.bases`."""
    return _read("bases", runs().at[source, "run_id"])


def searches() -> pd.DataFrame:
    """The hyper-parameter searches, newest first: see `store.searches`."""
    return _read("searches") if results_path().exists() else pd.DataFrame(columns=["search_id"])


def search_points(search_id: str) -> pd.DataFrame:
    """The points of a search that were judged, the best first: see `store.search_points`."""
    return _read("search_points", search_id)


def sweep_status() -> progress.SweepStatus | None:
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
    return _cells(source, _version())


@st.cache_resource(ttl=CACHE_SECONDS, max_entries=20, show_spinner="Reading the results file")
def _cells(source: str, version: object) -> pd.DataFrame:
    """Shared by all visitors, since a page wants it a dozen times and a copy takes 10 ms: nobody writes into it."""
    found = published.cells() if source == store.PUBLISHED else _read("cells", source)
    return _with_row(found.reindex(columns=found.columns.union(["variant_id", *NUMBERS], sort=False)))


def _with_row(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(row=labels(frame))


def averages(source: str) -> pd.DataFrame:
    """The averages of a source, the view `averages`; the paper's have no intervals and are not among them."""
    if source == store.PUBLISHED:
        return grid.NO_AVERAGES.assign(model=None)
    return _read("averages", source)


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


def pooled_seeds(source: str) -> pd.DataFrame:
    """The cells of a run together with those of other seeds of its plan, with `row`: see `analysis.pooled`. Empty where
    the run has one seed alone."""
    return _pooled_seeds(source, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=20, show_spinner=False)
def _pooled_seeds(source: str, version: object) -> pd.DataFrame:
    shapes = _found("shapes")
    own = shapes[str(runs().at[source, "run_id"])]
    alike = [cells(f"run:{run_id}") for run_id, shape in shapes.items() if shape == own]
    found = analysis.pooled(pd.concat(alike)) if len(alike) > 1 else pd.DataFrame(columns=POOLED)
    return _with_row(found)


def transfer(source: str, model: str, split: str, metric: str) -> pd.DataFrame:
    """What the Δ of X-FT follows: see `analysis.transfer`."""
    return _transfer(source, model, split, metric, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=200, show_spinner="Permuting languages")
def _transfer(source: str, model: str, split: str, metric: str, version: object) -> pd.DataFrame:
    found = cells(source)
    found = found[(found["model"] == model) & (found["split"] == split) & (found["metric"] == metric)]
    return analysis.transfer(found, linguistics.syntactic_distances(), linguistics.shares())


def share_of_data(source: str) -> pd.DataFrame:
    """What a part of the data gives beside all of it, also in other runs: see `analysis.share_of_data`."""
    return _share_of_data(source, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=20, show_spinner=False)
def _share_of_data(source: str, version: object) -> pd.DataFrame:
    own = cells(source)
    others = [cells(str(other)) for other in runs().index if other != source]
    pooled = [frame[frame["strategy"].isin([Strategy.P_FT, Strategy.M_FT])] for frame in (own, *others)]
    found = analysis.share_of_data(pd.concat(pooled), _read("training"))
    return found[found["run_id"] == runs().at[source, "run_id"]]


def cost(source: str) -> pd.DataFrame:
    """What detoxification costs in perplexity: see `analysis.cost`."""
    return _cost(source, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=20, show_spinner=False)
def _cost(source: str, version: object) -> pd.DataFrame:
    return analysis.cost(cells(source))


def ranked_adapters(
    source: str, model: str, eval_langs: tuple[str, ...], split: str, scorer: str, fluency: str
) -> pd.DataFrame:
    """The adapters of a base, the best first, with `row`: see `analysis.choose_adapters`."""
    return _ranked_adapters(source, model, eval_langs, split, scorer, fluency, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=200, show_spinner="Ranking the adapters")
def _ranked_adapters(
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


@st.cache_data(show_spinner=False)
def copied_rows() -> pd.DataFrame:
    """The printed rows that are copies of another: see `analysis.copied_rows`."""
    return analysis.copied_rows(published.tables())


@st.cache_data
def printed() -> pd.DataFrame:
    """The paper's printed numbers as they stand, with model names as our keys: see `published.tables`."""
    return published.tables().assign(model=lambda t: t["model"].str.lower())


@st.cache_data
def printed_averages() -> pd.DataFrame:
    """The paper's printed averages: see `published.averages`."""
    return published.averages()


def measures(source: str) -> pd.DataFrame:
    """What there are cells of: model, split, metric, scorer, prompts (different ones) and answers (n of all cells)."""
    return _measures(source, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=20, show_spinner=False)
def _measures(source: str, version: object) -> pd.DataFrame:
    key = ["model", "split", "metric", "scorer"]
    per_lang = cells(source).groupby([*key, "eval_lang"], dropna=False, sort=False)["n"].agg(["max", "sum"])
    found = per_lang.groupby(level=key, dropna=False, sort=False).sum().reset_index()
    return found.rename(columns={"max": "prompts", "sum": "answers"})


def matrix(source: str, model: str, split: str, metric: str, scorer: str, show: Show = Show.DELTA) -> pd.DataFrame:
    """The grid of one matrix with its averages: see `app.tables.grid`. scorer '' where the metric needs none."""
    return _matrix(source, model, split, metric, scorer, show, _version())


@st.cache_data(ttl=CACHE_SECONDS, max_entries=200, show_spinner=False)
def _matrix(source: str, model: str, split: str, metric: str, scorer: str, show: Show, version: object) -> pd.DataFrame:
    planned, key = plan(source), (model, split, metric, scorer)
    found = grid.grid(planned[planned["model"] == model], _part(cells(source), *key), source != store.PUBLISHED, show)
    is_log = metric in set(MEASURES) and MEASURES[Metric(metric)].is_nll
    rows = grid.means(found, _part(averages(source), *key), show, is_log)
    return pd.concat([found, rows], ignore_index=True).assign(model=model)


def _part(frame: pd.DataFrame, model: str, split: str, metric: str, scorer: str) -> pd.DataFrame:
    is_here = (frame["model"] == model) & (frame["split"] == split) & (frame["metric"] == metric)
    return frame[is_here & (frame["scorer"] == scorer) if scorer else is_here]


def unscored(source: str) -> pd.DataFrame:
    """How many completions have no score, and why: see `store.unscored`."""
    return _read("unscored", runs().at[source, "run_id"])


def scorers(source: str) -> list[str]:
    """Who judged a run."""
    return sorted(_read("scorers", runs().at[source, "run_id"])["scorer"])


def agreement(source: str) -> pd.DataFrame:
    """How far the scorers of a run agree, by language: see `analysis.agreement`. No rows until its sweep has ended."""
    return _read("agreement", runs().at[source, "run_id"])


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

    Columns: sentence (the prompt without its template), completion, toxicity (× 100), reason, perplexity_self and
    perplexity_base, the five of ZS with `_zs` at the end, and change = ZS − variant in toxicity. `variant` None: ZS
    alone, in the plain columns.
    """
    ids = [i for i in (zero_shot, variant) if i]
    found = _read("samples", runs().at[source, "run_id"], eval_lang, split, ids)
    found = found[(found["scorer"] == scorer) | found["scorer"].isna()] if scorer else found
    key = ["prompt_index", "sample_index"]
    found = found.drop_duplicates([*key, "variant_id"]).assign(
        sentence=lambda t: t["prompt"].str.removeprefix(PROMPT.partition("{")[0]),
        toxicity=lambda t: 100 * t["toxicity"],
    )
    columns = [*key, "sentence", "completion", "toxicity", "reason", "perplexity_self", "perplexity_base"]
    mine = found.loc[found["variant_id"] == (variant or zero_shot), columns]
    base = found.loc[found["variant_id"] == zero_shot, columns].drop(columns="sentence")
    rows: pd.DataFrame = mine.merge(base, on=key, how="left", suffixes=("", "_zs"))
    return rows.assign(change=rows["toxicity_zs"] - rows["toxicity"])


def browsed(source: str, wanted: browse.Wanted, order: browse.Order, first: int, size: int) -> pd.DataFrame:
    """Completions of a run, see `browse.rows`; what is added and × 100 is told at `_beside`."""
    return _beside(source, _read("rows", wanted, order, first, size, module=browse))


def browsed_count(wanted: browse.Wanted) -> int:
    """How many completions there are to browse."""
    return int(_found("count", wanted, module=browse))


def linked(source: str, scorer: str, key: browse.Key) -> pd.DataFrame:
    """One completion of a run, as `browsed` has it, or no row."""
    return _beside(source, _read("one", runs().at[source, "run_id"], scorer, key, module=browse))


def _beside(source: str, found: pd.DataFrame) -> pd.DataFrame:
    """Adds model and row (the label of the variant), and change = ZS − variant; toxicity and change are × 100."""
    names = plan(source).drop_duplicates("variant_id").set_index("variant_id")[["model", "row"]]
    found = found.join(names, on="variant_id")
    found = found.assign(toxicity=100 * found["toxicity"], toxicity_zs=100 * found["toxicity_zs"])
    return found.assign(change=found["toxicity_zs"] - found["toxicity"])


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


@st.cache_data(show_spinner=False)
def examples(lang: Language) -> list[str]:
    """The bundled sample's toxic sentences in a language: mild ones."""
    sample = dataset.load("sample")
    return [pair.toxic for pair in (*sample.train[lang], *sample.test[lang])]
