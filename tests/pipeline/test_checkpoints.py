"""Weights as they lie in folders and on a hub: pickles of tensors, pickles of more, and folders that are not whole."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

import run_sweep
from engine.errors import ModelError
from engine.model import checkpoints, loading, registry, tiny
from engine.store.file import frame
from tests import hub_server
from tests.hub_server import COMMIT
from tests.pipeline import bases

ROOT = Path(run_sweep.__file__).parent
SMALL = ["--strategies", "zs", "mft", "--eval-langs", "de", "--splits", "toxic-test"]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our cache and the hub's, both empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def as_pickle(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda tensors: tensors) -> Path:
    """Keeps the weights of a folder as a pickle, changed."""
    weights = folder / "model.safetensors"
    torch.save(change(load_file(weights)), folder / "pytorch_model.bin")
    weights.unlink()
    return folder


def swept(place: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    files = ["--db", str(place / "results.duckdb"), "--adapters", str(place / "adapters")]
    command = [sys.executable, "run_sweep.py", "smoke", *words, *SMALL, *files]
    env = {**os.environ, "COLUMNS": "400", **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250)


def test_a_pickle_on_the_hub_is_converted_once_and_swept(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    bases.build(tmp_path / "repo", "MT5ForConditionalGeneration")
    as_pickle(tmp_path / "repo")
    (tmp_path / "repo" / "tf_model.h5").write_bytes(b"for others")
    with hub_server.serving({"owner/tiny-mt5": tmp_path / "repo"}) as hub:
        address = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")}
        first = swept(tmp_path / "first", "--models", "owner/tiny-mt5", **address)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "its weights are pytorch_model.bin, a pickle. They are converted once to safetensors" in first.stdout
        assert hub.downloads("owner/tiny-mt5").count("pytorch_model.bin") == 1
        assert "tf_model.h5" not in hub.downloads("owner/tiny-mt5")
        (pickled,) = (tmp_path / "hf").rglob("pytorch_model.bin")
        pickled.unlink()
        second = swept(tmp_path / "second", "--models", "owner/tiny-mt5", **address)
        assert second.returncode == 0, second.stdout + second.stderr
        assert "its weights are" not in second.stdout
        assert hub.downloads("owner/tiny-mt5").count("pytorch_model.bin") == 1
    texts = "SELECT * EXCLUDE (run_id) FROM completions ORDER BY ALL"
    one, two = (frame(tmp_path / place / "results.duckdb", texts) for place in ("first", "second"))
    assert len(one) == 4 and one.equals(two)
    revisions = frame(tmp_path / "first" / "results.duckdb", "SELECT DISTINCT spec->>'$.revision' AS r FROM variants")
    assert revisions["r"].tolist() == [COMMIT]


@pytest.mark.parametrize("architecture", ["MT5ForConditionalGeneration", "BloomForCausalLM", "Gemma3ForCausalLM"])
@pytest.mark.parametrize("is_legacy", [False, True])
def test_what_was_a_pickle_is_the_same_model(tmp_path: Path, architecture: str, is_legacy: bool) -> None:
    """Also where tensors are shared (tied) in the pickle, and in torch's format before 1.6."""
    tiny.build(tmp_path, architecture)
    auto = registry.auto_class(architecture)
    model = auto.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not is_legacy)
    with pytest.warns(UserWarning, match=r"pytorch_model\.bin, a pickle"):
        loaded = loading.load(registry.resolve(str(tmp_path)), "float32")
    ours = auto.from_pretrained(registry.resolve(str(tmp_path)).prepare()).state_dict()
    assert ours.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())
    assert loaded.tokenizer("x")["input_ids"]


def test_shards_are_read_together(tmp_path: Path) -> None:
    tiny.build(tmp_path, "LlamaForCausalLM")
    before = load_file(tmp_path / "model.safetensors")
    names = sorted(before)
    index = {"metadata": {}, "weight_map": {}}
    for shard, part in (
        ("pytorch_model-00001-of-00002.bin", names[:9]),
        ("pytorch_model-00002-of-00002.bin", names[9:]),
    ):
        torch.save({name: before[name] for name in part}, tmp_path / shard)
        index["weight_map"] |= dict.fromkeys(part, shard)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (tmp_path / "model.safetensors").unlink()
    with pytest.warns(UserWarning, match="a pickle"):
        folder = registry.prepare(registry.resolve(str(tmp_path))).prepare()
    after = load_file(folder / "model.safetensors")
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in names)


