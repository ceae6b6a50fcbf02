"""The queue in front of a vLLM server: every column has its own text, and what breaks one leaves the others."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.live.job_queue import Job, JobQueue, PromptRequest, ServerWriter, State
from bench.visitors import at_once, requests, visit
from engine.config import TINY_MODEL, prompt_of
from engine.generate.server import Server
from engine.lora import adapters
from engine.vocabulary import Language, Sampling
from tests.unit import vllm_server
from tests.unit.vllm_server import MISBEHAVING, MODELS, PIECES, VllmServer

ADAPTERS = tuple(MODELS)[1:]


@pytest.fixture
def there() -> Iterator[VllmServer]:
    with vllm_server.serving() as server:
        yield server


def request(queue: JobQueue, *names: str, prompt: str = "Guten Tag") -> PromptRequest:
    (model,) = queue.writer.available_models()
    return PromptRequest(prompt, Language.DE, model, names, Sampling(), 7, "ngram")


def text(model: str, prompt: str = "Guten Tag", pieces: tuple[str, ...] = PIECES) -> str:
    return f"{model}: {prompt_of(prompt)} " + "".join(pieces)


def test_the_offer_is_what_the_server_has(there: VllmServer, tmp_path: Path) -> None:
    (model,) = ServerWriter(Server(there.url), tmp_path).available_models()
    assert model.base == "base" and model.adapters == (*ADAPTERS, *MISBEHAVING)


def test_a_column_that_fails_keeps_what_came_and_leaves_the_others(there: VllmServer, tmp_path: Path) -> None:
    queue = JobQueue(ServerWriter(Server(there.url), tmp_path))
    job = queue.submit(Job(request(queue, "german", "cut", "missing")))
    assert job.settled.wait(60)
    base, german, missing, cut = job.columns
    assert [base.text, german.text] == [text("base"), text("german")]
    assert cut.text == text("cut", pieces=PIECES[:1]) and "interrupted" in cut.trouble
    assert missing.text == "" and "no model 'missing'" in missing.trouble
    assert [c.state for c in job.columns] == [State.DONE, State.DONE, State.FAILED, State.FAILED]
    assert all(c.score is not None and c.score.value is not None for c in (base, german))
    assert missing.score is None and cut.score is None
    assert {body["seed"] for body in there.asked} == {7}


def test_four_visitors_at_once_get_their_own(there: VllmServer, tmp_path: Path) -> None:
    queue = JobQueue(ServerWriter(Server(there.url), tmp_path))
    (model,) = queue.writer.available_models()
    asked = requests(model)
    together = at_once(queue, asked)
    alone = [visit(JobQueue(queue.writer), request) for request in asked]
    assert [got.texts for got in together] == [got.texts for got in alone]
    for request, got in zip(asked, together, strict=True):
        assert got.texts == tuple(text(name or "base", request.prompt) for name in request.names)


def test_a_column_is_scored_while_another_is_written(there: VllmServer, tmp_path: Path) -> None:
    queue = JobQueue(ServerWriter(Server(there.url), tmp_path))
    job = queue.submit(Job(request(queue, "german", "silent")))
    base, german, silent = job.columns
    while not (base.score and german.score):
        assert not job.settled.wait(0.05)
    assert silent.state is State.WRITING and silent.score is None
    there.released.set()
    assert job.settled.wait(60)
    assert silent.score is not None and silent.score.value is not None


@pytest.fixture
def on_disk(there: VllmServer, tmp_path: Path) -> Path:
    """A server of the tiny base that takes adapters, and a folder of them; the weights of the last are damaged."""
    there.base, there.takes_adapters = TINY_MODEL, True
    for name in ("new", "too-large", "damaged"):
        folder = tmp_path / TINY_MODEL / name
        folder.mkdir(parents=True)
        (folder / adapters.CONFIG).write_text("{}")
        (folder / adapters.WEIGHTS).write_bytes(b"weights")
    meta = {"variant": {"model": TINY_MODEL}, "weights_sha256": "0"}
    (tmp_path / TINY_MODEL / "damaged" / adapters.META).write_text(json.dumps(meta))
    other = tmp_path / "another-base" / "other"
    shutil.copytree(tmp_path / TINY_MODEL / "new", other)
    return tmp_path


def test_adapters_of_the_folder_are_loaded_at_their_first_prompt(there: VllmServer, on_disk: Path) -> None:
    queue = JobQueue(ServerWriter(Server(there.url), on_disk))
    (model,) = queue.writer.available_models()
    assert model.adapters == (*ADAPTERS, *MISBEHAVING, "damaged", "new", "too-large")
    asked = [request(queue, "german", "new", prompt=f"Guten Tag {number}") for number in range(4)]
    for number, got in enumerate(at_once(queue, asked)):
        prompt = f"Guten Tag {number}"
        assert got.texts == (text(TINY_MODEL, prompt), text("german", prompt), text("new", prompt))
    assert there.loaded == {"new": str(on_disk / TINY_MODEL / "new")}


def test_an_adapter_that_cannot_be_loaded_is_said_in_its_column(there: VllmServer, on_disk: Path) -> None:
    queue = JobQueue(ServerWriter(Server(there.url), on_disk))
    job = queue.submit(Job(request(queue, "damaged", "new", "too-large")))
    assert job.settled.wait(60)
    base, damaged, new, large = job.columns
    assert [base.state, new.state] == [State.DONE, State.DONE]
    assert "its weights are damaged" in damaged.trouble and "greater than max_lora_rank" in large.trouble


def test_a_server_that_takes_none_any_more_says_so(there: VllmServer, on_disk: Path) -> None:
    queue = JobQueue(ServerWriter(Server(there.url), on_disk))
    asked = request(queue, "new")
    there.takes_adapters = False
    job = queue.submit(Job(asked))
    assert job.settled.wait(60)
    assert "cannot load adapters at run time" in job.columns[1].trouble and job.columns[0].state is State.DONE
    (model,) = queue.writer.available_models()
    assert model.adapters == (*ADAPTERS, *MISBEHAVING)
    again = queue.submit(Job(asked))
    assert again.settled.wait(60)
    assert "no model 'new'" in again.columns[1].trouble


def test_stop_does_not_wait_for_a_server_that_is_silent(there: VllmServer, tmp_path: Path) -> None:
    queue = JobQueue(ServerWriter(Server(there.url), tmp_path))
    silent = queue.submit(Job(request(queue, "silent")))
    other = queue.submit(Job(request(queue, "german")))
    assert other.settled.wait(60)  # nobody waits for the silent one
    silent.stop()
    assert silent.is_over and not silent.settled.is_set()
    there.released.set()
    assert silent.settled.wait(60)
    assert silent.columns[1].state is State.STOPPED
    assert "[DONE]" not in silent.columns[1].text


def test_a_server_that_is_gone_is_said_in_every_column(there: VllmServer, tmp_path: Path) -> None:
    queue = JobQueue(ServerWriter(Server(there.url), tmp_path))
    asked = request(queue, "german")
    gone = JobQueue(ServerWriter(Server("http://127.0.0.1:9"), tmp_path))
    job = gone.submit(Job(asked))
    assert job.settled.wait(60)
    assert all("cannot be reached" in column.trouble for column in job.columns)
