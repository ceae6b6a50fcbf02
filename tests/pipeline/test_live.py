"""The queue with the local model: visitors get their own text, the same alone or with others; what fails is said."""

from pathlib import Path

import peft
import pytest
import torch

from app.live.job_queue import AvailableModel, Job, JobQueue, LocalWriter, PromptRequest, State
from bench.visitors import at_once, requests, visit
from engine.config import EMBEDDED_MODEL, TINY_MODEL, prompt_of
from engine.generate.transformers import TransformersGenerator
from engine.lora import adapters
from engine.lora.stack import Stack, read_adapter
from engine.model import loading, registry
from engine.model.machine import at_hand
from engine.score.ngram import NgramScorer
from engine.vocabulary import Language, Sampling, Score
from tests import live_folder

SAMPLING = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("adapters")
    live_folder.fill(place)
    return place


@pytest.fixture(scope="module")
def queue(root: Path) -> JobQueue:
    return JobQueue(LocalWriter(root))


def tiny(queue: JobQueue) -> AvailableModel:
    return next(model for model in queue.writer.available_models() if model.base == TINY_MODEL)


def stack_of(queue: JobQueue) -> Stack:
    assert isinstance(queue.writer, LocalWriter) and queue.writer._held is not None
    return queue.writer._held[2]


def request(queue: JobQueue, *names: str, prompt: str = "Guten Tag", sampling: Sampling = SAMPLING) -> PromptRequest:
    return PromptRequest(prompt, Language.DE, tiny(queue), names, sampling, 42, "ngram")


def done(queue: JobQueue, asked: PromptRequest) -> Job:
    job = queue.submit(Job(asked))
    assert job.settled.wait(120)
    return job


def test_offers_are_the_embedded_base_and_bases_with_adapters(queue: JobQueue) -> None:
    found = {model.base: model.adapters for model in queue.writer.available_models()}
    names = {variant.variant_id for variant in live_folder.variants()} | {live_folder.FOREIGN}
    assert set(found) == {EMBEDDED_MODEL, TINY_MODEL}
    assert set(found[TINY_MODEL]) == names and found[EMBEDDED_MODEL] == ()


def test_an_adapter_from_elsewhere_that_adapts_other_layers_can_be_prompted(tmp_path: Path) -> None:
    """As PEFT saves one; its text is PEFT's own, greedily."""
    loaded = loading.load(registry.resolve(TINY_MODEL), at_hand().dtype)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "gate_proj", "down_proj"], init_lora_weights=False)
    model = peft.get_peft_model(loaded.model, config).eval()
    model.save_pretrained(str(tmp_path / TINY_MODEL / "more-layers"))
    queue, greedy = JobQueue(LocalWriter(tmp_path)), Sampling(max_new_tokens=6, temperature=0.0)
    column = done(queue, request(queue, "more-layers", sampling=greedy)).columns[1]
    assert column.state is State.DONE, column.trouble
    ids = loaded.tokenizer(prompt_of("Guten Tag"), return_tensors="pt")
    whole = model.generate(**ids, do_sample=False, max_new_tokens=6)
    new = whole[0, ids["input_ids"].shape[1] :]
    assert column.text == loaded.tokenizer.decode(new, skip_special_tokens=True)


def test_four_visitors_at_once_get_what_they_get_alone(root: Path, queue: JobQueue) -> None:
    asked = requests(tiny(queue), SAMPLING)
    together = at_once(queue, asked)
    another = JobQueue(LocalWriter(root))
    alone = [visit(another, request) for request in reversed(asked)]
    assert [got.texts for got in together] == [got.texts for got in reversed(alone)]
    assert [len(got.texts) for got in together] == [2, 3, 3, 4]


