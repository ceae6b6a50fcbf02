"""Queries of sweeps, of the app and of the summary. All return DataFrames with the columns they say."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from engine.store.file import frame, reading
from engine.vocabulary import Language, digest


def finished_units(path: Path, run_id: str) -> set[str]:
    """The ids of all units that a run has stored."""
    with reading(path) as connection:
        return {
            unit for (unit,) in connection.execute("SELECT unit_id FROM units WHERE run_id = ?", [run_id]).fetchall()
        }


def statuses(path: Path, run_id: str) -> pd.DataFrame:
    """variant_id, eval_lang, status and error of every setting of a run."""
    return frame(path, "SELECT variant_id, eval_lang, status, error FROM run_settings WHERE run_id = ?", [run_id])


def completions(path: Path, run_id: str, eval_lang: Language) -> pd.DataFrame:
    """The completions of a language: variant_id, split, prompt_index, sample_index, prompt, completion, likelihoods."""
    return frame(
        path,
        "SELECT c.* EXCLUDE (run_id, eval_lang, unit_id), replace(template, '{sentence}', sentence) AS prompt "
        "FROM completions c JOIN runs USING (run_id) JOIN prompts USING (run_id, eval_lang, split, prompt_index) "
        "WHERE run_id = ? AND eval_lang = ? ORDER BY variant_id, split, prompt_index, sample_index",
        [run_id, eval_lang],
    )


def run_scores(path: Path, run_id: str, eval_lang: Language) -> pd.DataFrame:
    """scorer, text, value, reason: all that the scorers of a run, in their revisions, have judged in a language."""
    return frame(
        path,
        "SELECT scorer, text, value, reason FROM score_cache JOIN run_scorers USING (scorer, revision) "
        "WHERE run_id = ? AND eval_lang = ?",
        [run_id, eval_lang],
    )


def sources(path: Path) -> pd.DataFrame:
    """The runs, newest first: run_id, source, sweep, dataset, seed, created_at, settings, done, failed."""
    return frame(
        path,
        "SELECT r.run_id, 'run:' || r.run_id AS source, r.sweep, r.dataset, r.seed, r.created_at, "
        "count(*) AS settings, count(*) FILTER (s.status = 'done') AS done, "
        "count(*) FILTER (s.status = 'failed') AS failed "
        "FROM runs r JOIN run_settings s USING (run_id) GROUP BY ALL ORDER BY r.created_at DESC",
    )


def run(path: Path, run_id: str) -> pd.DataFrame:
    """One row: run_id, sweep, dataset, dataset_hash, seed, plan (JSON: a `config.Sweep`), created_at, code (the version
    that planned it), template (of its prompts)."""
    return frame(path, "SELECT * FROM runs WHERE run_id = ?", [run_id])


def bases(path: Path, run_id: str) -> pd.DataFrame:
    """model, revision, dtype and targets (a JSON list, NULL where nothing is trained) of the bases of a run."""
    return frame(
        path,
        "SELECT model, any_value(spec->>'$.revision') AS revision, any_value(spec->>'$.dtype') AS dtype, "
        "any_value(spec->>'$.hyperparameters.targets') AS targets FROM variants "
        "WHERE variant_id IN (SELECT variant_id FROM run_settings WHERE run_id = ?) GROUP BY model ORDER BY model",
        [run_id],
    )


def cells(path: Path, source: str) -> pd.DataFrame:
    """The rows of the view `cells` of one source (`published` or `run:<run_id>`)."""
    return frame(path, "SELECT * FROM cells WHERE source = ?", [source])


def cells_of(path: Path, variant_id: str) -> pd.DataFrame:
    """The rows of the view `cells` of one variant, in all runs, the newest run first."""
    return frame(
        path,
        "SELECT c.* FROM cells c JOIN runs r USING (run_id) WHERE variant_id = ? ORDER BY r.created_at DESC, eval_lang",
        [variant_id],
    )


def averages(path: Path, source: str) -> pd.DataFrame:
    """The rows of the view `averages` of one source: mean Δ over languages, over X-FT variants, and over both."""
    return frame(path, "SELECT * FROM averages WHERE source = ?", [source])


def settings(path: Path, run_id: str) -> pd.DataFrame:
    """The rows of the view `settings` of one run."""
    return frame(path, "SELECT * FROM settings WHERE run_id = ?", [run_id])


def samples(path: Path, run_id: str, eval_lang: str, split: str, variant_ids: Sequence[str]) -> pd.DataFrame:
    """The rows of the view `samples` of some variants in one language and split, in the order of the prompts, and
    `sentence`, the prompt without its template."""
    return frame(
        path,
        "SELECT s.*, sentence FROM samples s JOIN prompts USING (run_id, eval_lang, split, prompt_index) "
        "WHERE run_id = ? AND eval_lang = ? AND split = ? AND list_contains(?, variant_id) "
        "ORDER BY prompt_index, sample_index, scorer",
        [run_id, eval_lang, split, list(variant_ids)],
    )


def scores(path: Path, run_id: str) -> pd.DataFrame:
    """eval_lang, text, scorer, value of every different text of a run and every scorer that judged it."""
    return frame(
        path,
        "SELECT DISTINCT c.eval_lang, c.completion AS text, x.scorer, k.value FROM completions c "
        "JOIN run_scorers x USING (run_id) JOIN score_cache k ON k.scorer = x.scorer AND k.revision = x.revision "
        "AND k.eval_lang = c.eval_lang AND k.text = c.completion WHERE c.run_id = ?",
        [run_id],
    )


def searches(path: Path) -> pd.DataFrame:
    """The hyperparameter searches, newest first: the columns of the table; finished_at NULL where one goes on."""
    return frame(path, "SELECT * FROM searches ORDER BY created_at DESC")


def search_points(path: Path, search_id: str) -> pd.DataFrame:
    """The points of a search that were judged, the best first: rank, alpha, learning_rate, batch_size, rung (how often
    it was judged before), epochs (trained until then), final_loss and nll (of validation text; NULL: failed) in nats a
    token, failure."""
    return frame(
        path,
        "SELECT * EXCLUDE (search_id) FROM search_points WHERE search_id = ? ORDER BY rung DESC, nll NULLS LAST",
        [search_id],
    )


def agreement(path: Path, run_id: str) -> pd.DataFrame:
    """What `put_agreement` stored, without the run."""
    return frame(path, "SELECT * EXCLUDE (run_id) FROM run_agreement WHERE run_id = ?", [run_id])


def unscored(path: Path, run_id: str) -> pd.DataFrame:
    """eval_lang, scorer, reason, n: the completions that a scorer was given and could not score."""
    return frame(path, "SELECT * EXCLUDE (run_id) FROM run_unscored WHERE run_id = ?", [run_id])


def scorers(path: Path, run_id: str) -> pd.DataFrame:
    """scorer, revision, neutral_train, neutral_test (means × 100), n_train, n_test of one run."""
    return frame(path, "SELECT * EXCLUDE (run_id) FROM run_scorers WHERE run_id = ?", [run_id])


def training(path: Path) -> pd.DataFrame:
    """variant_id, dataset_hash, limit_train, epochs and batch_size of every trained variant."""
    return frame(
        path,
        "SELECT variant_id, spec->>'$.dataset_hash' AS dataset_hash, (spec->>'$.limit_train')::INTEGER AS limit_train, "
        "(spec->>'$.hyperparameters.epochs')::INTEGER AS epochs, "
        "(spec->>'$.hyperparameters.batch_size')::INTEGER AS batch_size FROM variants WHERE strategy <> 'ZS'",
    )


def shapes(path: Path) -> dict[str, str]:
    """run_id → what the run is but for its seed, as a hash: runs of one shape are several seeds of one plan."""
    runs = frame(
        path,
        "SELECT run_id, r.plan, r.dataset_hash, list(DISTINCT v.spec::VARCHAR ORDER BY v.spec::VARCHAR) AS specs "
        "FROM runs r JOIN run_settings USING (run_id) JOIN variants v USING (variant_id) GROUP BY ALL",
    )
    hashes = {}
    for run_id, plan, content, specs in runs.itertuples(index=False):
        shaping = {key: value for key, value in json.loads(plan).items() if key not in BESIDE_SHAPE}
        variants = sorted(digest({**json.loads(spec), "seed": None}) for spec in specs)
        hashes[run_id] = digest([shaping, content, variants])
    return hashes


BESIDE_SHAPE = frozenset({"name", "about", "seed", "scorers", "db", "adapters", "represent"})
"""Parts of a plan that do not shape what is measured, or are the seed itself."""


def represented_variants(path: Path, run_id: str) -> pd.DataFrame:
    """The variants of a run whose embeddings are measured: variant_id, model, strategy, train_lang, train_fraction,
    n_sentences, map_share."""
    return frame(
        path,
        "SELECT variant_id, model, strategy, train_lang, train_fraction, n_sentences, map_share "
        "FROM run_representations JOIN variants USING (variant_id) WHERE run_id = ?",
        [run_id],
    )


def similarities(path: Path, run_id: str, variant_ids: Sequence[str]) -> pd.DataFrame:
    """variant_id, group_a, group_b, n_pairs, similarity (see `geometry.similarities`) of some variants of a run."""
    return _geometry(path, "run_similarities", run_id, variant_ids)


def silhouettes(path: Path, run_id: str) -> pd.DataFrame:
    """variant_id, clusters, part, eval_lang, n, silhouette (see `geometry.silhouettes`) of all variants of a run."""
    return _geometry(path, "run_silhouettes", run_id)


def distances(path: Path, run_id: str) -> pd.DataFrame:
    """variant_id, part, eval_lang, n_pairs, pair_distance, mean_distance (see `geometry.distances`) of a run."""
    return _geometry(path, "run_distances", run_id)


def points(path: Path, run_id: str, variant_ids: Sequence[str]) -> pd.DataFrame:
    """variant_id, eval_lang, part, side, sentence_index, x, y: where sentences lie on the map, under some variants."""
    return _geometry(path, "run_points", run_id, variant_ids)


def _geometry(path: Path, table: str, run_id: str, variant_ids: Sequence[str] | None = None) -> pd.DataFrame:
    chosen = None if variant_ids is None else list(variant_ids)
    return frame(
        path,
        f"SELECT * EXCLUDE (run_id) FROM {table} WHERE run_id = ? AND (? IS NULL OR list_contains(?, variant_id))",
        [run_id, chosen, chosen],
    )
