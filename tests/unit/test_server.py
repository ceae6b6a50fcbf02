"""The client of a vLLM server against one on this machine that keeps to the protocol, and one that does not."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ServerError
from engine.generate.server import ServedModel, Server
from engine.vocabulary import Sampling
from tests.unit import vllm_server
from tests.unit.vllm_server import PIECES, VllmServer


@pytest.fixture
def there() -> Iterator[VllmServer]:
    with vllm_server.serving() as server:
        yield server


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_address_may_have_any_end(there: VllmServer, end: str) -> None:
    served = Server(there.url + end).models()
    assert served[:2] == [ServedModel("base", None), ServedModel("german", "base")]


def test_a_stream_comes_in_pieces_and_every_setting_is_sent(there: VllmServer) -> None:
    sampling = Sampling(max_new_tokens=9, temperature=0.3, top_k=20, top_p=0.8)
    pieces = list(Server(there.url).stream("Guten Tag", "german", 7, sampling))
    assert pieces == ["german: Guten Tag ", *PIECES]
    expected = {"model": "german", "prompt": "Guten Tag", "seed": 7, "max_tokens": 9, "stream": True}
    assert there.asked == [{**expected, "temperature": 0.3, "top_k": 20, "top_p": 0.8}]


@pytest.mark.parametrize(
    ("model", "n_pieces", "says"),
    [
        ("missing", 0, "no model 'missing'. Choose another one. The model `missing` does not exist."),
        ("broken", 0, "HTTP 500. out of memory"),
        ("cut", 2, "the stream was interrupted (no connection)"),
        ("short", 2, "ended early"),
        ("silent", 2, "was interrupted (no answer in time)"),
        ("garbled", 2, "cannot read the stream"),
        ("refusing", 2, "the engine is dead"),
    ],
)
def test_what_goes_wrong_is_said_and_what_came_stays(there: VllmServer, model: str, n_pieces: int, says: str) -> None:
    stream = Server(there.url, timeout=(1, 0.2)).stream("Guten Tag", model, 7, Sampling())
    got = []
    with pytest.raises(ServerError) as caught:
        for piece in stream:
            got.append(piece)
    assert says in str(caught.value)
    assert len(got) == n_pieces


def test_adapters_are_loaded_where_the_server_takes_them(there: VllmServer, tmp_path: Path) -> None:
    server = Server(there.url)
    assert not server.loads_adapters()
    with pytest.raises(ServerError, match="cannot load adapters at run time.*VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        server.load("new", tmp_path)
    there.takes_adapters = True
    assert server.loads_adapters()
    server.load("new", tmp_path)
    assert there.loaded == {"new": str(tmp_path)} and ServedModel("new", "base") in server.models()
    for name, folder, says in [
        ("new", tmp_path, "has already been loaded"),
        ("gone", tmp_path / "gone", "No adapter found for"),
        ("large", tmp_path / "too-large", "greater than max_lora_rank"),
    ]:
        (tmp_path / "too-large").mkdir(exist_ok=True)
        with pytest.raises(ServerError, match=f"cannot load {name}. .*{says}"):
            server.load(name, folder)


def test_closing_a_stream_hangs_up(there: VllmServer) -> None:
    stream = Server(there.url).stream("Guten Tag", "endless", 7, Sampling())
    next(stream)
    stream.close()
    assert there.hung_up.wait(20)


def test_a_server_that_is_gone_is_named_without_its_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://me:secret@127.0.0.1:{port}/v1")
    for ask in (
        server.models,
        server.loads_adapters,
        lambda: server.load("new", Path()),
        lambda: list(server.stream("Guten Tag", "base", 7, Sampling())),
    ):
        with pytest.raises(ServerError, match="cannot be reached .no connection.") as caught:
            ask()
        assert f"http://127.0.0.1:{port}:" in str(caught.value) and "secret" not in str(caught.value)


def test_a_list_that_is_none_is_named(there: VllmServer) -> None:
    there.list_is_broken = True
    with pytest.raises(ServerError, match="cannot read its list of models"):
        Server(there.url).models()
