"""What stands in place of transformers' own operators computes the same, in few of them; and what a CUDA graph would
record of a training pass depends on nothing but its tensors."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.fx.experimental.proxy_tensor import make_fx

from bench import gpu_base, gpu_steps
from bench.gpu_base import Device, OperatorCount
from engine.generate.transformers import TransformersGenerator
from engine.lora import train
from engine.lora.batch import eighths
from engine.lora.passes import FillNumbers, Graphs, Passes, PassInput
from engine.lora.stack import Stack
from engine.model import norms, rope
from engine.vocabulary import Sampling
from tests.pipeline.bases import build

ROOT = Path(__file__).parents[2]
RUNS, VARIANTS = 13, 14


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A base of 32 layers, as Aya 8B has, but narrow ones, and short text."""
    monkeypatch.setattr(gpu_base, "SENTENCE_TOKENS", (4, 9))
    monkeypatch.setitem(gpu_base.SHAPES, "deep", gpu_base.SHAPES["tiny"] | {"num_hidden_layers": 32})
    return Device("deep")


def test_a_training_step_of_13_adapters_takes_at_most_4000_operators_and_3_waits(deep: Device) -> None:
    loaded, stack = gpu_steps._base(deep)
    counts = []
    for steps in (1, 2):
        runs = gpu_steps._adapter_runs(deep, RUNS, gpu_steps.H, steps)
        with OperatorCount() as count:
            train.train(loaded, stack, runs, max_concurrent=RUNS, tokens_per_pass=16_384)
        counts.append(count)
    assert 1_000 < counts[1].operators - counts[0].operators <= 4_000
    assert counts[1].waits - counts[0].waits <= 3


def test_a_token_of_14_variants_takes_at_most_1000_operators_and_1_wait(deep: Device) -> None:
    loaded, stack = gpu_steps._base(deep)
    names = gpu_steps._random_adapters(deep, stack)
    counts = []
    for new_tokens in (2, 3, 4):  # the first stacks the adapters, for all
        with OperatorCount() as count:
            TransformersGenerator(loaded, stack).generate(
                deep.texts(1) * VARIANTS, names, gpu_steps._stream(), Sampling(max_new_tokens=new_tokens)
            )
        counts.append(count)
    assert 500 < counts[2].operators - counts[1].operators <= 1_000
    assert counts[2].waits - counts[1].waits <= 1


