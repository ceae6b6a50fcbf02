"""A judge behind a local server that speaks the OpenAI-compatible protocol, well and badly."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from urllib3.util import Retry

import run_sweep
from engine import store
from engine.errors import UsageError
from engine.score.judge import RUBRIC, JudgeScorer, open_scorers
from engine.vocabulary import Language, Score

KEY = "a-secret-key-43"
ANSWERS = {
    "seventy": '{"toxicity": 70}',
    "words": "It is rather toxic.",
    "beyond": '{"toxicity": 170}',
    "true": '{"toxicity": true}',
    "none": '{"score": 3}',
}


class Endpoint(BaseHTTPRequestHandler):
    server: "Server"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        text = body["messages"][1]["content"]
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self._send(401, {"error": {"message": "no"}})
        elif text.startswith("quota"):
            self._send(429, {"error": {"message": "no more today"}})
        elif text.startswith("schema"):
            self._send(400, {"error": {"message": "response_format is not supported"}})
        else:
            content = ANSWERS.get(text.split()[0], f'{{"toxicity": {len(text) % 101}}}')
            self._send(200, {"choices": [{"message": {"role": "assistant", "content": content}}]})

    def _send(self, status: int, answer: dict) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """The requests are in `server.requests`."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.requests: list[tuple[str, dict]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def judge(server: Server, key: str = KEY) -> JudgeScorer:
    return JudgeScorer("judge:some-model", server.url, key, Retry(total=0, raise_on_status=False))


def test_answers_become_scores_and_other_answers_reasons(server: Server) -> None:
    texts = ["seventy", "words", "beyond", "true", "none", " ", "schema"]
    found = judge(server).score(texts, Language.DE)
    assert found[0] == Score(0.7)
    assert [score.reason for score in found[1:]] == [*["bad-answer"] * 4, "empty", "http-400"]
    path, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"]) == ("some-model", 0)
    assert body["messages"][0]["content"] == RUBRIC.read_text() and body["messages"][1]["content"] == "seventy"
    assert len(server.requests) == 6


@pytest.mark.parametrize(("text", "key", "reason"), [("quota", KEY, "rate-limited"), ("a", "wrong", "wrong-key")])
def test_a_refusal_stops_the_asking(server: Server, text: str, key: str, reason: str) -> None:
    assert judge(server, key).score([text, "seventy", "b"], Language.DE) == [Score(None, reason)] * 3
    assert len(server.requests) == 1


def test_without_a_server_there_is_no_score() -> None:
    found = JudgeScorer("judge:m", "http://127.0.0.1:9", KEY, Retry(total=0)).score(["a"], Language.DE)
    assert found == [Score(None, "no-connection")]


@pytest.mark.parametrize(
    ("name", "environment", "says"),
    [
        ("judge", {"JUDGE_URL": "http://a"}, "judge:MODEL"),
        ("judge:m", {}, "JUDGE_URL"),
        ("judge:m", {"JUDGE_URL": "host/v1"}, "JUDGE_URL"),
    ],
)
def test_what_it_needs_is_said_first(name: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_scorers([name], {}, environment)


def test_a_sweep_is_judged_and_its_summary_counts_what_was_not(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_URL", server.url)
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    files = ["--db", str(tmp_path / "results.duckdb"), "--adapters", str(tmp_path / "adapters")]
    words = ["smoke", "--strategies", "zs", "--eval-langs", "de", "--scorers", "judge:some-model", *files]
    assert run_sweep.command_line(words) == 0
    cells = store.cells(tmp_path / "results.duckdb", store.sources(tmp_path / "results.duckdb")["source"][0])
    assert (cells["scorer"] == "judge:some-model").any()
    monkeypatch.setenv("JUDGE_API_KEY", "wrong")
    assert run_sweep.command_line([*words, "--seed", "7"]) == 0
    assert "not scored by judge:some-model: wrong-key" in capsys.readouterr().out
