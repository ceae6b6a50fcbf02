"""The embedded base, real weights: conversion, tokens of nine scripts, likelihoods, adapters."""

import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from engine.data import dataset
from engine.generate import likelihood
from engine.lora.adapter_run import AdapterRun
from engine.lora.stack import Stack
from engine.lora.train import train
from engine.model import loading, registry
from engine.model.loading import LoadedBase
from engine.vocabulary import NINE, Hyperparameters, Language


def load() -> LoadedBase:
    return loading.load(registry.resolve("gemma-3-270m"), "float32")


@pytest.fixture(scope="module")
def embedded() -> LoadedBase:
    return load()


def test_tokens_begin_with_bos_and_every_script_survives_a_round_trip(embedded: LoadedBase) -> None:
    tokenizer = embedded.tokenizer
    assert tokenizer("hello")["input_ids"][0] == tokenizer.bos_token_id
    sample = dataset.load("sample")
    for lang in NINE:
        for pair in sample.train[lang] + sample.test[lang]:
            for text in (pair.toxic, pair.neutral):
                ids = tokenizer(text)["input_ids"]
                assert tokenizer.unk_token_id not in ids
                assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_second_start_converts_nothing() -> None:
    folder = registry.prepare(registry.resolve("gemma-3-270m")).prepare()
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert registry.resolve("gemma-3-270m").prepare() == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert "quantization_config" not in (folder / "config.json").read_text()


def test_perplexity_is_that_of_a_language_model(embedded: LoadedBase) -> None:
    """Short sentences out of context: below 400 in English, below 1,000 elsewhere, far below that of shuffled words."""
    stack = Stack(embedded.model, embedded.base.targets)
    sample = dataset.load("sample")

    def nll(rows: list[list[int]]) -> float:
        return sum(found.nll for found in likelihood.of_texts(embedded, stack, rows, [None] * len(rows)))

    for lang in (Language.EN, Language.RU, Language.ZH):
        rows = embedded.tokenizer([p.neutral for p in sample.train[lang][:8]], add_special_tokens=False)["input_ids"]
        tokens = sum(map(len, rows))
        assert math.exp(nll(rows) / tokens) < (400 if lang is Language.EN else 1000)
        assert nll([sorted(row) for row in rows]) > nll(rows) + tokens


@pytest.mark.full
def test_adapters_of_the_embedded_base_equal_pefts(tmp_path: Path) -> None:
    """Two adapters trained together in float32 give the logits that PEFT gives with each."""
    loaded = load()
    stack = Stack(loaded.model, loaded.base.targets)
    sample = dataset.load("sample")
    h = Hyperparameters(epochs=2, learning_rate=2e-3)
    runs = [AdapterRun(lang, h, sample.train[lang][:8], 1) for lang in (Language.DE, Language.HI)]
    train(loaded, stack, runs)
    assert all(run.losses[-1] < run.losses[0] for run in runs)
    ids = torch.tensor([loaded.tokenizer(sample.test[Language.RU][0].toxic)["input_ids"]])
    with torch.no_grad(), stack.groups([run.name for run in runs]):
        stacked = loaded.model(input_ids=ids.repeat(2, 1)).logits
    for number, run in enumerate(runs):
        folder = tmp_path / run.name
        folder.mkdir()
        stack.save(run.name, folder, "base")
        model: Any = peft.PeftModel.from_pretrained(load().model, str(folder)).eval()
        with torch.no_grad():
            torch.testing.assert_close(stacked[number : number + 1], model(input_ids=ids).logits, atol=1e-4, rtol=1e-4)
