"""All 14 variants in one stream against one prompt at a time, batches of 16, and vLLM."""

import tempfile
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import bases
from bench.baselines import BATCH, complete, peft_model
from bench.harness import Contestant, Section
from bench.vllm_cpu import vllm_cpu
from engine.config import prompt_of
from engine.generate.transformers import TransformersGenerator
from engine.vocabulary import NINE, Hyperparameters, Language, Sampling, Split, Stream

PROMPTS = 24
"""Of each variant: what one unit of a sweep has."""

SAMPLING = Sampling()
"""The paper's: 50 tokens, temperature 0.7, top-k 50, then top-p 0.9."""

GREEDY = replace(SAMPLING, temperature=0.0, max_new_tokens=16)
VLLM = 6
"""Of each variant: more would take minutes a run."""

NAIVE = {"cpu": 4, "cuda": 16}[bases.DEVICE]


def prompts(count: int) -> list[str]:
    """Prompts from all nine languages of the bundled sample."""
    data, langs = bases.splits(), list(NINE)
    return [prompt_of(data.test[langs[i % 9]][i // 9].toxic) for i in range(count)]


def streams(count: int) -> list[Stream]:
    return [Stream(42, Language.EN, Split.TOXIC_TEST, index, 0) for index in range(count)]


def bench() -> Section:
    section = Section(
        "generate",
        "Generation: 14 variants in one stream",
        f"The base ({bases.SHAPE}) and 13 adapters of rank 16, {PROMPTS} prompts each in nine languages, 50 "
        "new tokens, temperature 0.7, top-k 50, then top-p 0.9. *Naive* is `generate` with one prompt at a time, "
        f"*strong* is `generate` with batches of {BATCH}, one adapter at a time, both by PEFT.",
        unit="completion",
    )
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        _gate(section, root)
        loaded, stack = bases.load("bfloat16")
        adapters = bases.random_adapters(stack, 13, root)
        names = [None, *adapters]
        generator = TransformersGenerator(loaded, stack)
        texts = prompts(PROMPTS)

        def ours() -> None:
            rows = [name for name in names for _ in texts]
            generator.generate(texts * len(names), rows, streams(PROMPTS) * len(names), SAMPLING)

        model = peft_model(bases.plain("bfloat16"), adapters, root)

        def strong() -> None:
            complete(model, loaded.tokenizer, texts[:BATCH], SAMPLING, BATCH)

        def naive() -> None:
            complete(model, loaded.tokenizer, texts[:NAIVE], SAMPLING, 1)

        total = PROMPTS * len(names)
        contestants = [
            Contestant("ours", f"14 variants, {total} rows at once", total, ours),
            Contestant("strong", f"1 adapter, {BATCH} rows at once", BATCH, strong),
            Contestant("naive", f"1 adapter, 1 row at once, {NAIVE} of them", NAIVE, naive),
        ]
        folders = {name: str(root / name) for name in adapters}
        with vllm_cpu(bases.folder(), folders, Hyperparameters().rank, SAMPLING) as vllm:
            if vllm:
                ids = loaded.tokenizer(texts[:VLLM])["input_ids"]
                requests = [(row, name, seed) for name in names for seed, row in enumerate(ids)]
                about = f"14 variants, {len(requests)} rows, a seed each, max_lora_rank 16"
                contestants.append(
                    Contestant("vLLM", about, len(requests), partial(vllm.generate, requests), vllm.cpu_seconds)
                )
            section.race(contestants)
        if vllm:
            section.ratio("ours", "vLLM", 2)
        else:
            section.body.append("vLLM was not measured: its environment is not there (`make vllm`).")
    section.ratio("ours", "naive", 20 if bases.DEVICE == "cpu" else None)
    section.ratio("ours", "strong", 4 if bases.DEVICE == "cpu" else None)
    measured = section.measured[0]
    section.body.append(f"Ours writes {SAMPLING.max_new_tokens / measured.per_unit:,.0f} tokens per second.")
    return section


def _gate(section: Section, root: Path) -> None:
    """Greedy tokens in float32 of the base and two adapters, ours together and PEFT's one by one."""
    dtype = bases.DTYPES[-1]
    loaded, stack = bases.load(dtype)
    adapters = bases.random_adapters(stack, 2, root, std=0.02)
    names = [None, *adapters]
    texts = prompts(4)
    written = TransformersGenerator(loaded, stack).generate(
        texts * 3, [name for name in names for _ in texts], streams(4) * 3, GREEDY
    )
    model = peft_model(bases.plain(dtype), adapters, root)
    same = total = 0
    for number, name in enumerate(names):
        if name:
            model.set_adapter(name)
        with nullcontext() if name else model.disable_adapter():
            for row, ids in enumerate(complete(model, loaded.tokenizer, texts, GREEDY, 1)):
                got = list(written[number * len(texts) + row].token_ids)
                end = next((i for i, token in enumerate(ids) if token in loaded.end_ids), len(ids))
                same, total = same + (got == ids[:end]), total + 1
    needed = total if dtype == "float32" else 0.8 * total
    section.gate(
        f"greedy tokens in {dtype} are those of PEFT, one by one", same >= needed, f"{same} of {total} texts are equal"
    )
