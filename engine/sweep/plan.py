"""A sweep → its plan: the variants, how many train at once, and the units of the evaluation. Nothing heavy is loaded.

The plan fixes the composition of every unit, because floating point depends on what shares a batch: a resumed run
repeats whole units, and gives the same text to the last bit on the same machine.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from engine.config import AUTO, BFLOAT16, FLOAT32, ROWS_PER_UNIT, TRANSFORMERS, VLLM, Sweep, prompt_of
from engine.data import dataset
from engine.data.splits import Splits, split
from engine.errors import ModelError, UsageError
from engine.generate import has_vllm
from engine.lora import adapter_run
from engine.model import registry
from engine.model.machine import Machine, at_hand
from engine.model.registry import Base
from engine.sweep import search
from engine.sweep.memory import MAX_SHARE, Memory, MemoryEstimate
from engine.vocabulary import Language, Pair, Sampling, Split, Strategy, Stream, Variant, digest, variants_of

UNIT_FORMAT = "3"
"""Part of every unit's identity: raise it when the same plan would write other text."""


@dataclass(frozen=True)
class Item:
    """One prompt of a unit, to be completed by every variant: its stream's key, and the pair it is one side of."""

    stream: Stream
    pair: Pair
    template: str
    is_chat: bool

    @property
    def prompt(self) -> str:
        return prompt_of(self.pair.prompt_side(self.stream.split), self.template)


@dataclass(frozen=True)
class Unit:
    """A block of prompts in one language, completed by all variants of a base and committed whole."""

    eval_lang: Language
    items: tuple[Item, ...]

    def unit_id(self, sampling: Sampling, backend: str, variants: Sequence[Variant]) -> str:
        """The identity of what these variants write here: the same in any run."""
        content = [
            UNIT_FORMAT,
            [v.variant_id for v in variants],
            [[asdict(item.stream), item.prompt, *(["chat"] if item.is_chat else [])] for item in self.items],
            asdict(sampling),
            backend,
        ]
        return digest(content, 16)


@dataclass(frozen=True)
class BasePlan:
    """What is done with one base. `max_concurrent`: how many of its adapters are trained at once, in passes of
    `tokens_per_pass`. `backend`: what generates, `rows` at once. `training` and `generation`: the memory they need."""

    base: Base
    variants: tuple[Variant, ...]
    max_concurrent: int
    tokens_per_pass: int
    backend: str
    rows: int
    training: MemoryEstimate
    generation: MemoryEstimate

    @property
    def trained(self) -> list[Variant]:
        return [v for v in self.variants if v.strategy is not Strategy.ZS]

    @property
    def zero_shot(self) -> Variant | None:
        return next((v for v in self.variants if v.strategy is Strategy.ZS), None)


