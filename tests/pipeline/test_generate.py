"""Generation and likelihoods of the stack against one adapter and one prompt at a time."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from engine import config
from engine.data import dataset
from engine.generate import likelihood
from engine.generate.reader import EncoderDecoderReader, open_reader
from engine.generate.transformers import TransformersGenerator
from engine.lora.stack import Stack
from engine.model.loading import LoadedBase
from engine.vocabulary import Hyperparameters, Language, Sampling, Split, Stream
from tests.pipeline.conftest import ARCHITECTURES, ENCODER_DECODER, PAPER

Load = Callable[..., LoadedBase]
NAMES = (None, "a", "b")


def prompts(n: int) -> list[str]:
    sample = dataset.load("sample")
    langs = [Language.EN, Language.ZH, Language.AM, Language.AR]
    return [config.prompt_of(sample.test[langs[i % 4]][i].toxic) for i in range(n)]


def streams(n: int) -> list[Stream]:
    return [Stream(7, Language.EN, Split.TOXIC_TEST, i, 0) for i in range(n)]


def stack_of(loaded: LoadedBase) -> Stack:
    stack = Stack(loaded.model, loaded.base.targets)
    for number, name in enumerate(NAMES[1:]):
        adapter = stack.create(name, Hyperparameters(rank=4 + 4 * number), number)
        torch.manual_seed(number)
        for parameter in adapter.parameters():
            parameter.data.copy_(torch.empty(parameter.shape).normal_(std=0.05))  # of the CPU's numbers, everywhere
    return stack


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_tokens_equal_one_by_one_peft(load_tiny: Load, tmp_path: Path, architecture: str) -> None:
    loaded = load_tiny(architecture)
    stack = stack_of(loaded)
    n, greedy = 4, Sampling(max_new_tokens=12, temperature=0)
    texts = [prompt for _ in NAMES for prompt in prompts(n)]
    adapters = [name for name in NAMES for _ in range(n)]
    written = TransformersGenerator(loaded, stack).generate(texts, adapters, streams(n) * 3, greedy)
    plain = load_tiny(architecture)
    for number, name in enumerate(NAMES):
        model: Any = plain.model
        if name:
            (tmp_path / name).mkdir()
            stack.save(name, tmp_path / name, "base")
            model = peft.PeftModel.from_pretrained(load_tiny(architecture).model, str(tmp_path / name)).eval()
        for row, prompt in enumerate(prompts(n)):
            inputs = plain.tokenizer(prompt, return_tensors="pt").to(plain.device)
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            with torch.no_grad():
                whole = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=12)
            new = whole[0, 1 if loaded.base.is_encoder_decoder else ids.shape[1] :].tolist()
            new = new[: new.index(plain.tokenizer.eos_token_id)] if plain.tokenizer.eos_token_id in new else new
            assert list(written[number * n + row].token_ids) == new


@pytest.mark.parametrize("architecture", ["Gemma3ForCausalLM", ENCODER_DECODER])
def test_completions_come_in_input_order_and_do_not_depend_on_the_batch(load_tiny: Load, architecture: str) -> None:
    loaded = load_tiny(architecture)
    generator = TransformersGenerator(loaded, stack_of(loaded))
    n, sampling = 6, Sampling(max_new_tokens=10)
    together = generator.generate(prompts(n) * 3, [name for name in NAMES for _ in range(n)], streams(n) * 3, sampling)
    assert len({completion.text for completion in together}) > n
    order = [5, 0, 17, 9, 12, 3]
    some = generator.generate(
        [prompts(n)[i % n] for i in order], [NAMES[i // n] for i in order], [streams(n)[i % n] for i in order], sampling
    )
    assert some == [together[i] for i in order]
    one = generator.generate(prompts(1), "b", streams(1)[0], sampling)
    assert one == [together[12]]
    assert generator.generate([], [], [], sampling) == []


@pytest.mark.parametrize("architecture", ["Gemma3ForCausalLM", "BloomForCausalLM", ENCODER_DECODER])
def test_rows_that_end_leave_and_others_take_their_seats(load_tiny: Load, architecture: str) -> None:
    loaded = load_tiny(architecture)
    stack = stack_of(loaded)
    n, sampling = 9, Sampling(max_new_tokens=24)
    texts = [prompt for _ in NAMES for prompt in prompts(n)]
    adapters = [name for name in NAMES for _ in range(n)]
    wide = TransformersGenerator(loaded, stack).generate(texts, adapters, streams(n) * 3, sampling)
    ends = sorted(
        {completion.token_ids[i % 24] for i, completion in enumerate(wide) if len(completion.token_ids) == 24 and i % 3}
    )
    assert loaded.model.generation_config is not None
    loaded.model.generation_config.eos_token_id = ends
    few = TransformersGenerator(loaded, stack, batch_rows=6).generate(texts, adapters, streams(n) * 3, sampling)
    lengths = [len(completion.token_ids) for completion in few]
    assert min(lengths) < 3 and len(set(lengths)) > 3
    for got, whole in zip(few, wide, strict=True):
        cut = next((i for i, token in enumerate(whole.token_ids) if token in ends), len(whole.token_ids))
        assert got.token_ids == whole.token_ids[:cut]


@pytest.mark.parametrize("architecture", PAPER)
def test_as_many_keys_and_values_are_kept_as_is_said(load_tiny: Load, architecture: str) -> None:
    """What `capacity` counts on, for every row and token of the prompts and of what is written."""
    loaded = load_tiny(architecture)
    shape, reader = loaded.base.shape, open_reader(loaded)
    with torch.no_grad():
        reader.read(torch.full((3, 7), 5, device=loaded.device))
        reader.read(torch.full((3, 4), 6, device=loaded.device))
    caches = [reader.cache, reader.sources] if isinstance(reader, EncoderDecoderReader) else [reader.cache]
    kept = sum(layer.keys.numel() + layer.values.numel() for cache in caches for layer in cache.layers)
    tokens = 3 * (7 + 4 + loaded.base.is_encoder_decoder)  # and the decoder's start token
    assert kept == tokens * shape.caching_layers * 2 * shape.kv_dim


def test_wrong_calls_are_refused(load_tiny: Load) -> None:
    loaded = load_tiny()
    generator = TransformersGenerator(loaded, stack_of(loaded))
    with pytest.raises(KeyError):
        generator.generate(prompts(1), "misspelt", streams(1)[0], Sampling())
    with pytest.raises(ValueError, match="2 prompts, 1 adapters"):
        generator.generate(prompts(2), ["a"], streams(2), Sampling())


def one_by_one(model: Any, opening: list[int], ids: list[int]) -> float:
    """The summed negative log-likelihood of `ids` after `opening`, by Hugging Face's own loss."""
    if model.config.is_encoder_decoder:
        with torch.no_grad():
            both = {"input_ids": torch.tensor([opening]), "labels": torch.tensor([ids])}
            return float(model(**{name: row.to(model.device) for name, row in both.items()}).loss) * len(ids)
    whole = torch.tensor([[*opening, *ids]], device=model.device)
    labels = whole.clone()
    labels[:, : len(opening)] = -100
    with torch.no_grad():
        return float(model(input_ids=whole, labels=labels).loss) * len(ids)


