"""How many adapters are trained at once, in which passes: enough, and no more than fit."""

import re
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from engine.model import tiny
from engine.model.machine import Machine, at_hand
from engine.model.registry import ARCHITECTURES, KNOWN_BASES, describe, resolve
from engine.model.shape import shape_of
from engine.sweep.memory import PLANNED_SHARE, Memory

DEMO = [26] * 9 + [26, 50, 78, 136]
CPU = Machine("cpu", "it", 64e9, "bfloat16", {})


@pytest.mark.parametrize(
    ("steps", "batch_size", "expected"),
    [([], 4, 0), ([50], 4, 1), (DEMO, 4, 4), (DEMO, 16, 4), ([9] * 8, 16, 8), (DEMO, 1, 13)],
)
def test_a_pass_is_filled_and_the_longest_run_is_not_left_alone(
    steps: list[int], batch_size: int, expected: int
) -> None:
    assert Memory(describe("gemma-3-270m"), "bfloat16", 16, CPU).max_concurrent(steps, batch_size) == expected


def test_less_is_done_at_once_where_memory_is_short_but_never_nothing() -> None:
    base, found = describe("aya-23-8b"), []
    for available in (80e9, 40e9, 32e9, 8e9):
        machine = Machine("cuda", "it", available, "bfloat16", {})
        max_concurrent = Memory(base, "bfloat16", 16, machine).max_concurrent(DEMO, 4)
        tokens = Memory(base, "bfloat16", 16, machine).tokens_per_pass(max_concurrent)
        found.append((max_concurrent, tokens))
        if available > 8e9:
            need = Memory(base, "bfloat16", 16, machine).training(max_concurrent, tokens)
            assert need.total <= PLANNED_SHARE * available
    assert found == sorted(found, reverse=True)
    assert found[0][0] == 13 and found[0][1] > 2048 and found[3] == (1, 512)


def test_a_cpu_s_passes_are_those_that_stay_in_its_caches() -> None:
    assert Memory(describe("gemma-3-270m"), "bfloat16", 16, CPU).tokens_per_pass(13) == 512


def test_the_embedded_base_needs_about_what_was_measured() -> None:
    """bench/RESULTS.md, memory: 3.55 GB in training, 3.82 in generation."""
    base = describe("gemma-3-270m")
    assert Memory(base, "bfloat16", 16, CPU).training(13, 512).total == pytest.approx(3.55e9, rel=0.15)
    assert Memory(base, "bfloat16", 16, CPU).generation(14, 336).total == pytest.approx(3.82e9, rel=0.15)


def test_in_float32_training_is_the_peak_that_the_demo_had() -> None:
    """4.98 GB, all of the demo on two AVX2 cores."""
    assert Memory(describe("gemma-3-270m"), "float32", 16, CPU).training(4, 512).total == pytest.approx(
        4.98e9, rel=0.15
    )


def test_memory_at_hand_is_that_of_this_machine() -> None:
    machine = at_hand()
    assert machine.kind in ("cpu", "cuda") and 1e9 < machine.memory < 1e14


@pytest.mark.parametrize(
    ("key", "billions"), [("aya-expanse-8b", 8.03), ("bloom-7b1", 7.07), ("mt5-large", 1.23), ("gemma-3-270m", 0.268)]
)
def test_the_known_shapes_have_the_known_sizes(key: str, billions: float) -> None:
    assert KNOWN_BASES[key].shape.parameters == pytest.approx(billions * 1e9, rel=0.01)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shape_that_is_read_is_that_of_the_model(tmp_path: Path, architecture: str) -> None:
    """Parameters, and those of an adapter, counted in a model that is built."""
    import peft

    tiny.build(tmp_path, architecture)
    base = resolve(str(tmp_path))
    assert base.shape == shape_of(AutoConfig.from_pretrained(tmp_path).to_dict())
    kind = AutoModelForSeq2SeqLM if base.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_pretrained(tmp_path)
    others = re.compile(r"relative|wpe|embed_positions|vision|multi_modal|mlp\.gate\.")
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim > 1 and not others.search(name))
    assert base.shape.parameters == matrices
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules=list(base.targets), exclude_modules=r".*vision_tower.*")
    )
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert base.shape.adapter_parameters(base.targets, 4) == trained
