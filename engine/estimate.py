"""What a plan will cost, before anything heavy: rows, tokens, seconds, memory and disk. Estimates, and called so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from engine import adapters, capacity, dataset, models, plan, train
from engine.capacity import H100, Machine
from engine.config import AUTO, PAPER, VLLM, Sweep
from engine.errors import DatasetError
from engine.plan import Plan
from engine.search import BaseSearch
from engine.splits import TEST_PAIRS, TRAIN_PAIRS
from engine.vocabulary import Language, Pair

CHARACTERS_PER_TOKEN = 3.5
"""Of the embedded base on the nine languages, on average."""

PASSES_OF_PERPLEXITY = 2
"""A completion is read twice more: by the variant that wrote it, and by the base."""

RATES = {"cpu": {"bfloat16": 110e9, "float32": 35e9}, "cuda": {"bfloat16": 150e12, "float32": 20e12}}
"""Floating-point operations a second that a sweep gets out of one core (cpu), measured, or one device (cuda), assumed:
a fifth of what matrix products alone reach on an H100 (798e12 in bfloat16)."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a plan on its machine. Seconds, of each base; bytes. `embeddings`: sentences × variants, where asked
    for."""

    variants: int
    settings: int
    units: int
    training_rows: int
    prompts: int
    completions: int
    new_tokens: int
    adapters_there: int
    embeddings: int
    seconds: tuple[float, ...]
    disk: float
    notes: tuple[str, ...]


def outline(sweep: Sweep) -> tuple[Plan, Estimate]:
    """The plan of a sweep and its cost, also where the hub cannot be reached: then with the paper's sizes."""
    notes = []
    needed = plan.needed_langs(sweep)
    try:
        data = dataset.load(sweep.dataset, needed)
    except DatasetError as error:
        if sweep.dataset != "paradetox":
            raise
        data = _assumed(sweep.dataset, needed)
        notes.append(f"sizes are the paper's, 300 + 100 pairs a language: {error}")
    bases = [models.describe(name) for name in sweep.models]
    machine = capacity.at_hand()
    if sweep.name == PAPER and machine.kind != "cuda":
        here = sum(estimate(plan.assemble(sweep, data, bases, machine)).seconds)
        notes.append(
            f"{H100.name} is assumed, at {RATES['cuda']['bfloat16'] / 1e12:.0f} TFLOP/s, with requirements-gpu.txt; "
            f"here, without a GPU, it would take about {here / 86400:,.0f} days."
        )
        machine = H100
        sweep = replace(sweep, backend=VLLM if sweep.backend == AUTO else sweep.backend)
    made = plan.assemble(sweep, data, bases, machine)
    return made, estimate(made, notes)


def estimate(made: Plan, notes: Sequence[str] = ()) -> Estimate:
    """The cost of a plan; adapters that are finished cost nothing more."""
    rate, sweep, seconds = _rate(made.dtype, made.machine), made.sweep, []
    prompts = sum(len(made.splits.prompted(part, lang)) for part in sweep.splits for lang in sweep.eval_langs)
    rows = 0.0
    completions = units = there = embeddings = 0
    sentences = _sentences(made) if sweep.represent else []
    for base in made.bases:
        n, operations = len(base.variants), 0.0
        units += sum(len(made.units(lang, base)) for lang in sweep.eval_langs)
        parameters = base.base.shape.parameters
        for variant in base.trained:
            if adapters.trouble(adapters.folder_of(sweep.adapters, variant), variant) is None:
                there += 1
            elif variant.hyperparameters:
                texts = train.texts(base.base, made.splits.training_pairs(variant))
                rows += len(made.splits.training_pairs(variant)) * variant.hyperparameters.epochs
                operations += 4 * parameters * _tokens(texts) * variant.hyperparameters.epochs
        written = prompts * n * sweep.samples_per_prompt
        completions += written
        new = written * sweep.sampling.max_new_tokens
        operations += 2 * parameters * (new * (1 + PASSES_OF_PERPLEXITY) + n * _prompt_tokens(made) / 2)
        embeddings += n * len(sentences)
        operations += 2 * parameters * n * _tokens(sentences)
        seconds.append(operations / rate + 15)
    return Estimate(
        variants=sum(len(base.variants) for base in made.bases),
        settings=made.settings,
        units=units,
        training_rows=round(rows),
        prompts=prompts,
        completions=completions,
        new_tokens=completions * sweep.sampling.max_new_tokens,
        adapters_there=there,
        embeddings=embeddings,
        seconds=tuple(seconds),
        disk=sum(_disk(base) for base in made.bases) + completions * 400,
        notes=tuple(notes),
    )


def _disk(base: plan.BasePlan) -> float:
    """Of a base's adapters."""
    ranks = [variant.hyperparameters.rank for variant in base.trained if variant.hyperparameters]
    return sum(capacity.adapter_bytes(base.base, rank) for rank in ranks)


def search_seconds(made: BaseSearch) -> float:
    """What the search of a base takes on this machine: training alone, which is nearly all of it."""
    text = train.texts(made.base, made.learnt)
    rows_cost = made.cost * len(made.points) * made.search.epochs
    return 4 * made.base.shape.parameters * _tokens(text) * rows_cost / _rate(made.dtype, made.machine) + 15


def _rate(dtype: str, machine: Machine) -> float:
    """Floating-point operations a second; a sweep uses one GPU, and all cores."""
    import torch

    return RATES[machine.kind][dtype.partition("-")[0]] * (1 if machine.kind == "cuda" else torch.get_num_threads())


def _tokens(texts: Sequence[str]) -> int:
    return sum(ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts)


def _prompt_tokens(made: Plan) -> int:
    return _tokens([prompt for _, _, _, prompt in plan.prompts_of(made)]) * made.sweep.samples_per_prompt


def _sentences(made: Plan) -> list[str]:
    parts = [made.splits.parts(lang) for lang in made.sweep.eval_langs]
    return [side for part in parts for pairs in part.values() for pair in pairs for side in (pair.toxic, pair.neutral)]


def _assumed(name: str, langs: Sequence[Language]) -> dataset.Dataset:
    sentence = Pair("x" * 65, "x" * 60)
    train = {lang: (sentence,) * TRAIN_PAIRS for lang in langs}
    test = {lang: (sentence,) * TEST_PAIRS for lang in langs}
    return dataset.Dataset(name, train, test, "unknown")