@pytest.mark.parametrize("architecture", PAPER)
def test_likelihoods_equal_one_by_one(load_tiny: Load, tmp_path: Path, architecture: str) -> None:
    loaded = load_tiny(architecture)
    stack = stack_of(loaded)
    texts: list[list[int]] = [[7, 8, 9], [10], [], [30, 31, 32, 33, 34], [7, 8, 9]]
    names = ["a", None, "a", "b", None]
    own = likelihood.of_texts(loaded, stack, texts, names)
    judged = likelihood.after_prompts(loaded, stack, [*prompts(2), *prompts(2), prompts(1)[0]], texts)
    for name in NAMES[1:]:
        (tmp_path / name).mkdir()
        stack.save(name, tmp_path / name, "base")
    plain = load_tiny(architecture)
    for i, (text, name) in enumerate(zip(texts, names, strict=True)):
        # Bloom's tokenizer opens no text: nothing predicts its first token.
        opening, rest = (text[:1], text[1:]) if architecture == "BloomForCausalLM" else (loaded.opening_ids, text)
        assert (own[i].n_tokens, judged[i].n_tokens) == (len(rest), len(text))
        if not text:
            assert own[i].nll == judged[i].nll == 0
            continue
        model: Any = load_tiny(architecture).model
        if name:
            model = peft.PeftModel.from_pretrained(model, str(tmp_path / name)).eval()
        prompt = plain.tokenizer([*prompts(2), *prompts(2), prompts(1)[0]][i])["input_ids"]
        assert own[i].nll == pytest.approx(one_by_one(model, opening, rest), rel=1e-4) if rest else own[i].nll == 0
        assert judged[i].nll == pytest.approx(one_by_one(plain.model, prompt, text), rel=1e-4)
    assert not math.isclose(own[0].nll, own[4].nll, rel_tol=2e-5)


@pytest.mark.parametrize("architecture", PAPER)
def test_neutral_sentences_are_judged_alone_or_given_the_toxic_ones(load_tiny: Load, architecture: str) -> None:
    loaded, plain = load_tiny(architecture), load_tiny(architecture)
    pairs = list(dataset.load("sample").test[Language.EN][:3])
    found = likelihood.of_pairs(loaded, stack_of(loaded), pairs, [None] * 3)
    for pair, own in zip(pairs, found, strict=True):
        text = plain.tokenizer(pair.neutral, add_special_tokens=False)["input_ids"]
        opening = plain.tokenizer(pair.toxic)["input_ids"] if loaded.base.is_encoder_decoder else loaded.opening_ids
        if not opening:
            opening, text = text[:1], text[1:]
        assert own.n_tokens == len(text)
        assert own.nll == pytest.approx(one_by_one(plain.model, opening, text), rel=1e-4)


def test_a_stream_comes_to_what_the_batch_comes_to(load_tiny: Load) -> None:
    loaded = load_tiny()
    generator = TransformersGenerator(loaded, stack_of(loaded), batch_rows=6)
    n, sampling = 4, Sampling(max_new_tokens=10)
    asked = (prompts(n) * 3, [name for name in NAMES for _ in range(n)], streams(n) * 3, sampling)
    told = list(generator.stream(*asked))
    whole = generator.generate(*asked)
    assert [draft.text for draft in told[-1]] == [completion.text for completion in whole]
    assert all(draft.is_finished for draft in told[-1]) and not any(draft.is_finished for draft in told[0])
    assert len({tuple(drafts) for drafts in told}) > sampling.max_new_tokens  # it was told on the way


def test_a_stream_that_is_closed_leaves_the_stack_as_it_was(load_tiny: Load) -> None:
    loaded = load_tiny()
    generator = TransformersGenerator(loaded, stack_of(loaded))
    bare = generator.generate(prompts(2), None, streams(2), Sampling(max_new_tokens=6))
    writing = generator.stream(prompts(2), ["a", "b"], streams(2), Sampling(max_new_tokens=6))
    next(writing)
    assert any(layer.stacked is not None for layer in generator.stack.layers)
    writing.close()
    assert all(layer.stacked is None for layer in generator.stack.layers)
    assert not torch.is_inference_mode_enabled()
    assert generator.generate(prompts(2), None, streams(2), Sampling(max_new_tokens=6)) == bare
