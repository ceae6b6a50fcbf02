"""The two likelihoods of every completion of a sweep's unit, in batches, against one text at a time."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import bases
from bench.baselines import nll, peft_model
from bench.generate import SAMPLING, prompts, streams
from bench.harness import Contestant, Section
from engine.generate import likelihood
from engine.generate.transformers import TransformersGenerator
from engine.lora.stack import Stack
from engine.model.loading import LoadedBase

PROMPTS = 8
"""Of each variant."""

ONE_BY_ONE = 4
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}


def bench() -> Section:
    section = Section(
        "perplexity",
        "Perplexity: the completions of 14 variants in batches",
        f"What a sweep asks of {PROMPTS} prompts completed by the base ({bases.SHAPE}) and 13 adapters (50 tokens): "
        "the likelihood of each completion by itself, under the variant that wrote it, and after its prompt, under the "
        "base. Against one text at a time by PEFT and the model's own loss.",
        unit="completion",
    )
    contestants = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        written: list[tuple[int, ...]] = []
        for dtype in bases.DTYPES:
            loaded, stack = bases.load(dtype)
            adapters = bases.random_adapters(stack, 13, root)
            names = [name for name in (None, *adapters) for _ in range(PROMPTS)]
            texts = prompts(PROMPTS) * 14
            if not written:
                generator = TransformersGenerator(loaded, stack)
                completions = generator.generate(texts, names, streams(PROMPTS) * 14, SAMPLING)
                written = [completion.token_ids for completion in completions]
            ours = partial(_ours, loaded, stack, texts, written, names)
            first = slice(PROMPTS, PROMPTS + ONE_BY_ONE)  # the first adapter's
            model = peft_model(bases.plain(dtype), adapters[:1], root)
            alone = partial(_one_by_one, model, loaded, texts[first], written[first])
            pairs = zip(ours()[first], alone(), strict=True)
            worst = max(abs(a - b) / b for got, wanted in pairs for a, b in zip(got, wanted, strict=True))
            section.gate(
                f"{dtype}: the same likelihoods", worst < TOLERANCE[dtype], f"largest relative difference {worst:.1e}"
            )
            contestants += [
                Contestant(f"ours {dtype}", f"{len(texts)} completions of 14 variants", len(texts), ours),
                Contestant(f"one by one {dtype}", f"{ONE_BY_ONE} completions of 1 adapter", ONE_BY_ONE, alone),
            ]
        section.race(contestants)
    for dtype in bases.DTYPES:
        section.ratio(f"ours {dtype}", f"one by one {dtype}", 5 if bases.DEVICE == "cpu" else None)
    if "float32" in bases.DTYPES:
        section.ratio("ours bfloat16", "one by one float32", 5)
    return section


def _ours(
    loaded: LoadedBase, stack: Stack, texts: list[str], written: list[tuple[int, ...]], names: list[str | None]
) -> list[tuple[float, float]]:
    own = likelihood.of_texts(loaded, stack, written, names)
    judged = likelihood.after_prompts(loaded, stack, texts, written)
    return [(a.nll, b.nll) for a, b in zip(own, judged, strict=True)]


def _one_by_one(
    model: Any, loaded: LoadedBase, texts: Sequence[str], written: Sequence[tuple[int, ...]]
) -> list[tuple[float, float]]:
    opening = [token for token in loaded.tokenizer("")["input_ids"] if token not in loaded.end_ids]
    found = []
    for prompt, ids in zip(texts, written, strict=True):
        own = nll(model, opening, ids)
        with model.disable_adapter():
            found.append((own, nll(model, loaded.tokenizer(prompt)["input_ids"], ids)))
    return found
