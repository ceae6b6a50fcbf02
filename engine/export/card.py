"""The model card of an exported adapter: what it learnt, the numbers of the results file, whose licence, which limits.

Markdown under the hub's YAML. It says nothing that is not in the adapter's meta.json or in the results file.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from engine import store
from engine.analysis.metrics import MIN_PAIRS_FOR_VERDICT
from engine.analysis.statistics import CONFIDENCE
from engine.config import EMBEDDED_MODEL, PROMPT
from engine.data import dataset
from engine.model.registry import KNOWN_BASES
from engine.vocabulary import STRATEGY_NAMES, Language, Metric, Split, Strategy, Variant, Verdict

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
COLUMNS = ("Language", "Scorer", "Zero-shot", "Δ toxicity", "Interval", "n", "Verdict", "Δ perplexity", "Interval")
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
    has measured it. `others`: how many more runs have."""

    run_id: str
    cells: pd.DataFrame
    scorers: pd.DataFrame
    others: int

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
    return Measurements(run_id, headline[headline["run_id"] == run_id], store.scorers(db, run_id), len(prompts) - 1)


def base_name(variant: Variant) -> str:
    """The hub's id of a base where we know it, else our own name for it."""
    known = KNOWN_BASES.get(variant.model)
    return known.hub_id if known and known.hub_id else variant.model


def card_text(training: Training, measurements: Measurements, merged: bool) -> str:
    """The whole card. `merged`: of the model that is base and adapter in one."""
    from huggingface_hub import ModelCardData

    variant = training.variant
    known = KNOWN_BASES.get(variant.model)
    data = ModelCardData(
        base_model=base_name(variant),
        library_name="transformers" if merged else "peft",
        license=known.licence if known else "unknown",
        language=[lang.value for lang in _langs(variant)],
        pipeline_tag="text2text-generation" if training.is_encoder_decoder else "text-generation",
        tags=["lora", "detoxification", variant.strategy.value.lower(), "x-det-lab"],
        datasets=[dataset.HUB_ID] if training.dataset == "paradetox" else None,
        base_model_relation="finetune" if merged else "adapter",
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {variant.model}, {STRATEGY_NAMES[variant.strategy]} ({variant.strategy}) on {_learnt(training)}",
        _about(training, merged),
        "## Training",
        _training(training),
        "## Numbers",
        *_numbers(measurements),
        "## Licence",
        _licence(variant),
        "## Limits",
        "\n".join(f"* {limit}" for limit in _limits(training, measurements, merged)),
    ]
    return "\n\n".join(parts) + "\n"


def _langs(variant: Variant) -> list[Language]:
    return [Language(str(variant.train_lang))] if variant.strategy is Strategy.X_FT else list(Language)


def _learnt(training: Training) -> str:
    variant, kind = training.variant, "toxic and neutral" if training.is_encoder_decoder else "neutral"
    if variant.strategy is Strategy.X_FT:
        return f"{kind} {_langs(variant)[0].facts.name} sentences"
    share = f"{100 * (variant.train_fraction or 0):g} % of the " if variant.strategy is Strategy.P_FT else ""
    return f"{share}{kind} sentences of nine languages together"


def _about(training: Training, merged: bool) -> str:
    kind = "Seq2SeqLM" if training.is_encoder_decoder else "CausalLM"
    name = base_name(training.variant)
    if merged:
        what = f"**{name}** with a LoRA adapter merged into it"
        code = f'model = AutoModelFor{kind}.from_pretrained("this folder")\n'
        code += 'tokenizer = AutoTokenizer.from_pretrained("this folder")'
    else:
        what = f"A LoRA adapter for **{name}**"
        code = f'base = AutoModelFor{kind}.from_pretrained("{name}")\n'
        code += 'model = PeftModel.from_pretrained(base, "this folder")\n'
        code += f'tokenizer = AutoTokenizer.from_pretrained("{name}")'
    imports = "" if merged else "from peft import PeftModel\n"
    return (
        f"{what}, made by X-DET Lab to measure whether fine-tuning on neutral text makes a multilingual model less "
        f"toxic, also in languages that it was not tuned in. A research artefact, not a safe model.\n\n"
        f"```python\n{imports}from transformers import AutoModelFor{kind}, AutoTokenizer\n\n{code}\n```"
    )


