"""The most memory that training and generation hold, each measured in a process of its own. Linux, CPU."""

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.harness import Section, peak_gb, say, table

LIMIT_GB = 6
JOBS = {
    "train": "13 adapters of the embedded base trained at once, batch 4, bfloat16",
    "generate": "14 variants of the embedded base, 24 prompts each, 50 new tokens, with their three likelihoods",
}


def bench() -> Section:
    section = Section(
        "memory", "Memory", f"Peak resident memory of a process that does one job; at most {LIMIT_GB} GB are wanted."
    )
    rows = []
    for name, about in JOBS.items():
        ran = subprocess.run([sys.executable, "-m", "bench.memory", name], capture_output=True, text=True, check=True)
        peak = float(ran.stdout.split()[-1])
        rows.append((about, f"{peak:.2f} GB"))
        section.gate(f"{name}: within {LIMIT_GB} GB", peak <= LIMIT_GB, f"{peak:.2f} GB")
    section.body.append(table(("job", "peak"), rows))
    return section


def _train() -> None:
    from bench import bases
    from bench.train import runs
    from engine.lora import train

    train.train(*bases.load("bfloat16"), runs(), max_concurrent=13)


def _generate() -> None:
    from bench import bases
    from bench.generate import PROMPTS, SAMPLING, prompts, streams
    from engine.generate import likelihood
    from engine.generate.transformers import TransformersGenerator

    loaded, stack = bases.load("bfloat16")
    with tempfile.TemporaryDirectory() as place:
        names: list[str | None] = [None, *bases.random_adapters(stack, 13, Path(place))]
    chosen, texts = [name for name in names for _ in range(PROMPTS)], prompts(PROMPTS) * len(names)
    written = TransformersGenerator(loaded, stack).generate(texts, chosen, streams(PROMPTS) * len(names), SAMPLING)
    tokens = [completion.token_ids for completion in written]
    likelihood.of_texts(loaded, stack, tokens, chosen)
    likelihood.after_prompts(loaded, stack, texts, tokens)


if __name__ == "__main__":
    {"train": _train, "generate": _generate}[sys.argv[1]]()
    say(f"{peak_gb()}")
