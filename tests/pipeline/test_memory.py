"""What training keeps is what the plan reckons with; and where memory is short all the same, work is done again in
smaller pieces, and the failed attempt has given back what it held.

A stand-in for a GPU with little memory refuses what is too large for it. It also refuses to go on while tensors of a
refused attempt are alive: on a real GPU they would be in the way of the next one.
"""

import weakref
from collections.abc import Callable, Sequence
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bench.gpu_base import NumberTokenizer
from engine.generate import likelihood
from engine.generate.reader import Reader
from engine.generate.transformers import TransformersGenerator
from engine.lora import train
from engine.lora.adapter_run import AdapterRun
from engine.lora.passes import Passes, PassInput
from engine.lora.stack import Stack
from engine.model import loading
from engine.model.loading import LoadedBase
from engine.model.machine import Machine
from engine.model.registry import Base
from engine.model.shape import shape_of
from engine.sweep.memory import PASSES_IN_MEMORY, Memory
from engine.vocabulary import Hyperparameters, Language, Pair, Sampling, Split, Stream
from tests.pipeline.test_stack import pairs

SAMPLING = Sampling(max_new_tokens=6)
STREAM = Stream(1, Language.DE, Split.TOXIC_TEST, 0, 0)


class SmallMemory:
    """Refuses calls of more than `room`, by a size that `size_of` gives."""

    def __init__(self, work: Callable[..., Any], size_of: Callable[..., int], room: int) -> None:
        self.work, self.size_of, self.room = work, size_of, room
        self.refused: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        activations = torch.zeros(4)
        assert not any(ref() is not None for ref in self.refused), "a refused attempt still holds its tensors"
        if self.size_of(*args) > self.room:
            self.refused.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.work(*args, **kwargs)


def tokens_of(passes: Passes, inputs: Sequence[PassInput]) -> int:
    return passes.form.tokens([one.batch for one in inputs])


def three_runs() -> list[AdapterRun]:
    h = Hyperparameters(dropout=0.1, epochs=2, learning_rate=1e-3)
    return [AdapterRun(lang, h, pairs(lang, 8), 1) for lang in (Language.DE, Language.EN, Language.RU)]


def test_a_step_that_does_not_fit_is_done_again_in_smaller_passes(
    load_tiny: Callable[..., LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for room in (10**9, 150):
        loaded, runs = load_tiny(), three_runs()
        memory = SmallMemory(Passes.updates, tokens_of, room)
        with monkeypatch.context() as patch:
            patch.setattr(Passes, "updates", partialmethod(memory))
            if room < 10**9:
                with pytest.warns(UserWarning, match="out of memory; going on in passes of"):
                    train.train(loaded, Stack(loaded.model, loaded.base.targets), runs)
                assert memory.refused
            else:
                train.train(loaded, Stack(loaded.model, loaded.base.targets), runs)
        losses.append([run.losses for run in runs])
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), atol=1e-4, rtol=0)


