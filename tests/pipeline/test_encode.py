"""What a base is given to read: no end token that a tokenizer appends, and chats in the tokenizer's template."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

import run_sweep
from engine import store
from engine.generate import likelihood
from engine.generate.transformers import TransformersGenerator
from engine.lora.stack import Stack
from engine.lora.train import encode
from engine.model import loading, registry
from engine.model.loading import LoadedBase
from engine.vocabulary import Language, Pair, Sampling, Split, Stream

STREAM = Stream(1, Language.DE, Split.TOXIC_TEST, 0, 0)
GREEDY = Sampling(max_new_tokens=8, temperature=0.0)
TEMPLATE = (
    "{% for m in messages %}<user>{{ m.content }}</user>{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)


def test_an_end_token_that_a_tokenizer_appends_is_never_read(load_tiny: Callable[..., LoadedBase]) -> None:
    plain, closing = load_tiny(), load_tiny()
    tokenizer: Any = closing.tokenizer
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(bos, tokenizer.bos_token_id), (eos, tokenizer.eos_token_id)]
    )
    texts = ["Guten Tag.", "Ein anderer Satz"]
    assert all(row[-1] == tokenizer.eos_token_id for row in tokenizer(texts)["input_ids"])
    assert closing.encode(texts) == plain.encode(texts) and closing.opening_ids == plain.opening_ids
    pairs = [Pair(text, text) for text in texts]
    assert encode(closing, pairs, 64) == encode(plain, pairs, 64)
    found = []
    for loaded in (plain, closing):
        stack = Stack(loaded.model, loaded.base.targets)
        written = TransformersGenerator(loaded, stack).generate(texts, None, STREAM, GREEDY)
        ids = [completion.token_ids for completion in written]
        judged = likelihood.after_prompts(loaded, stack, texts, ids)
        found.append((ids, [one.nll for one in judged]))
    assert found[0][0] == found[1][0] and found[0][1] == pytest.approx(found[1][1], abs=1e-4)


@pytest.fixture
def chat_folder(tiny_folders: Callable[[str], Path], tmp_path: Path) -> Path:
    folder = tmp_path / "chat-base"
    loaded = loading.load(registry.resolve(str(tiny_folders("LlamaForCausalLM"))), "float32")
    loaded.model.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folders("LlamaForCausalLM"))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def test_a_chat_template_shapes_what_is_read_and_the_run(chat_folder: Path, tmp_path: Path) -> None:
    words = [
        "smoke",
        "--models",
        str(chat_folder),
        "--strategies",
        "zs",
        "--eval-langs",
        "de",
        "--splits",
        "toxic-test",
    ]
    files = ["--db", str(tmp_path / "results.duckdb"), "--adapters", str(tmp_path / "adapters")]
    assert run_sweep.command_line([*words, *files]) == 0
    assert run_sweep.command_line([*words, *files, "--chat-template"]) == 0
    runs = store.sources(tmp_path / "results.duckdb")["run_id"]
    texts = [store.completions(tmp_path / "results.duckdb", run, Language.DE)["completion"].tolist() for run in runs]
    assert len(texts) == 2 and texts[0] != texts[1]
    loaded = loading.load(registry.resolve(str(chat_folder)), "float32")
    (ids,) = loaded.encode(["Guten Tag"], is_chat=True)
    written = "<user>Guten Tag</user><model>"
    assert ids == loaded.tokenizer(written, add_special_tokens=False)["input_ids"]


def test_without_a_chat_template_nothing_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--db", str(tmp_path / "results.duckdb"), "--adapters", str(tmp_path / "adapters")]
    assert run_sweep.command_line(["smoke", *files, "--chat-template"]) == 2
    assert "no chat template" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
