"""The desk in front of a vLLM server: every column has its own text, and what breaks one leaves the others."""

from collections.abc import Iterator

import pytest

from app.live import Desk, Job, Order, ServerWriter, State
from bench.visitors import at_once
from engine.config import PROMPT
from engine.generate.server import Server
from engine.vocabulary import Language, Sampling
from tests.unit import vllm_server
from tests.unit.vllm_server import MISBEHAVING, PIECES, VllmServer


@pytest.fixture
def there() -> Iterator[VllmServer]:
    with vllm_server.serving() as server:
        yield server


def order(desk: Desk, *names: str, prompt: str = "Guten Tag") -> Order:
    (offer,) = desk.writer.offers()
    return Order(prompt, Language.DE, offer, names, Sampling(), 7, "ngram")


def text(model: str, prompt: str = "Guten Tag", pieces: tuple[str, ...] = PIECES) -> str:
    return f"{model}: {PROMPT.format(sentence=prompt)} " + "".join(pieces)


def test_the_offer_is_what_the_server_has(there: VllmServer) -> None:
    (offer,) = ServerWriter(Server(there.url)).offers()
    assert offer.base == "base" and offer.adapters == ("german", *MISBEHAVING)


def test_a_column_that_fails_keeps_what_came_and_leaves_the_others(there: VllmServer) -> None:
    desk = Desk(ServerWriter(Server(there.url)))
    job = desk.submit(Job(order(desk, "german", "cut", "missing")))
    assert job.settled.wait(60)
    base, german, missing, cut = job.columns
    assert [base.text, german.text] == [text("base"), text("german")]
    assert cut.text == text("cut", pieces=PIECES[:1]) and "broke off" in cut.trouble
    assert missing.text == "" and "no model 'missing'" in missing.trouble
    assert [c.state for c in job.columns] == [State.DONE, State.DONE, State.FAILED, State.FAILED]
    assert all(c.score is not None and c.score.value is not None for c in (base, german))
    assert missing.score is None and cut.score is None
    assert {body["seed"] for body in there.asked} == {7}


def test_four_visitors_at_once_get_their_own(there: VllmServer) -> None:
    desk = Desk(ServerWriter(Server(there.url)))
    asked = [order(desk, "german", prompt=f"Guten Tag {number}") for number in range(4)]
    for number, got in enumerate(at_once(desk, asked)):
        assert got.texts == (text("base", f"Guten Tag {number}"), text("german", f"Guten Tag {number}"))


def test_stop_does_not_wait_for_a_server_that_is_silent(there: VllmServer) -> None:
    desk = Desk(ServerWriter(Server(there.url)))
    silent = desk.submit(Job(order(desk, "silent")))
    other = desk.submit(Job(order(desk, "german")))
    assert other.settled.wait(60)  # nobody waits for the silent one
    silent.stop()
    assert silent.is_over and not silent.settled.is_set()
    there.released.set()
    assert silent.settled.wait(60)
    assert silent.columns[1].state is State.STOPPED
    assert "[DONE]" not in silent.columns[1].text


def test_a_server_that_is_gone_is_said_in_every_column(there: VllmServer) -> None:
    desk = Desk(ServerWriter(Server(there.url)))
    asked = order(desk, "german")
    gone = Desk(ServerWriter(Server("http://127.0.0.1:9")))
    job = gone.submit(Job(asked))
    assert job.settled.wait(60)
    assert all("cannot be reached" in column.trouble for column in job.columns)
