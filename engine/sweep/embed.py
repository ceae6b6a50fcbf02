"""Sentence embeddings of a base's variants: computed and stored variant by variant."""

from engine import store
from engine.analysis import geometry
from engine.embed import represent
from engine.sweep.base_run import BaseRun
from engine.vocabulary import Variant


def embed_missing(run: BaseRun) -> None:
    """Measures what is not stored yet. A failure is recorded."""
    missing = _variants_to_embed(run)
    if missing:
        with run.record_failures(run.active_variants):
            _embed(run, missing)


def _variants_to_embed(run: BaseRun) -> list[Variant]:
    if not run.plan.sweep.represent:
        return []
    stored = set(store.represented_variants(run.db, run.run_id)["variant_id"])
    return [variant for variant in run.active_variants if variant.variant_id not in stored]


def _embed(run: BaseRun, missing: list[Variant]) -> None:
    """The map's axes are those of the first variant, ZS, which is embedded again when it is stored already."""
    text = represent.sentences(run.plan.splits, run.plan.sweep.eval_langs)
    groups = text.drop(columns="sentence")
    first = run.active_variants[0]
    rest = [variant for variant in missing if variant is not first]
    loaded, stack = run.backends.stack(run.active_variants)
    most = represent.most_at_once(loaded, len(text))
    blocks = [[first], *(rest[i : i + most] for i in range(0, len(rest), most))]
    axes = None
    with run.reporter.counting("embedding", len(text) * (1 + len(rest)), "sentences") as counter:
        for block in blocks:
            names = [variant.adapter for variant in block]
            with run.outcome.timer("embedding"):
                embeddings = represent.embed(loaded, stack, text["sentence"].tolist(), names, counter.advance)
            axes = axes or geometry.map_axes(embeddings[0])
            for variant, vectors in zip(block, embeddings, strict=True):
                if variant in missing:
                    with run.outcome.timer("measuring embeddings"):
                        measured = geometry.measure(vectors, groups, axes)
                    store.put_geometry(run.db, run.run_id, variant.variant_id, measured)
