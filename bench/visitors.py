"""Four visitors of the live page at once, against the same prompts run alone: each must get its own text, and soon."""

import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.live.job_queue import AvailableModel, Job, JobQueue, LocalWriter, PromptRequest
from bench.harness import Section, table
from engine.config import EMBEDDED_MODEL
from engine.vocabulary import Language, Sampling

SAMPLING = Sampling(max_new_tokens=50)
PATIENCE = 600.0
"""Seconds to wait for a text."""


@dataclass(frozen=True)
class Visit:
    """What a visitor got: the text of each column, and the seconds until all had ended."""

    texts: tuple[str, ...]
    seconds: float


def requests(model: AvailableModel, sampling: Sampling = SAMPLING) -> list[PromptRequest]:
    """Four visitors' prompts, in four languages, under different adapters."""
    a, b, c = model.adapters[:3]
    asked = (
        ("The bus is late again.", Language.EN, (a,)),
        ("Die Suppe ist schon wieder kalt.", Language.DE, (a, b)),
        ("यह बस आज फिर देर से आई।", Language.HI, (b, c)),
        ("Этот лифт опять не работает.", Language.RU, (a, b, c)),
    )
    return [PromptRequest(prompt, lang, model, names, sampling, 42, "ngram") for prompt, lang, names in asked]


def visit(queue: JobQueue, request: PromptRequest) -> Visit:
    """One visitor: hands in, waits. Errors: AssertionError when nothing comes, or not all of it."""
    began = time.perf_counter()
    job = queue.submit(Job(request))
    assert job.settled.wait(PATIENCE), "the queue is at a standstill"
    assert not any(column.trouble for column in job.columns), [column.trouble for column in job.columns]
    return Visit(tuple(column.text for column in job.columns), time.perf_counter() - began)


def at_once(queue: JobQueue, asked: Sequence[PromptRequest]) -> list[Visit]:
    """All visitors at the same moment, each in a thread."""
    got: dict[int, Visit] = {}
    start = threading.Barrier(len(asked))

    def wait_and_visit(number: int) -> None:
        start.wait()
        got[number] = visit(queue, asked[number])

    threads = [threading.Thread(target=wait_and_visit, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [got[number] for number in range(len(asked))]


def bench() -> Section:
    from bench import bases

    section = Section(
        "visitors",
        "Four visitors of the live page",
        f"{bases.SHAPE} and 1 to 3 random adapters beside it; one prompt each, {SAMPLING.max_new_tokens} tokens.",
    )
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        _, stack = bases.load("float32")
        bases.random_adapters(stack, 3, root / EMBEDDED_MODEL)
        del stack
        queue = JobQueue(LocalWriter(root))
        model = next(model for model in queue.writer.available_models() if model.base == EMBEDDED_MODEL)
        asked = requests(model)
        visit(queue, asked[0])  # the model is loaded
        alone = [visit(queue, request) for request in asked]
        together = at_once(queue, asked)
    same = [a.texts == b.texts for a, b in zip(alone, together, strict=True)]
    section.gate("every visitor gets the same text as alone", all(same), f"{sum(same)} of {len(same)}")
    rows = [
        (name, f"{statistics.median(v.seconds for v in got):.1f} s", f"{max(v.seconds for v in got):.1f} s")
        for name, got in (("alone", alone), ("four at once", together))
    ]
    section.body.append(table(("", "median wait for the last word", "longest"), rows))
    return section
