"""Where bases come from, and what is said when they are not to be had; what tells two of them apart."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from engine.errors import ModelError
from engine.model import registry
from tests import hub_server
from tests.hub_server import COMMIT, HubServer

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
    "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 50,
}  # fmt: skip
FILES = {
    "owner/public": ["model.safetensors", "pytorch_model.bin", "tf_model.h5"],
    "owner/pickle": ["pytorch_model.bin", "tf_model.h5"],
    "owner/weightless": ["tf_model.h5", "flax_model.msgpack"],
    "owner/empty": [],
}


@pytest.fixture
def a_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub of our own, whose cache is empty; the weights of its models are no weights."""
    repos = {}
    for name, files in FILES.items():
        repos[name] = tmp_path / name
        repos[name].mkdir(parents=True)
        (repos[name] / "config.json").write_text(json.dumps(CONFIG))
        for file in files:
            (repos[name] / file).write_bytes(b"weights")
    with hub_server.serving(repos) as server:
        hub_server.use(monkeypatch, server.address, tmp_path / "cache")
        yield server


def test_a_hub_base_is_pinned_to_the_commit_that_the_hub_says(a_hub: HubServer) -> None:
    base = registry.resolve("owner/public")
    assert (base.revision, base.architecture) == (COMMIT, "LlamaForCausalLM")
    assert base.shape.num_layers == 1 and base.shape.hidden_size == 8
    assert a_hub.downloads("owner/public") == ["config.json"]


def test_what_the_cache_has_needs_no_hub(a_hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = registry.resolve("owner/public").prepare()
    assert sorted(a_hub.downloads("owner/public")) == ["config.json", "model.safetensors"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert registry.resolve("owner/public").prepare() == folder


def test_a_base_without_its_weights_in_the_cache_is_refused_without_a_hub(
    a_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.resolve("owner/public")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="owner/public: cannot list its files on the hub .* Check the network"):
        registry.resolve("owner/public")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("owner/gated", "is gated: accept its terms on its page on the hub, then log in with `hf auth login`"),
        ("owner/nothing", "the hub has no such model, or it is private and you are not logged in"),
        ("owner/ill", "the hub cannot be reached"),
        (
            "owner/weightless",
            r"owner/weightless: no \*.safetensors and no pytorch_model.*flax_model.msgpack, tf_model.h5",
        ),
        ("owner/empty", r"owner/empty: no \*.safetensors and no pytorch_model\*.bin: it has no weights to load"),
    ],
)
def test_a_base_that_the_hub_does_not_give_says_why_and_what_to_do(a_hub: HubServer, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        registry.resolve(name)


def test_a_hub_that_is_not_there_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub_server.use(monkeypatch, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(ModelError, match="cannot be reached .* Check the network, or give --models a local folder"):
        registry.resolve("CohereLabs/aya-expanse-8b")
    assert waits == []


# --- two of one name ------------------------------------------------------------------------------------------------


def folder(place: Path, layers: int) -> str:
    """A base that is told from another one by its number of layers; its weights and tokenizer are none."""
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "tokenizer.json").write_text("{}")
    return str(place)


def test_two_folders_of_one_name_are_two_bases(tmp_path: Path) -> None:
    names = [folder(tmp_path / f"run{run}" / "checkpoint-500", layers) for run, layers in (("A", 1), ("B", 2))]
    first, second = registry.resolve_all(names)
    assert [first.name, second.name] == ["runa-checkpoint-500", "runb-checkpoint-500"]
    assert (first.shape.num_layers, second.shape.num_layers) == (1, 2)
    assert [base.name for base in registry.resolve_all(names[::-1])] == [second.name, first.name]
    assert registry.resolve_all(names[:1])[0].name == "checkpoint-500"


def test_where_the_folders_above_have_one_name_too_the_content_tells_them_apart(tmp_path: Path) -> None:
    names = [folder(tmp_path / place / "run" / "base", layers) for place, layers in (("one", 1), ("two", 2))]
    bases = registry.resolve_all(names)
    assert [base.name for base in bases] == [f"run-base-{base.revision}" for base in bases]


def test_one_content_is_one_base_wherever_it_lies(tmp_path: Path) -> None:
    here = folder(tmp_path / "here" / "base", 1)
    shutil.copytree(here, tmp_path / "there" / "other")
    (base,) = registry.resolve_all([here, str(tmp_path / "there" / "other"), here])
    assert base.name == "base"


def test_the_paper_s_bases_stay_four_in_an_outline() -> None:
    names = ("aya-expanse-8b", "aya-23-8b", "mt5-large", "bloom-7b1")
    assert [base.name for base in registry.resolve_all(names, registry.describe)] == list(names)