def test_a_run_that_does_not_fit_alone_is_an_error(
    load_tiny: Callable[..., LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tiny()
    memory = SmallMemory(Passes.updates, tokens_of, 1)
    monkeypatch.setattr(Passes, "updates", partialmethod(memory))
    with (
        pytest.raises(torch.OutOfMemoryError),
        pytest.warns(UserWarning, match="out of memory"),
    ):
        train.train(loaded, Stack(loaded.model, loaded.base.targets), three_runs())


def test_generation_and_likelihoods_go_on_with_fewer_rows(
    load_tiny: Callable[..., LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tiny()
    stack = Stack(loaded.model, loaded.base.targets)
    prompts = [pair.toxic for pair in pairs(Language.DE, 8)]
    plain = TransformersGenerator(loaded, stack).generate(prompts, None, STREAM, SAMPLING)
    texts = [completion.token_ids for completion in plain]
    expected = [found.nll for found in likelihood.of_texts(loaded, stack, texts, [None] * len(texts))]
    generator = TransformersGenerator(loaded, stack, 32)
    memory = SmallMemory(Reader.read, lambda reader, ids, mask=None: len(ids), 3)
    monkeypatch.setattr(Reader, "read", lambda *args: memory(*args))
    with pytest.warns(UserWarning, match="out of memory; going on with 2 rows at once"):
        assert generator.generate(prompts, None, STREAM, SAMPLING) == plain
    found = generator.of_texts(texts, [None] * len(texts))
    assert memory.refused and generator.batch_rows == 2
    torch.testing.assert_close(torch.tensor([one.nll for one in found]), torch.tensor(expected), atol=1e-4, rtol=0)
    generator.batch_rows, memory.room = 2, 0
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="with 1 rows"):
        generator.of_texts(texts, [None] * len(texts))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        ("CohereForCausalLM", {"num_key_value_heads": 2, "intermediate_size": 448, "hidden_size": 128}),
        ("Gemma3ForCausalLM", {"num_key_value_heads": 1, "intermediate_size": 256, "hidden_size": 80, "head_dim": 32}),
        ("LlamaForCausalLM", {"num_key_value_heads": 2, "intermediate_size": 448, "hidden_size": 128}),
        ("BloomForCausalLM", {"n_head": 2, "hidden_size": 256}),
        ("MT5ForConditionalGeneration", {"d_model": 128, "num_heads": 4, "d_kv": 32, "d_ff": 352}),
    ],
)
def test_a_pass_keeps_what_the_plan_reckons_with(architecture: str, sizes: dict[str, int], dtype: str) -> None:
    """Bytes of the tensors that autograd saves in a pass, weights apart, by token and layer; proportions of real bases.
    Two depths and two lengths of text, so that what does not grow with them falls out."""
    kept = {(n, m): _saved_bytes(architecture, sizes, dtype, n, m) for n in (2, 4) for m in (16, 32)}
    tokens = 2 * 4 * 16 * (2 if architecture.startswith("MT5") else 1)
    measured = (kept[4, 32] - kept[4, 16] - kept[2, 32] + kept[2, 16]) / tokens
    bases = [_random_base(architecture, sizes, dtype, n).base for n in (2, 4)]
    machine = Machine("cuda", "it", 80e9, dtype, {})
    need = [Memory(base, dtype, 1, machine) for base in bases]
    deep, shallow = (m.training(1, 1).total - m.training(1, 0).total for m in reversed(need))
    assert (deep - shallow) / PASSES_IN_MEMORY["cuda"] == pytest.approx(measured, rel=0.1)


def _random_base(architecture: str, sizes: dict[str, int], dtype: str, layers: int) -> LoadedBase:
    kind = getattr(transformers, architecture).config_class
    depth = {"num_layers": layers, "num_decoder_layers": layers} if "MT5" in architecture else {}
    depth = {"n_layer": layers} if "Bloom" in architecture else depth or {"num_hidden_layers": layers}
    heads = {} if {"n_head", "num_heads"} & sizes.keys() else {"num_attention_heads": 4}
    tokens = {"vocab_size": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
    config = kind(**sizes, **depth, **heads, **tokens)
    model = getattr(transformers, architecture)(config).to(getattr(torch, dtype)).requires_grad_(False).eval()
    loading.use_ours(model)
    base = Base("random", "0", architecture, shape_of(config.to_dict()), lambda: Path())
    tokenizer: Any = NumberTokenizer()
    return LoadedBase(base, model, tokenizer, torch.device("cpu"))


def _saved_bytes(architecture: str, sizes: dict[str, int], dtype: str, layers: int, tokens: int) -> int:
    """What a pass of two adapters with four sentences of so many tokens each saves."""
    loaded = _random_base(architecture, sizes, dtype, layers)
    h = Hyperparameters(rank=1, epochs=1, batch_size=4)
    numbers = torch.arange(3, 2 + tokens).tolist()
    text = " ".join(map(str, numbers))
    runs = [AdapterRun(f"adapter-{i}", h, [Pair(text, text)] * 4, i) for i in range(2)]
    parameters = list(loaded.model.parameters())  # held, so that no activation gets the address of one
    frozen = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in frozen:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    stack = Stack(loaded.model, loaded.base.targets)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        train.train(loaded, stack, runs, tokens_per_pass=10**9)
    return sum(size for size, _ in saved.values())