def inputs(seed: int, lengths: tuple[int, int], layout_size: int, tokens: int) -> list[PassInput]:
    """Two runs, with sentences of these lengths, adapters, and places in their training that `seed` decides."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(5, tokens, (length,), generator=generator).tolist() for length in lengths]
    if seed % 2:  # as many tokens, of other sentences in other runs
        ids.reverse()
    batches = [[[ids[0]]], [[ids[1]]]]
    return [
        PassInput(0.05 * torch.randn(layout_size, generator=generator), 2.0 + seed, 0.1, 5 + seed, seed, batch)
        for batch in batches
    ]


@pytest.mark.parametrize("architecture", ["CohereForCausalLM", "Gemma3ForCausalLM", "BloomForCausalLM"])
def test_what_is_recorded_of_a_pass_depends_on_its_tensors_alone(load_tiny: Any, architecture: str) -> None:
    """A CUDA graph runs the kernels of the pass that it has recorded, whatever the next one would have called. Here
    torch's tracer records, and what it has recorded is run on tensors of other text, seeds, scales and adapters."""
    loaded = load_tiny(architecture)
    stack = Stack(loaded.model, loaded.base.targets)
    passes = Passes(loaded, stack, stack.layout(4))
    size, tokens = passes.layout.size, loaded.model.config.get_text_config().vocab_size

    def arguments(seed: int, lengths: tuple[int, int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parts = inputs(seed, lengths, size, tokens)
        passes.is_cuda = True  # lengths are rounded up
        return torch.stack([part.flat for part in parts]), passes._tensors(parts)

    def compute(flat: torch.Tensor, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = torch.empty_like(flat)
        return passes._compute(flat, tensors, gradient), gradient

    first, second = arguments(0, (9, 14)), arguments(1, (10, 13))
    assert {name: tensor.shape for name, tensor in first[1].items()} == {n: t.shape for n, t in second[1].items()}
    recorded = make_fx(compute)(*first)
    for expected, replayed in zip(compute(*second), recorded(*second), strict=True):
        torch.testing.assert_close(replayed, expected)
    assert not torch.allclose(compute(*first)[0], compute(*second)[0])


def test_what_a_wave_holds_is_free_as_soon_as_it_is_gone(load_tiny: Any) -> None:
    """Not when Python looks for cycles next: its graphs hold gigabytes that generation needs."""
    loaded = load_tiny()
    stack = Stack(loaded.model, loaded.base.targets)
    passes = Passes(loaded, stack, stack.layout(4))
    passes.graphs = Graphs(torch.device("cpu"))  # which computes a shape's first pass as it is
    passes.updates(inputs(0, (9, 14), passes.layout.size, 100))
    is_alive = weakref.ref(passes)
    gc.disable()
    try:
        del passes
        assert is_alive() is None
    finally:
        gc.enable()


def test_numbers_become_fills_that_can_be_recorded() -> None:
    def compute(x: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.tensor(0.5, device=x.device),
            torch.tensor(3),
            torch.tensor([1.0, 2.0], dtype=torch.float64),
            x + 1,
        ]

    plain = compute(torch.zeros(2))
    with FillNumbers():
        filled = compute(torch.zeros(2))
    assert [(t.dtype, t.shape, t.tolist()) for t in filled] == [(t.dtype, t.shape, t.tolist()) for t in plain]
    traced = make_fx(compute)(torch.zeros(2)).code
    with FillNumbers():
        recorded = make_fx(compute)(torch.zeros(2)).code
    assert "aten.full" in recorded and "aten.full" not in traced


def test_lengths_are_rounded_up_to_few() -> None:
    rounded = [eighths(length) for length in range(1, 2_000)]
    assert all(0 <= new - length <= max(7, length / 8) for length, new in enumerate(rounded, start=1))
    assert len({new for new in rounded if 1_024 < new <= 2_048}) == 8


@pytest.mark.parametrize(
    "architecture", ["CohereForCausalLM", "LlamaForCausalLM", "Gemma3ForCausalLM", "T5ForConditionalGeneration"]
)
def test_norms_are_those_of_the_architecture(architecture: str, tmp_path: Path) -> None:
    build(tmp_path, architecture)
    model = getattr(transformers, architecture).from_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(0)
    theirs = {name: m for name, m in model.named_modules() if type(m).__name__.endswith("Norm")}
    for norm in theirs.values():
        torch.nn.init.normal_(norm.weight, generator=generator)
    norms.use(model)
    assert theirs
    for name, norm in theirs.items():
        ours = model.get_submodule(name)
        assert type(ours) in (norms.RmsNorm, norms.LayerNorm) and ours.weight is norm.weight
        x = torch.randn(3, len(norm.weight), generator=generator)
        results = []
        for module in (norm, ours):
            leaf = x.clone().requires_grad_()
            y = module(leaf)
            (y * torch.arange(y.numel()).view_as(y)).sum().backward()
            assert leaf.grad is not None
            results += [y.detach(), leaf.grad]
        torch.testing.assert_close(results[2:], results[:2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["cohere", "llama", "gemma3"])
def test_positions_turn_as_those_of_the_architecture(name: str, load_tiny: Any) -> None:
    modeling = load_tiny(
        {"cohere": "CohereForCausalLM", "llama": "LlamaForCausalLM", "gemma3": "Gemma3ForCausalLM"}[name]
    )
    ours = getattr(sys.modules[type(modeling.model).__module__], rope.NAME)
    angles = torch.randn(2, 5, 4)
    angles = angles.repeat_interleave(2, -1) if name == "cohere" else torch.cat([angles, angles], -1)
    results = []
    for turn in (ours.theirs, ours):
        q, k = (torch.randn(2, h, 5, 8, generator=torch.Generator().manual_seed(h)).requires_grad_() for h in (4, 2))
        turned = turn(q, k, angles.cos(), angles.sin())
        sum((part * torch.arange(part.numel()).view_as(part)).sum() for part in turned).backward()
        results.append([*turned, q.grad, k.grad])
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)


KERNELS = """
import torch
from engine.lora import dropout_cuda
from engine.lora.dropout import Dropout, column_keys, numbers_of
from engine.model import rope, rope_cuda

seeds, thresholds, scales = numbers_of([(1, 0), (2, 5), (3, 7)], [0.05, 0.0, 0.5])
dropout, x = Dropout(seeds, thresholds, scales, 4), torch.randn(3, 28, 65)
expected = dropout(x, 7, 2)
masked = dropout_cuda.apply_mask(x, dropout.keys[4, 7][2], column_keys(33, x.device), thresholds, scales)
assert torch.equal(masked, expected) and 0 < (masked == 0).sum() < masked.numel()
for is_interleaved in (False, True):
    for rows, heads, tokens, pairs in ((2, 4, 5, 8), (1, 3, 7, 12)):
        q, angles = torch.randn(rows, tokens, heads, 2 * pairs).transpose(1, 2), torch.randn(rows, tokens, pairs)
        angles = angles.repeat_interleave(2, -1) if is_interleaved else torch.cat([angles, angles], -1)
        for sign in (1, -1):
            turned = rope_cuda.turn(q, angles.cos(), angles.sin(), is_interleaved, sign)
            torch.testing.assert_close(turned, rope._turn(q, angles.cos(), angles.sin(), is_interleaved, sign))
"""


def test_the_kernels_of_a_gpu_compute_what_a_cpu_does() -> None:
    """In Triton's interpreter, which needs no GPU and has to be asked for before anything imports it."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", KERNELS], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