def test_the_text_is_that_of_a_batch_with_the_same_stream(queue: JobQueue) -> None:
    names = tiny(queue).adapters[:2]
    job = done(queue, request(queue, *names))
    assert isinstance(queue.writer, LocalWriter) and queue.writer._held is not None
    _, loaded, stack = queue.writer._held
    keys = [None, *(next(key for key in stack.adapters if key.startswith(name)) for name in names)]
    prompt = prompt_of("Guten Tag")
    batch = TransformersGenerator(loaded, stack).generate([prompt] * 3, keys, job.request.stream, SAMPLING)
    assert [column.text for column in job.columns] == [completion.text for completion in batch]


def test_columns_keep_the_order_of_the_offer(queue: JobQueue) -> None:
    first, second = tiny(queue).adapters[:2]
    assert request(queue, second, first).names == (None, first, second)


def test_every_column_is_scored_and_a_scorer_that_is_none_says_so(queue: JobQueue) -> None:
    job = done(queue, request(queue, tiny(queue).adapters[0]))
    texts = [column.text for column in job.columns]
    assert [column.score for column in job.columns] == NgramScorer({}).score(texts, Language.DE)
    unknown = PromptRequest("Guten Tag", Language.DE, tiny(queue), (), SAMPLING, 42, "classifier:none/such")
    (column,) = done(queue, unknown).columns
    assert column.state is State.DONE
    assert column.score == Score(None, "the scorer is not available on this machine")


def test_a_text_that_is_empty_has_no_score(queue: JobQueue) -> None:
    job = Job(request(queue))
    job.stop()
    queue.submit(job)
    assert job.settled.wait(120)
    assert [(c.text, c.state, c.score) for c in job.columns] == [("", State.STOPPED, Score(None, "empty"))]


def test_stop_ends_a_job_where_it_is(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    done(queue, request(queue))  # the model is there
    job = Job(request(queue, tiny(queue).adapters[0], sampling=Sampling(max_new_tokens=200)))
    put, seen = job.update, []

    def stopping(*arguments: object) -> None:
        put(*arguments)  # type: ignore[arg-type]
        seen.append(job.columns[0].text)
        if len(seen) == 8:
            job.stop()

    monkeypatch.setattr(job, "update", stopping)
    queue.submit(job)
    assert job.settled.wait(120)
    assert all(column.state is State.STOPPED for column in job.columns)
    assert job.columns[0].text == seen[7] != "" and len(seen) < 20
    assert all(layer.stacked is None for layer in stack_of(queue).layers)


def test_what_fails_is_said_and_the_next_job_is_served(root: Path, tmp_path: Path) -> None:
    live_folder.fill(tmp_path)
    queue = JobQueue(LocalWriter(tmp_path))
    whole, damaged, gone = [variant.variant_id for variant in live_folder.variants()]
    asked = [request(queue, name) for name in (damaged, gone, whole)]
    weights = tmp_path / TINY_MODEL / damaged / adapters.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    (tmp_path / TINY_MODEL / gone / adapters.CONFIG).unlink()
    troubles = [{column.trouble for column in done(queue, one).columns} for one in asked]
    for trouble, says in zip(troubles, ("its weights are damaged", "the adapter no longer exists"), strict=False):
        assert len(trouble) == 1 and says in trouble.pop()
    assert troubles[2] == {""}


def test_an_adapter_that_has_changed_on_disk_is_read_again(tmp_path: Path) -> None:
    live_folder.fill(tmp_path)
    queue = JobQueue(LocalWriter(tmp_path))
    asked = request(queue, live_folder.FOREIGN)
    folder = tmp_path / TINY_MODEL / live_folder.FOREIGN

    def is_in_memory() -> bool:
        """Whether what wrote the last job are the weights of the file."""
        of_file = read_adapter(folder).parameters()
        held = [adapter for name, adapter in stack_of(queue).adapters.items() if name.startswith(live_folder.FOREIGN)]
        return any(all(map(torch.equal, of_file, adapter.parameters())) for adapter in held)

    base, _ = (column.text for column in done(queue, asked).columns)
    assert is_in_memory()
    live_folder.save(stack_of(queue), folder, 3)
    assert not is_in_memory()
    base_again, _ = (column.text for column in done(queue, asked).columns)
    assert base == base_again and is_in_memory()
