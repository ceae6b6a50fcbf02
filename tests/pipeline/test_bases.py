"""Every architecture that we name, against plain PEFT: docs/bases.md says it is right."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ModelError
from engine.lora.stack import Stack
from engine.model import loading, registry
from engine.model.loading import LoadedBase, check_head
from tests.pipeline import test_generate, test_stack

Load = Callable[..., LoadedBase]


@pytest.mark.full
@pytest.mark.parametrize("architecture", registry.ARCHITECTURES)
def test_losses_weights_logits_tokens_and_likelihoods_are_those_of_peft(
    load_tiny: Load, tmp_path: Path, architecture: str
) -> None:
    test_stack.test_three_adapters_together_learn_what_each_learns_alone(load_tiny, architecture)
    for check in (
        test_stack.test_logits_equal_pefts_for_every_architecture,
        test_generate.test_greedy_tokens_equal_one_by_one_peft,
    ):
        place = tmp_path / check.__name__
        place.mkdir()
        check(load_tiny, place, architecture)
    test_generate.test_as_many_keys_and_values_are_kept_as_is_said(load_tiny, architecture)
    if load_tiny(architecture).opening_ids:  # that test judges whole texts
        test_generate.test_likelihoods_equal_one_by_one(load_tiny, tmp_path, architecture)


def test_another_architecture_needs_targets_and_then_works(
    tiny_folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tiny_folders("Starcoder2ForCausalLM"))
    with pytest.raises(ModelError, match="Starcoder2ForCausalLM is not known. Give --lora-targets"):
        registry.resolve_all([folder])
    (base,) = registry.resolve_all([folder], lora_targets=("q_proj", "v_proj"))
    assert base.targets == ("q_proj", "v_proj") and not base.facts.packs and not base.facts.vllm

    def load(architecture: str = "", dtype: str = "float32") -> LoadedBase:
        return loading.load(base, dtype)

    test_stack.test_three_adapters_together_learn_what_each_learns_alone(load, "")
    with pytest.raises(ModelError, match="no linear layer named c_attn"):
        Stack(load().model, ("q_proj", "c_attn"))


def test_logits_that_we_would_get_wrong_are_refused(load_tiny: Load) -> None:
    loaded = load_tiny("LlamaForCausalLM")
    check_head(loaded)
    loaded.lm_head.scale = 0.5
    with pytest.raises(ModelError, match="likelihoods would be wrong"):
        check_head(loaded)
    loaded.lm_head.scale, loaded.lm_head.cap = 1.0, 0.5
    with pytest.raises(ModelError, match="likelihoods would be wrong"):
        check_head(loaded)