@dataclass(frozen=True)
class Plan:
    """A whole run: its bases, its text, and the identity that makes the same plan the same run."""

    sweep: Sweep
    data: dataset.Dataset
    splits: Splits
    bases: tuple[BasePlan, ...]
    dtype: str
    machine: Machine

    @property
    def run_id(self) -> str:
        s = self.sweep
        shaping = [
            [v.variant_id for base in self.bases for v in base.variants],
            [self.data.content_hash, s.limit_train, s.limit_eval, s.eval_langs, s.splits, s.samples_per_prompt, s.seed],
            [s.prompt, asdict(s.sampling), *sorted({base.backend for base in self.bases}), UNIT_FORMAT],
        ]
        if s.chat_template:
            shaping.append(["chat"])
        return digest(shaping)

    @property
    def precision(self) -> str:
        """What the weights are: the dtype, and what they are rounded to."""
        return precision_of(self.dtype, self.sweep.quantization)

    @property
    def settings(self) -> int:
        return sum(len(base.variants) for base in self.bases) * len(self.sweep.eval_langs)

    def units(self, eval_lang: Language, base: BasePlan) -> list[Unit]:
        """The units of one language under a base, in order."""
        s = self.sweep
        items = [
            Item(Stream(s.seed, eval_lang, part, index, sample), pair, s.prompt, s.chat_template)
            for part in s.splits
            for index, pair in enumerate(self.splits.prompt_pairs(part, eval_lang))
            for sample in range(s.samples_per_prompt)
        ]
        size = max(1, ROWS_PER_UNIT[base.backend] // len(base.variants))
        return [Unit(eval_lang, tuple(items[i : i + size])) for i in range(0, len(items), size)]

    def unit_ids(self, base: BasePlan, variants: Sequence[Variant]) -> set[str]:
        """The identities of all that these variants of a base write."""
        units = [unit for lang in self.sweep.eval_langs for unit in self.units(lang, base)]
        return {unit.unit_id(self.sweep.sampling, base.backend, variants) for unit in units}


def make(sweep: Sweep) -> Plan:
    """Reads the data set and finds the bases. Errors: UsageError, DatasetError, ModelError; nothing is started."""
    data = dataset.load(sweep.dataset, needed_langs(sweep), columns_of(sweep), sweep.allow_overlap)
    plan = assemble(sweep, data, registry.resolve_all(sweep.models, lora_targets=sweep.lora_targets), at_hand())
    check_fits(plan)
    if any(base.backend == VLLM for base in plan.bases) and not has_vllm():
        raise UsageError(
            "--backend vllm: vLLM is not installed. Run `pip install -r requirements-gpu.txt` (without a GPU: "
            "`make vllm`, then .venv-vllm/bin/python run_sweep.py), or give --backend transformers."
        )
    return plan


def check_fits(plan: Plan) -> None:
    """Errors: ModelError when a base needs more memory than there is."""
    available = plan.machine.memory
    for base in plan.bases:
        for doing, need in (("training", base.training if base.trained else None), ("generation", base.generation)):
            if need is not None and need.total > MAX_SHARE * available:
                raise ModelError(
                    f"{base.base.name}: {doing} needs about {need}, and {plan.machine.name} has "
                    f"{available / 1e9:.1f} GB. Give --models a smaller base, or run it on a machine with more memory"
                    + ("." if plan.machine.kind == "cuda" else ", best with a GPU.")
                )


def backend_of(base: Base, backend: str, machine: Machine) -> str:
    """What generates with a base: `backend`, or our own where vLLM takes no adapters of it.

    `auto` is vLLM where it is installed and there is a GPU.
    """
    if backend == AUTO:
        backend = VLLM if has_vllm() and machine.kind == "cuda" else TRANSFORMERS
    return backend if base.facts.vllm else TRANSFORMERS


def dtype_of(dtype: str, machine: Machine) -> str:
    """What the bases compute in; `auto` is bfloat16 where the machine has it in hardware."""
    if dtype == BFLOAT16 and machine.dtype == FLOAT32:
        warnings.warn(
            f"--dtype bfloat16: {machine.name} has no bfloat16 in hardware; float32 is several times as fast.",
            stacklevel=2,
        )
    return machine.dtype if dtype == AUTO else dtype


def precision_of(dtype: str, quantization: str | None) -> str:
    """As a variant has it: 'bfloat16', or 'bfloat16-nf4'."""
    return f"{dtype}-{quantization}" if quantization else dtype


def assemble(sweep: Sweep, data: dataset.Dataset, bases: Sequence[Base], machine: Machine) -> Plan:
    """The plan of a sweep over this data set and these bases, on such a machine."""
    splits = split(data.train, data.test, sweep.limit_train, sweep.limit_eval)
    dtype = dtype_of(sweep.dtype, machine)
    base_plans = []
    for base in bases:
        h = sweep.hyperparameters
        if sweep.from_search:
            h = search.best_hyperparameters(sweep.db, base, data.content_hash, h)
        trained = Variant(
            model=base.name,
            revision=base.revision,
            dtype=precision_of(dtype, sweep.quantization),
            strategy=Strategy.M_FT,
            dataset_hash=data.content_hash,
            limit_train=sweep.limit_train,
            seed=sweep.seed,
            hyperparameters=replace(h, targets=base.targets),
            training_format=adapter_run.training_format(base),
        )
        variants = tuple(variants_of(trained, sweep.strategies, sweep.train_langs, sweep.languages))
        steps = [
            adapter_run.steps(v.hyperparameters, len(splits.training_pairs(v))) for v in variants if v.hyperparameters
        ]
        needs = Memory(base, dtype, h.rank, machine)
        max_concurrent = needs.max_concurrent(steps, h.batch_size)
        tokens = needs.tokens_per_pass(max_concurrent)
        backend = TRANSFORMERS if sweep.quantization else backend_of(base, sweep.backend, machine)
        rows = ROWS_PER_UNIT[VLLM]
        if backend == TRANSFORMERS:
            rows = needs.rows(len(variants))
        training = needs.training(max_concurrent, tokens)
        # vLLM takes what is left for keys and values, so that it needs them for one row.
        generation = needs.generation(len(variants), 1 if backend == VLLM else rows)
        base_plans.append(BasePlan(base, variants, max_concurrent, tokens, backend, rows, training, generation))
    return Plan(sweep, data, splits, tuple(base_plans), dtype, machine)


def columns_of(sweep: Sweep) -> tuple[str, str]:
    """Of the toxic and the neutral sentences in tables."""
    return sweep.toxic_column, sweep.neutral_column


def needed_langs(sweep: Sweep) -> tuple[Language, ...]:
    """The languages that a sweep cannot do without."""
    if {Strategy.P_FT, Strategy.M_FT} & set(sweep.strategies):
        return tuple(dict.fromkeys([*sweep.languages, *sweep.train_langs, *sweep.eval_langs]))
    trained = sweep.train_langs if Strategy.X_FT in sweep.strategies else ()
    return tuple(lang for lang in Language if lang in {*trained, *sweep.eval_langs})


def sentences_of(plan: Plan) -> list[tuple[Language, Split, int, str]]:
    """(eval_lang, split, prompt_index, sentence) of everything the run prompts with."""
    return [
        (lang, part, index, pair.prompt_side(part))
        for lang in plan.sweep.eval_langs
        for part in plan.sweep.splits
        for index, pair in enumerate(plan.splits.prompt_pairs(part, lang))
    ]