def _training(training: Training) -> str:
    variant, h = training.variant, training.variant.hyperparameters
    assert h is not None
    if training.dataset in dataset.NAMES:
        name = f"{dataset.HUB_ID}" if training.dataset == "paradetox" else "the bundled sample of X-DET Lab"
    else:
        name = f"pairs of a local folder, `{_plain(Path(training.dataset).name)}`"
    limit = "all" if variant.limit_train is None else f"the first {variant.limit_train}"
    loss = NONE if training.final_loss is None else f"{training.final_loss:.4f} nats per token"
    sentences = "toxic ones, to be rewritten as their neutral ones" if training.is_encoder_decoder else "neutral ones"
    rows = {
        "Data set": f"{name}, content hash `{variant.dataset_hash}`",
        "Languages": ", ".join(lang.facts.name for lang in _langs(variant)),
        "Sentences": f"{training.texts:,} {sentences} ({limit} training pairs of a language)",
        "Format": str(variant.training_format),
        "Base": f"{variant.model}, revision `{variant.revision}`, computed in {variant.dtype}",
        "LoRA": f"rank {h.rank}, alpha {h.alpha}, dropout {h.dropout:g}, on {', '.join(h.targets)}",
        "Optimisation": f"{h.epochs} epochs, batches of {h.batch_size}, learning rate {h.learning_rate:g} falling "
        f"linearly to 0, gradients clipped to {h.max_grad_norm:g}, at most {h.max_tokens} tokens a sentence",
        "Steps": f"{training.steps:,}; loss of the last one: {loss}",
        "Seed": str(variant.seed),
        "Finished": training.finished_at,
        "Versions": ", ".join(f"{package} {version}" for package, version in training.versions.items()) or NONE,
        "Variant": f"`{variant.variant_id}`",
    }
    return _table(("", ""), [(key, word) for key, word in rows.items()])


def _numbers(measurements: Measurements) -> list[str]:
    if not measurements.n_langs:
        return [f"None: no run in the results file that this card was made from has measured it on {HEADLINE} prompts."]
    lines = (
        f"Run `{measurements.run_id}`, split {HEADLINE}, prompted with “{PROMPT.format(sentence='…')}”. Δ is zero-shot "
        "− this one, paired by prompt: above 0 is less toxic, or more fluent. Toxicity is × 100. Δ perplexity is in "
        "nats per token of what was written, judged by the bare base. Intervals hold "
        f"{100 * CONFIDENCE:g} %, over prompts; n is the prompts valid in both. The verdict `ok` says that a number "
        "counts; whether it differs from 0 says its interval."
    )
    more = f" {measurements.others} more of the runs there have measured it." if measurements.others else ""
    fluency = {cell["eval_lang"]: cell for cell in _records(measurements.cells, Metric.PERPLEXITY_BASE)}
    rows = []
    for cell in _records(measurements.cells, Metric.TOXICITY):
        fluent = fluency.get(cell["eval_lang"], {})
        rows.append(
            (
                *(Language(cell["eval_lang"]).facts.name, cell["scorer"], _number(cell["baseline"])),
                *(_delta(cell), _interval(cell), str(cell["n_pairs"]), cell["verdict"]),
                *(_delta(fluent), _interval(fluent)),
            )
        )
    return [lines + more, _table(COLUMNS, rows)]


def _licence(variant: Variant) -> str:
    known = KNOWN_BASES.get(variant.model)
    words = LICENCES.get(known.licence if known else "")
    if words is None:
        return f"That of the base, {base_name(variant)}, which is not known here: see its own card."
    return f"That of the base, {base_name(variant)}: {words}."


def _limits(training: Training, measurements: Measurements, merged: bool) -> list[str]:
    variant = training.variant
    limits = []
    if variant.model == EMBEDDED_MODEL:
        limits.append(
            f"The base it was trained over is {base_name(variant)} from 4-bit weights, unpacked: over the original "
            "weights its numbers differ. It is small and repetitive, and **its Amharic is not usable**."
        )
    if merged:
        limits.append(
            "The numbers were measured with the adapter beside the base; merging rounds it to the base's dtype."
        )
    limits.append(f"One training seed ({variant.seed}): intervals speak of prompts, not of training luck.")
    toxic = measurements.cells[measurements.cells["metric"] == Metric.TOXICITY]
    if len(toxic):
        few, most = int(toxic["n_pairs"].min()), int(toxic["n_pairs"].max())
        verdicts = f"; below {MIN_PAIRS_FOR_VERDICT} there is no verdict" if few < MIN_PAIRS_FOR_VERDICT else ""
        limits.append(f"{few if few == most else f'{few} to {most}'} prompts per language{verdicts}.")
    for (scorer, why), cells in toxic[toxic["verdict"] == Verdict.DEGENERATE].groupby(["scorer", "verdict_reason"]):
        langs = ", ".join(Language(lang).facts.name for lang in cells["eval_lang"])
        limits.append(f"Degenerate in {langs} (`{scorer}`): {why}. A low toxicity there is no detoxification.")
    limits += [_circularity(row) for row in measurements.scorers.to_dict("records")]
    limits.append("A score is one classifier's view of toxicity, and uneven over languages. It is not safety.")
    return limits


def _circularity(gap: Mapping[Hashable, Any]) -> str:
    text = f"The scorer `{gap['scorer']}` may have learnt from the same sentences as this model, and then flatters it"
    train, test = gap["neutral_train"], gap["neutral_test"]
    if pd.isna(train) or pd.isna(test):
        return f"{text}; by how much is not known."
    return f"{text}: it gives neutral training sentences {train:.1f}, neutral test sentences {test:.1f} (× 100)."


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


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
