"""Adapters that PEFT made elsewhere: taken where they are LoRA on linear layers, else refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ModelError
from engine.lora.peft_files import WEIGHTS
from engine.lora.stack import Stack
from engine.model.loading import LoadedBase

Load = Callable[..., LoadedBase]
TARGETS = ["q_proj", "v_proj"]
IDS = torch.tensor([[1, 5, 9, 40]])


def made(load_tiny: Load, folder: Path, **options: Any) -> torch.Tensor:
    """An adapter of PEFT with random weights, saved; the logits of its model."""
    options = {"r": 3, "lora_alpha": 5, "target_modules": TARGETS, "init_lora_weights": False} | options
    torch.manual_seed(1)
    model: Any = peft.get_peft_model(load_tiny().model, peft.LoraConfig(**options)).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(folder))
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 5}},
        {"alpha_pattern": {"v_proj": 20}},
        {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"q_proj": 9}, "use_rslora": True},
        {"layers_to_transform": [1]},
        {"init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_lora_of_any_ranks_scales_and_layers_is_what_peft_computes(
    load_tiny: Load, tmp_path: Path, options: dict[str, Any]
) -> None:
    expected = made(load_tiny, tmp_path, **options)
    ours = load_tiny()
    with torch.no_grad():
        bare = ours.model(input_ids=IDS).logits
        stack = Stack(ours.model, ours.base.targets)
        stack.load("theirs", tmp_path)
        with stack.groups(["theirs"]):
            torch.testing.assert_close(ours.model(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-4)
    assert (bare - expected).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"lora_bias": True}, "lora_bias = True is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = ['lm_head'] is not supported"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices = [1, 2] is not supported"),
        ({"init_lora_weights": "pissa"}, "initialised with 'pissa', which changes the base's own weights"),
        ({"init_lora_weights": "olora"}, "initialised with 'olora'"),
        ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens = [3] is not supported"),
    ],
    ids=str,
)
def test_what_is_more_than_lora_is_refused_by_name_with_a_way_out(
    load_tiny: Load, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    made(load_tiny, tmp_path, **options)
    loaded = load_tiny()
    with pytest.raises(ModelError) as caught:
        Stack(loaded.model, loaded.base.targets).load("theirs", tmp_path)
    assert says in str(caught.value) and str(tmp_path) in str(caught.value) and "erge" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        peft.VeraConfig(r=2, target_modules=TARGETS),
        peft.IA3Config(target_modules=TARGETS, feedforward_modules=[]),
        peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    ],
    ids=lambda config: type(config).__name__,
)
def test_another_kind_of_adapter_is_refused(load_tiny: Load, tmp_path: Path, config: Any) -> None:
    peft.get_peft_model(load_tiny().model, config).save_pretrained(str(tmp_path))
    loaded = load_tiny()
    with pytest.raises(ModelError, match="only LoRA is supported|not a readable adapter"):
        Stack(loaded.model, loaded.base.targets).load("theirs", tmp_path)


def test_weights_that_are_not_numbers_are_refused(load_tiny: Load, tmp_path: Path) -> None:
    made(load_tiny, tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, tmp_path / WEIGHTS)
    loaded = load_tiny()
    with pytest.raises(ModelError, match="weights that are not numbers"):
        Stack(loaded.model, loaded.base.targets).load("theirs", tmp_path)
