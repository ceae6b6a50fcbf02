"""Where weights come from, and what is said when they are not to be had."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from engine import hub, models
from engine.errors import ModelError

COMMIT = "c" * 40
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
    "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 50,
}  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a config.json needs: a public model, a gated one, none, an ill hub."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(json.dumps(CONFIG).encode())

    def _answer(self, body: bytes) -> None:
        known = {"public": (200, ""), "gated": (403, "GatedRepo"), "ill": (500, "")}
        status, code = known.get(self.path.split("/")[2], (404, "RepoNotFound"))
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(json.dumps(CONFIG)) if status == 200 else 0))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(body if status == 200 else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def a_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of a hub of our own, whose cache is empty."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        _use(monkeypatch, address, tmp_path)
        yield address
        server.shutdown()


def _use(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_hub_base_is_pinned_to_the_commit_that_the_hub_says(a_hub: str) -> None:
    base = models.resolve("owner/public")
    assert (base.revision, base.architecture) == (COMMIT, "LlamaForCausalLM")
    assert base.shape.layers == 1 and base.shape.hidden == 8


def test_what_the_cache_has_needs_no_hub(a_hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models.resolve("owner/public")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert models.resolve("owner/public").revision == COMMIT


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("owner/gated", "is gated: accept its terms on its page on the hub, then log in with `hf auth login`"),
        ("owner/nothing", "the hub has no such model, or it is private and you are not logged in"),
        ("owner/ill", "the hub cannot be reached"),
    ],
)
def test_a_base_that_the_hub_does_not_give_says_why_and_what_to_do(a_hub: str, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        models.resolve(name)


def test_a_hub_that_is_not_there_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    _use(monkeypatch, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(ModelError, match="cannot be reached .* Check the network, or give --models a local folder"):
        models.resolve("CohereLabs/aya-expanse-8b")
    assert waits == []


def test_a_hub_base_without_safetensors_is_refused_with_a_way_out(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """google/mt5-large in the hub's cache, with a pickle alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--google--mt5-large" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelError, match="google/mt5-large: no .*safetensors.* give --models that folder"):
        hub.download("google/mt5-large", "a" * 40)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert hub.download("google/mt5-large", "a" * 40) == snapshot
