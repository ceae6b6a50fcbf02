"""Where weights come from, and what is said when they are not to be had."""

from pathlib import Path

import pytest

from engine import models
from engine.errors import ModelError


def test_a_hub_base_without_safetensors_is_refused_with_a_way_out(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """google/mt5-large in the hub's cache, with a pickle alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--google--mt5-large" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelError, match="google/mt5-large: no .*safetensors.* give --models that folder"):
        models._download("google/mt5-large", "a" * 40)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert models._download("google/mt5-large", "a" * 40) == snapshot
