"""The model card of an exported adapter: training, results, licence and limitations. Its text is in `card.md.jinja`.

It says nothing that is not in the adapter's meta.json or in the results file.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from engine import store
from engine.analysis.metrics import MIN_PAIRS_FOR_VERDICT
from engine.analysis.statistics import CONFIDENCE
from engine.config import EMBEDDED_MODEL, PROMPT, prompt_of
from engine.data import dataset
from engine.model.registry import KNOWN_BASES
from engine.vocabulary import NINE, STRATEGY_NAMES, Language, Metric, Split, Strategy, Variant, Verdict

LICENCES: Mapping[str, str] = {
    "gemma": "the [Gemma Terms of Use](https://ai.google.dev/gemma/terms), with the Prohibited Use Policy",
    "cc-by-nc-4.0": "[CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/) (no commercial use), with Cohere "
    "Labs' Acceptable Use Policy",
    "bigscience-bloom-rail-1.0": "the BigScience RAIL License 1.0, which restricts uses",
    "apache-2.0": "the [Apache License 2.0](https://www.apache.org/licenses/LICENSE-2.0)",
}
"""The hub's word for a licence → what to call it."""

HEADLINE = Split.TOXIC_TEST
DIGITS = 2
TEMPLATE = Path(__file__).parent / "card.md.jinja"
NONE = "–"


@dataclass(frozen=True)
class Training:
    """How an adapter was trained. `dataset`: its name, or its folder. `final_loss`: nats per token, last step."""

    variant: Variant
    dataset: str
    texts: int
    steps: int
    final_loss: float | None
    finished_at: str
    versions: Mapping[str, str]
    is_encoder_decoder: bool


@dataclass(frozen=True)
class Measurements:
    """The cells of a variant on the headline split in one run, and what is known of the scorers; empty where no run
    has measured it. `others`: how many more runs have. `template`: of the run's prompts."""

    run_id: str
    cells: pd.DataFrame
    scorers: pd.DataFrame
    others: int
    template: str = PROMPT

    @property
    def n_langs(self) -> int:
        return int(self.cells["eval_lang"].nunique())


def measurements_of(db: Path, variant_id: str) -> Measurements:
    """What the results file says of a variant; of several runs the one that asked most prompts, then the newest.

    Errors: StoreError.
    """
    every = store.cells_of(db, variant_id)
    headline = every[(every["split"] == HEADLINE) & every["metric"].isin([Metric.TOXICITY, Metric.PERPLEXITY_BASE])]
    if headline.empty:
        return Measurements("", headline, pd.DataFrame(), 0)
    prompts = headline[headline["metric"] == Metric.PERPLEXITY_BASE].groupby("run_id", sort=False)["n"].sum()
    run_id = str(prompts.idxmax())
    of_run = headline[headline["run_id"] == run_id]
    template = str(store.run(db, run_id)["template"].iloc[0])
    return Measurements(run_id, of_run, store.scorers(db, run_id), len(prompts) - 1, template)


def base_name(variant: Variant) -> str:
    """The hub's id of a base where we know it, else our own name for it."""
    known = KNOWN_BASES.get(variant.model)
    return known.hub_id if known and known.hub_id else variant.model


def card_text(training: Training, measurements: Measurements, merged: bool) -> str:
    """The whole card. `merged`: of the model that is base and adapter in one."""
    from huggingface_hub import ModelCard, ModelCardData

    variant = training.variant
    known = KNOWN_BASES.get(variant.model)
    licence = known.licence if known else "unknown"
    data = ModelCardData(
        base_model=base_name(variant),
        library_name="transformers" if merged else "peft",
        license=licence,
        language=[lang.value for lang in _langs(variant)],
        pipeline_tag="text2text-generation" if training.is_encoder_decoder else "text-generation",
        tags=["lora", "detoxification", variant.strategy.value.lower(), "x-det-lab"],
        datasets=[dataset.HUB_ID] if training.dataset == "paradetox" else None,
        base_model_relation="finetune" if merged else "adapter",
    )
    toxic = measurements.cells[measurements.cells["metric"] == Metric.TOXICITY]
    context: dict[str, Any] = {
        "training": training,
        "variant": variant,
        "h": variant.hyperparameters,
        "measurements": measurements,
        "merged": merged,
        "base": base_name(variant),
        "licence": LICENCES.get(licence),
        "kind": "Seq2SeqLM" if training.is_encoder_decoder else "CausalLM",
        "strategy_name": STRATEGY_NAMES[variant.strategy],
        "trained_on": _trained_on(training),
        "dataset_name": _dataset_name(training),
        "languages": [lang.facts.name for lang in _langs(variant)],
        "split": HEADLINE,
        "prompt": prompt_of("…", measurements.template),
        "confidence": 100 * CONFIDENCE,
        "numbers": _numbers(measurements.cells),
        "embedded_model": EMBEDDED_MODEL,
        "is_instruct": known is not None and known.is_instruct,
        "min_pairs": MIN_PAIRS_FOR_VERDICT,
        "n_pairs": toxic["n_pairs"].agg(["min", "max"]).astype(int).tolist() if len(toxic) else None,
        "degenerate": _degenerate(toxic),
        "scorers": [{"name": row["scorer"], "gap": _gap(row)} for row in measurements.scorers.to_dict("records")],
    }
    return f"{ModelCard.from_template(data, template_path=str(TEMPLATE), **context)}\n"