class Evil:
    """A pickle that writes a file where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.write_text, (self.target, "I ran")


def test_a_pickle_that_would_run_code_is_refused_by_name_before_anything_starts(tmp_path: Path, caches: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    tiny.build(folder, "LlamaForCausalLM")
    as_pickle(folder, lambda tensors: {**tensors, "extra": Evil(tmp_path / "ran")})
    ended = swept(tmp_path / "out", "--models", str(folder))
    assert ended.returncode == 2
    assert f"{folder}/pytorch_model.bin is a pickle that contains more than tensors and could run code" in ended.stderr
    assert "save_pretrained it (safetensors), and give that folder" in ended.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
    assert not list((caches / "xdet-lab" / "safetensors").glob("*"))


@pytest.mark.filterwarnings("ignore:.*a pickle:UserWarning")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda path: torch.save({"model": {"w": torch.ones(2)}, "step": 3}, path), "holds more than named tensors"),
        (lambda path: torch.save([torch.ones(2)], path), "holds more than named tensors"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "is damaged or not a weights file"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"),
        (lambda path: path.write_bytes(pickle.dumps({"w": [1]})), "pytorch_model.bin"),
        (lambda path: path.write_bytes(b""), "is damaged or not a weights file"),
    ],
)
def test_a_bin_that_is_no_file_of_tensors_is_refused(tmp_path: Path, content: Callable[..., Any], says: str) -> None:
    tiny.build(tmp_path, "LlamaForCausalLM")
    content(as_pickle(tmp_path) / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        registry.resolve(str(tmp_path)).prepare()
    assert says in str(caught.value) and "pytorch_model.bin" in str(caught.value)


# --- weights that are not there -------------------------------------------------------------------------------------


def test_a_whole_base_of_every_architecture_is_taken(tiny_folders: Callable[[str], Path]) -> None:
    for architecture in registry.ARCHITECTURES:
        checkpoints.check_whole(tiny_folders(architecture), architecture, registry.auto_class(architecture))


def untied(folder: Path) -> None:
    tiny.build(folder, "LlamaForCausalLM")
    config = LlamaConfig.from_pretrained(folder, tie_word_embeddings=False)
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: {f"_orig_mod.{name}": t for name, t in w.items()}, "saved from a model under torch.compile"),
        (lambda w: {name: t for name, t in w.items() if name != "lm_head.weight"}, "1 weight is not in"),
        (lambda w: {name: t for name, t in w.items() if ".layers.1." not in name}, "model.layers.1."),
        (lambda w: {name.removeprefix("model."): t for name, t in w.items() if name != "lm_head.weight"}, "lm_head"),
        (
            lambda w: {**w, "model.norm.weight": torch.ones(7)},
            "do not match its config.json (model.norm.weight)",
        ),
    ],
)
def test_a_base_that_lacks_weights_is_refused_by_name_before_anything_starts(
    tmp_path: Path, change: Callable[..., Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    untied(folder)
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, {"format": "pt"})
    files = ["--db", str(tmp_path / "out" / "r.duckdb"), "--adapters", str(tmp_path / "out" / "a")]
    assert run_sweep.command_line(["smoke", "--models", str(folder), *SMALL, *files]) == 2
    err = capsys.readouterr().err
    assert says in err and "error: base: " in err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="base: "):
        loading.load(registry.resolve(str(folder)), "float32")


def test_a_classifier_without_a_head_is_refused(tmp_path: Path) -> None:
    """An encoder: its head would be random, and all toxicity about .5."""
    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"weights are not in .* \(classifier\.bias, classifier\.weight\)"):
        registry.find_classifier(str(tmp_path))


def test_two_checkpoints_of_one_name_are_both_evaluated(tmp_path: Path) -> None:
    for seed, run in enumerate(("runA", "runB")):
        place = tmp_path / run / "checkpoint-500"
        place.mkdir(parents=True)
        tiny.build(place, "LlamaForCausalLM")
        weights = load_file(place / "model.safetensors")
        save_file({name: t + seed * 0.1 for name, t in weights.items()}, place / "model.safetensors", {"format": "pt"})
    names = [str(tmp_path / run / "checkpoint-500") for run in ("runA", "runB", "runA")]
    ended = swept(tmp_path / "out", "--models", *names)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    settings = frame(tmp_path / "out" / "results.duckdb", "SELECT model, variant_id, status FROM settings")
    assert settings.groupby("model").size().to_dict() == {"runa-checkpoint-500": 2, "runb-checkpoint-500": 2}
    assert set(settings["status"]) == {"done"} and settings["variant_id"].is_unique
