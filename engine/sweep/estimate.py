"""The cost of a plan: rows, tokens, seconds, memory and disk. Estimates, and called so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from engine import store
from engine.config import AUTO, PAPER, VLLM, Sweep
from engine.data import dataset
from engine.data.splits import TEST_PAIRS, TRAIN_PAIRS
from engine.errors import DatasetError, StoreError
from engine.generate import has_vllm
from engine.lora import adapter_run, adapters
from engine.model import registry
from engine.model.machine import H100, H100_RATES, Machine, asked_outside
from engine.model.shape import Shape
from engine.sweep import memory
from engine.sweep.plan import BasePlan, Plan, Unit, assemble, columns_of, needed_langs
from engine.sweep.search import BaseSearch
from engine.vocabulary import Language, Pair, Split

CHARACTERS_PER_TOKEN = 3.5
"""Of the embedded base on the nine languages, on average."""

PASSES_OF_PERPLEXITY = 2
"""A completion is read twice more: by the variant that wrote it, and by the base."""

TRAINING_REST, WRITING_REST = 5.1e-9, 1.9e-9
"""Seconds for each number that a token becomes, besides matrix products, on a CPU: measured on two cores, where
bfloat16 and float32 differ little."""

TRAINING_SHARE, WRITING_SHARE = 0.65, 0.55
"""What a GPU reaches of the rate of its matrix products: measured on an H200 (bench/RESULTS.md, on a GPU)."""

STEP_TOKENS = {"cpu": 0, "cuda": 190}
"""What a training step costs whatever it learns, in tokens: a GPU reads all weights for a few sentences too."""

FIXED_SECONDS, SCORING_SECONDS = 10.0, 1.0
"""To load a base; to score a language and make its cells."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a plan on its machine. Seconds, of each base; bytes. `embeddings`: sentences × variants, where asked
    for. `adapters_there` and `units_there`: finished already."""

    variants: int
    settings: int
    units: int
    units_there: int
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
    needed = needed_langs(sweep)
    try:
        data = dataset.load(sweep.dataset, needed, columns_of(sweep), sweep.allow_overlap)
    except DatasetError as error:
        if sweep.dataset != "paradetox":
            raise
        data = _assumed_base(sweep.dataset, needed)
        notes.append(f"sizes are the paper's, 300 + 100 pairs per language: {error}")
    bases = registry.resolve_all(sweep.models, registry.describe, sweep.lora_targets)
    machine = asked_outside()
    if sweep.name == PAPER and machine.kind != "cuda":
        seconds_here = sum(estimate(assemble(sweep, data, bases, machine)).seconds)
        notes.append(
            f"{H100.name} is assumed, at {H100_RATES['bfloat16'] / 1e12:.0f} TFLOP/s, with requirements-gpu.txt; "
            f"here, without a GPU, it would take about {seconds_here / 86400:,.0f} days."
        )
        machine = H100
        sweep = replace(sweep, backend=VLLM if sweep.backend == AUTO else sweep.backend)
    plan = assemble(sweep, data, bases, machine)
    if machine != H100 and any(base.backend == VLLM for base in plan.bases) and not has_vllm():
        notes.append(
            "vLLM is not installed here, so the sweep would not start. See README, or give --backend transformers."
        )
    return plan, estimate(plan, notes)


def estimate(plan: Plan, notes: Sequence[str] = ()) -> Estimate:
    """The cost of a plan; adapters and units that are finished cost nothing more."""
    sweep, seconds = plan.sweep, []
    prompts = sum(len(plan.splits.prompt_pairs(part, lang)) for part in sweep.splits for lang in sweep.eval_langs)
    finished = _finished_units(plan)
    units = units_there = adapters_there = rows = completions = embeddings = 0
    sentences = _sentences(plan) if sweep.represent else []
    for base in plan.bases:
        n, learnt, steps = len(base.variants), 0, [0]
        for variant in base.trained:
            if adapters.trouble(adapters.folder_of(sweep.adapters, variant), variant) is None:
                adapters_there += 1
            elif variant.hyperparameters:
                pairs, epochs = plan.splits.training_pairs(variant), variant.hyperparameters.epochs
                rows += len(pairs) * epochs
                learnt += _tokens(adapter_run.texts(base.base, pairs)) * epochs
                steps.append(adapter_run.steps(variant.hyperparameters, len(pairs)))
        planned = [unit for lang in sweep.eval_langs for unit in plan.units(lang, base)]
        missing = [u for u in planned if u.unit_id(sweep.sampling, base.backend, base.variants) not in finished]
        units, units_there = units + len(planned), units_there + len(planned) - len(missing)
        completions += n * sum(len(unit.items) for unit in planned)
        embeddings += n * len(sentences)
        # Where runs end, others go on alone.
        passes = max(*steps, ceil(sum(steps) / max(1, base.max_concurrent)))
        learnt += passes * STEP_TOKENS[plan.machine.kind]
        seconds.append(_seconds(plan, base, learnt, missing, sentences))
    return Estimate(
        variants=sum(len(base.variants) for base in plan.bases),
        settings=plan.settings,
        units=units,
        units_there=units_there,
        training_rows=rows,
        prompts=prompts,
        completions=completions,
        new_tokens=completions * sweep.sampling.max_new_tokens,
        adapters_there=adapters_there,
        embeddings=embeddings,
        seconds=tuple(seconds),
        disk=sum(_disk(base) for base in plan.bases) + completions * 400,
        notes=tuple(notes),
    )


def _finished_units(plan: Plan) -> set[str]:
    """What the results file has of the run; nothing where it is absent, or not to be read now."""
    try:
        return store.finished_units(plan.sweep.db, plan.run_id)
    except StoreError:
        return set()


def _seconds(plan: Plan, base: BasePlan, learnt: int, missing: Sequence[Unit], sentences: Sequence[str]) -> float:
    """To learn so many tokens, to write the missing units and to embed the sentences under every variant."""
    n, items = len(base.variants), [item for unit in missing for item in unit.items]
    if not (learnt or items or sentences):
        return 0.0
    neutral = {i.pair.neutral for i in items if i.stream.split is Split.NEUTRAL_TEST}
    new = n * len(items) * plan.sweep.sampling.max_new_tokens
    predicted = new * (1 + PASSES_OF_PERPLEXITY) + n * _tokens(list(neutral))
    read = n * (_tokens([item.prompt for item in items]) + _tokens(sentences))
    speed, shape = _speed(plan.dtype, plan.machine), base.base.shape
    scoring = SCORING_SECONDS * len({unit.eval_lang for unit in missing})
    return FIXED_SECONDS + scoring + speed.training(shape, learnt) + speed.writing(shape, predicted + read, predicted)


def _disk(base: BasePlan) -> float:
    """Of a base's adapters."""
    ranks = [variant.hyperparameters.rank for variant in base.trained if variant.hyperparameters]
    return sum(memory.adapter_bytes(base.base, rank) for rank in ranks)


