"""Tiny bases of every architecture with its own kind of tokenizer, built once, loaded fresh: a Stack changes the model
it is given."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.model import loading, registry
from engine.model.loading import LoadedBase
from tests.pipeline import bases

ENCODER_DECODER = "MT5ForConditionalGeneration"
ARCHITECTURES = (
    "Gemma3ForCausalLM",
    "LlamaForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "MistralForCausalLM",
    "CohereForCausalLM",
    "BloomForCausalLM",
    ENCODER_DECODER,
)
PAPER = ("Gemma3ForCausalLM", "CohereForCausalLM", "BloomForCausalLM", ENCODER_DECODER)
"""Of the embedded base and the paper's four."""


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("bases")

    def folder(architecture: str) -> Path:
        path = root / architecture
        if not path.exists():
            path.mkdir()
            bases.build(path, architecture)
        return path

    return folder


@pytest.fixture
def load_tiny(tiny_folders: Callable[[str], Path]) -> Callable[..., LoadedBase]:
    def load(architecture: str = "Gemma3ForCausalLM", dtype: str = "float32") -> LoadedBase:
        return loading.load(registry.resolve(str(tiny_folders(architecture))), dtype)

    return load
