"""What a plan will cost, before anything heavy: rows, tokens, seconds, memory and disk. Estimates, and called so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from engine.config import AUTO, PAPER, VLLM, Sweep
from engine.data import dataset
from engine.data.splits import TEST_PAIRS, TRAIN_PAIRS
from engine.errors import DatasetError
from engine.lora import adapter_run, adapters
from engine.model import registry
from engine.model.machine import CUDA_RATES, H100, Machine, at_hand
from engine.model.shape import Shape
from engine.sweep import memory, plan
from engine.sweep.plan import Plan
from engine.sweep.search import BaseSearch
from engine.vocabulary import Language, Pair, Split

CHARACTERS_PER_TOKEN = 3.5
"""Of the embedded base on the nine languages, on average."""

PASSES_OF_PERPLEXITY = 2
"""A completion is read twice more: by the variant that wrote it, and by the base."""

TRAINING_REST, WRITING_REST = 5.1e-9, 1.9e-9
"""Seconds for each number that a token becomes, besides matrix products, on a CPU: measured on two cores, where
bfloat16 and float32 differ little."""

FIXED_SECONDS, SCORING_SECONDS = 10.0, 1.0
"""To load a base; to score a language and make its cells."""


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
    bases = registry.resolve_all(sweep.models, registry.describe)
    machine = at_hand()
    if sweep.name == PAPER and machine.kind != "cuda":
        here = sum(estimate(plan.assemble(sweep, data, bases, machine)).seconds)
        notes.append(
            f"{H100.name} is assumed, at {CUDA_RATES['bfloat16'] / 1e12:.0f} TFLOP/s, with requirements-gpu.txt; "
            f"here, without a GPU, it would take about {here / 86400:,.0f} days."
        )
        machine = H100
        sweep = replace(sweep, backend=VLLM if sweep.backend == AUTO else sweep.backend)
    made = plan.assemble(sweep, data, bases, machine)
    return made, estimate(made, notes)


def estimate(made: Plan, notes: Sequence[str] = ()) -> Estimate:
    """The cost of a plan; adapters that are finished cost nothing more."""
    sweep, seconds = made.sweep, []
    prompts = sum(len(made.splits.prompted(part, lang)) for part in sweep.splits for lang in sweep.eval_langs)
    rows = 0.0
    completions = units = there = embeddings = 0
    sentences = _sentences(made) if sweep.represent else []
    for base in made.bases:
        n, learnt = len(base.variants), 0
        units += sum(len(made.units(lang, base)) for lang in sweep.eval_langs)
        for variant in base.trained:
            if adapters.trouble(adapters.folder_of(sweep.adapters, variant), variant) is None:
                there += 1
            elif variant.hyperparameters:
                texts = adapter_run.texts(base.base, made.splits.training_pairs(variant))
                rows += len(made.splits.training_pairs(variant)) * variant.hyperparameters.epochs
                learnt += _tokens(texts) * variant.hyperparameters.epochs
        written = prompts * n * sweep.samples_per_prompt
        completions += written
        new = written * sweep.sampling.max_new_tokens
        predicted = new * (1 + PASSES_OF_PERPLEXITY) + n * _tokens(_neutral(made))
        read = n * (_prompt_tokens(made) + _tokens(sentences))
        embeddings += n * len(sentences)
        speed = _speed(made.dtype, made.machine)
        seconds.append(
            FIXED_SECONDS
            + SCORING_SECONDS * len(sweep.eval_langs)
            + speed.training(base.base.shape, learnt)
            + speed.writing(base.base.shape, predicted + read, predicted)
        )
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
    return sum(memory.adapter_bytes(base.base, rank) for rank in ranks)


def search_seconds(made: BaseSearch) -> float:
    """What the search of a base takes on this machine: training alone, which is nearly all of it."""
    passes = made.cost * len(made.points) * made.search.epochs
    tokens = _tokens(adapter_run.texts(made.base, made.learnt)) * passes
    return FIXED_SECONDS + _speed(made.dtype, made.machine).training(made.base.shape, tokens)


@dataclass(frozen=True)
class Speed:
    """Of a machine: floating-point operations per second in matrix products, and the seconds that the rest takes for
    each number that a token becomes, in training and in writing."""

    products: float
    training_rest: float
    writing_rest: float

    def training(self, shape: Shape, tokens: float) -> float:
        """Seconds to learn so many tokens, there and back."""
        return 2 * self._pass(shape, tokens, tokens, self.training_rest)

    def writing(self, shape: Shape, tokens: float, predicted: float) -> float:
        """Seconds to read so many tokens, and to predict so many of them: what is written, and what is judged."""
        return self._pass(shape, tokens, predicted, self.writing_rest)

    def _pass(self, shape: Shape, tokens: float, predicted: float, rest: float) -> float:
        operations = 2 * (shape.layer_parameters * tokens + shape.head_parameters * predicted)
        numbers = shape.activations * tokens + shape.vocabulary * predicted
        return operations / self.products + numbers * rest


def _speed(dtype: str, machine: Machine) -> Speed:
    rest = (TRAINING_REST, WRITING_REST) if machine.kind == "cpu" else (0.0, 0.0)
    return Speed(machine.rates[dtype.partition("-")[0]], *rest)


def _tokens(texts: Sequence[str]) -> int:
    return sum(ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts)


def _prompt_tokens(made: Plan) -> int:
    return _tokens([prompt for _, _, _, prompt in plan.prompts_of(made)]) * made.sweep.samples_per_prompt


def _neutral(made: Plan) -> list[str]:
    """The sentences whose likelihood every variant is asked for."""
    if Split.NEUTRAL_TEST not in made.sweep.splits:
        return []
    langs = made.sweep.eval_langs
    return [pair.neutral for lang in langs for pair in made.splits.prompted(Split.NEUTRAL_TEST, lang)]


def _sentences(made: Plan) -> list[str]:
    parts = [made.splits.parts(lang) for lang in made.sweep.eval_langs]
    return [side for part in parts for pairs in part.values() for pair in pairs for side in (pair.toxic, pair.neutral)]


def _assumed(name: str, langs: Sequence[Language]) -> dataset.Dataset:
    sentence = Pair("x" * 65, "x" * 60)
    train = {lang: (sentence,) * TRAIN_PAIRS for lang in langs}
    test = {lang: (sentence,) * TEST_PAIRS for lang in langs}
    return dataset.Dataset(name, train, test, "unknown", dataset.BY_AUTHORS)