def search_seconds(search: BaseSearch) -> float:
    """What the search of a base takes on this machine: training alone, which is nearly all of it."""
    passes = search.cost * len(search.points) * search.search.epochs
    tokens = _tokens(adapter_run.texts(search.base, search.learnt)) * passes
    return FIXED_SECONDS + _speed(search.dtype, search.machine).training(search.base.shape, tokens)


@dataclass(frozen=True)
class Speed:
    """Of a machine: floating-point operations per second in matrix products of training and of writing, and the seconds
    that the rest takes for each number that a token becomes, where it is counted apart."""

    products: tuple[float, float]
    rest: tuple[float, float]

    def training(self, shape: Shape, tokens: float) -> float:
        """Seconds to learn so many tokens, there and back."""
        return 2 * self._pass(shape, tokens, tokens, 0)

    def writing(self, shape: Shape, tokens: float, predicted: float) -> float:
        """Seconds to read so many tokens, and to predict so many of them: what is written, and what is judged."""
        return self._pass(shape, tokens, predicted, 1)

    def _pass(self, shape: Shape, tokens: float, predicted: float, kind: int) -> float:
        operations = 2 * (shape.layer_parameters * tokens + shape.head_parameters * predicted)
        numbers = shape.activations * tokens + shape.vocab_size * predicted
        return operations / self.products[kind] + numbers * self.rest[kind]


def _speed(dtype: str, machine: Machine) -> Speed:
    rate = machine.rates[dtype]
    if machine.kind == "cpu":
        return Speed((rate, rate), (TRAINING_REST, WRITING_REST))
    return Speed((TRAINING_SHARE * rate, WRITING_SHARE * rate), (0.0, 0.0))


def _tokens(texts: Sequence[str]) -> int:
    return sum(ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts)


def _sentences(plan: Plan) -> list[str]:
    parts = [plan.splits.parts(lang) for lang in plan.sweep.eval_langs]
    return [side for part in parts for pairs in part.values() for pair in pairs for side in (pair.toxic, pair.neutral)]


def _assumed_base(name: str, langs: Sequence[Language]) -> dataset.Dataset:
    sentence = Pair("x" * 65, "x" * 60)
    train = {lang: (sentence,) * TRAIN_PAIRS for lang in langs}
    test = {lang: (sentence,) * TEST_PAIRS for lang in langs}
    return dataset.Dataset(name, train, test, "unknown", dataset.BY_AUTHORS)