def _langs(variant: Variant) -> list[Language]:
    return [Language(str(variant.train_lang))] if variant.strategy is Strategy.X_FT else _pooled(variant)


def _pooled(variant: Variant) -> list[Language]:
    return [Language(lang) for lang in variant.pooled_langs or NINE]


def _trained_on(training: Training) -> str:
    variant, kind = training.variant, "toxic and neutral" if training.is_encoder_decoder else "neutral"
    if variant.strategy is Strategy.X_FT:
        return f"{kind} {_langs(variant)[0].facts.name} sentences"
    share = f"{100 * (variant.train_fraction or 0):g} % of the " if variant.strategy is Strategy.P_FT else ""
    return f"{share}{kind} sentences of {len(_pooled(variant))} languages together"


def _dataset_name(training: Training) -> str:
    if training.dataset in dataset.NAMES:
        return dataset.HUB_ID if training.dataset == "paradetox" else "the bundled sample of X-DET Lab"
    return f"pairs of a local folder, `{_plain(Path(training.dataset).name)}`"


def _numbers(cells: pd.DataFrame) -> list[tuple[str, ...]]:
    """The rows of the table of results: a language and scorer each."""
    fluency = {cell["eval_lang"]: cell for cell in _records(cells, Metric.PERPLEXITY_BASE)}
    rows: list[tuple[str, ...]] = []
    for cell in _records(cells, Metric.TOXICITY):
        fluent = fluency.get(cell["eval_lang"], {})
        rows.append(
            (
                *(Language(cell["eval_lang"]).facts.name, cell["scorer"], _number(cell["baseline"])),
                *(_delta(cell), _interval(cell), str(cell["n_pairs"]), cell["verdict"]),
                *(_delta(fluent), _interval(fluent)),
            )
        )
    return rows


def _degenerate(toxicity: pd.DataFrame) -> list[dict[str, object]]:
    """scorer, reason and languages of the degenerate cells."""
    cells = toxicity[toxicity["verdict"] == Verdict.DEGENERATE]
    return [
        {"scorer": scorer, "reason": reason, "languages": [Language(lang).facts.name for lang in group["eval_lang"]]}
        for (scorer, reason), group in cells.groupby(["scorer", "verdict_reason"])
    ]


def _gap(scorer: Mapping[Hashable, Any]) -> tuple[str, str] | None:
    """A scorer's mean of neutral sentences in training and held out, × 100; None where it is not measured."""
    train, test = scorer["neutral_train"], scorer["neutral_test"]
    return None if pd.isna(train) or pd.isna(test) else (f"{train:.1f}", f"{test:.1f}")


def _plain(name: str) -> str:
    """A name from outside as one word of Markdown."""
    return "".join(c if c.isalnum() or c in "-_. " else "-" for c in name)


def _records(cells: pd.DataFrame, metric: Metric) -> list[dict[Hashable, Any]]:
    return cells[cells["metric"] == metric].to_dict("records")


def _number(number: float | None) -> str:
    return NONE if number is None or pd.isna(number) else f"{number:.{DIGITS}f}"


def _delta(cell: Mapping[Hashable, Any], end: str = "delta") -> str:
    bound = cell.get(end)
    return NONE if bound is None or pd.isna(bound) else f"{bound:+.{DIGITS}f}"


def _interval(cell: Mapping[Hashable, Any]) -> str:
    low, high = _delta(cell, "ci_low"), _delta(cell, "ci_high")
    return NONE if NONE in (low, high) else f"{low} to {high}"
