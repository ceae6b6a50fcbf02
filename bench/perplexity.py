"""Likelihoods of many variants' texts in batches, against one text at a time."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from bench import bases
from bench.baselines import nll, peft_model
from bench.harness import Contestant, Section
from engine import perplexity
from engine.vocabulary import Language

TEXTS = 24
"""Of each variant: what one unit of a sweep has."""

ONE_BY_ONE = 12
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}


def bench() -> Section:
    section = Section(
        "perplexity",
        "Perplexity: texts of 14 variants in batches",
        f"{TEXTS} neutral sentences in nine languages under the base ({bases.SHAPE}) and 13 adapters, in bfloat16, "
        "against one sentence at a time by PEFT and the model's own loss.",
        unit="text",
    )
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for dtype in bases.DTYPES:
            loaded, stack = bases.loaded(dtype)
            adapters = bases.random_adapters(stack, 13, root)
            names = [None, *adapters]
            data, langs = bases.splits(), list(Language)
            sentences = [data.test[langs[i % 9]][i // 9].neutral for i in range(TEXTS)]
            texts: list[list[int]] = loaded.tokenizer(sentences, add_special_tokens=False)["input_ids"]
            opening = [token for token in loaded.tokenizer("")["input_ids"] if token not in loaded.end_ids]
            model = peft_model(bases.plain(dtype), adapters, root)
            chosen = [name for name in names for _ in texts]

            ours = partial(perplexity.of_texts, loaded, stack, texts * 14, chosen)
            one_by_one = partial(_one_by_one, model, opening, texts[:ONE_BY_ONE])
            got = [likelihood.nll for likelihood in ours()[TEXTS : TEXTS + ONE_BY_ONE]]
            worst = max(abs(a - b) / b for a, b in zip(got, one_by_one(), strict=True))
            section.gate(
                f"{dtype}: the same likelihoods", worst < TOLERANCE[dtype], f"largest relative difference {worst:.1e}"
            )
            if dtype == bases.DTYPES[0]:
                race = [
                    Contestant("ours", f"{TEXTS * 14} texts of 14 variants", TEXTS * 14, ours),
                    Contestant("one by one", f"{ONE_BY_ONE} texts of 1 adapter", ONE_BY_ONE, one_by_one),
                ]
    section.race(race)
    section.ratio("ours", "one by one", 5 if bases.DEVICE == "cpu" else None)
    return section


def _one_by_one(model: Any, opening: list[int], texts: list[list[int]]) -> list[float]:
    return [nll(model, opening, text) for text in texts]
