"""Scorers at their edges: a server that speaks the Perspective protocol and misbehaves, and a tiny classifier."""

import hashlib
import json
import logging
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from urllib3.util import Retry

from engine import store
from engine.errors import ModelError, UsageError
from engine.model import registry, tiny
from engine.score import available, open_scorers
from engine.score.classifier import ClassifierScorer
from engine.score.perspective import MAX_BYTES, Client, PerspectiveScorer
from engine.score.perspective import open_scorers as open_perspective
from engine.score.remote import retries
from engine.sweep import evaluate
from engine.vocabulary import Language, Score, Strategy, Variant

KEY = "a-secret-key-42"
ATTRIBUTES = ("toxicity", "insult")


def true_value(text: str, attribute: str) -> float:
    return int(hashlib.sha256(f"{attribute}:{text}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF


class Perspective(BaseHTTPRequestHandler):
    """Answers as its text asks it to: `429-once …` is refused at the first try, `cut …` never answered, and so on."""

    server: "Server"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["comment"]["text"]
        kind = text.split()[0]
        self.server.requests.append((self.path, body))
        self.server.tries[text] += 1
        first = self.server.tries[text] == 1
        if self.headers["X-Goog-Api-Key"] != self.server.key:
            self._send(400, {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}})
        elif kind == "429-always" or (kind == "429-once" and first):
            self._send(429, {"error": {"code": 429}})
        elif kind == "429-wait" and first:
            self._send(429, {"error": {"code": 429}}, {"Retry-After": "1"})
        elif kind == "500-always" or (kind == "500-once" and first):
            self._send(500, {"error": {"code": 500}})
        elif kind == "language":
            self._send(400, {"error": {"message": "Attribute TOXICITY does not support request languages: xx"}})
        elif kind == "refused":
            self._send(400, {"error": {"message": "Comment must be non-empty"}})
        elif kind == "broken":
            self._send(200, b'{"attributeScores": {"TOXI')
        elif kind == "beyond":
            self._send(200, self._scores(body, lambda *_: 1.5))
        elif kind == "partly":
            self._send(200, {"attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.5}}}})
        elif kind == "cut" or (kind == "cut-once" and first):
            self.connection.shutdown(socket.SHUT_RDWR)
        elif kind == "slow":
            self.server.patience.wait(3)
        else:
            self._send(200, self._scores(body, true_value))

    def _scores(self, body: dict, value: object) -> dict:
        found = {
            name: {"summaryScore": {"value": value(body["comment"]["text"], name.lower()), "type": "PROBABILITY"}}
            for name in body["requestedAttributes"]
        }
        return {"attributeScores": found, "languages": body["languages"]}

    def _send(self, status: int, answer: dict | bytes, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """The requests are in `server.requests`."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Perspective)
        self.key, self.requests, self.tries = KEY, [], Counter()
        self.patience = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1alpha1/comments:analyze"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.patience.set()
    running.shutdown()
    running.server_close()
    thread.join()


def scorers(server: Server, key: str = KEY) -> list[PerspectiveScorer]:
    """Impatient ones: no pause between tries but what the server asks for."""
    quick = Retry(total=2, status_forcelist=retries().status_forcelist, allowed_methods=None, raise_on_status=False)
    client = Client(ATTRIBUTES, server.url, key, 0.0, quick, timeout=0.3)
    return [PerspectiveScorer(name, client) for name in ("perspective", "perspective:insult")]


FAILING = {
    "500-always": "http-500",
    "language": "unsupported-language",
    "refused": "http-400",
    "broken": "bad-answer",
    "beyond": "bad-answer",
    "partly": "bad-answer",
    "cut": "no-connection",
    "slow": "no-connection",
}
PASSING = ("ok", "429-once", "429-wait", "500-once", "cut-once")


def seed(db: Path, texts: list[str]) -> Variant:
    """A run of one variant that wrote these texts."""
    zs = Variant("tiny", "1", "float32", Strategy.ZS)
    run = {"run_id": "r", "sweep": "smoke", "dataset": "sample", "dataset_hash": "h", "seed": 1, "plan": "{}"}
    place = {"eval_lang": "de", "split": "toxic-test"}
    index = range(len(texts))
    store.put_plan(db, run, [zs], [Language.DE], pd.DataFrame({"prompt_index": index, "sentence": "p", **place}))
    rows = {"variant_id": zs.variant_id, "prompt_index": index, "sample_index": 0, "completion": texts, "n_tokens": 5}
    store.put_unit(db, "r", "u", pd.DataFrame({**rows, **place, "nll_self": 1.0, "nll_base": 1.0}))
    return zs


def test_six_hundred_texts_end_with_a_true_value_or_a_reason(server: Server, tmp_path: Path) -> None:
    db = tmp_path / "results.duckdb"
    kinds = [*FAILING, *PASSING[1:]]
    texts = [f"{kind} {i}" for kind in kinds for i in range(3)]
    texts += [f"ok {i}" for i in range(600 - len(texts) - 2)] + ["", "x" * (MAX_BYTES + 1)]
    seed(db, texts)
    judges = scorers(server)
    for judge in judges:
        store.put_scorer(db, "r", judge.name, judge.revision, {})
    completions = store.completions(db, "r", Language.DE)
    scores, is_new = evaluate.score(db, "r", completions, Language.DE, judges)
    assert is_new

    for judge, attribute in zip(judges, ATTRIBUTES, strict=True):
        found = scores[scores["scorer"] == judge.name].set_index("text")[["value", "reason"]]
        assert set(found.index) == set(texts)
        for text, value, reason in found.itertuples():
            kind = (text.split() or [""])[0]
            if kind in PASSING:
                assert value == pytest.approx(true_value(text, attribute))
                assert pd.isna(reason)
            else:
                expected = "empty" if not text else FAILING.get(kind, "too-long")
                assert pd.isna(value)
                assert reason == expected, text
    values = evaluate.values(completions, scores, Language.DE)
    toxicity = values[(values["metric"] == "toxicity") & (values["scorer"] == "perspective")]["value"]
    assert toxicity.isna().sum() == 3 * len(FAILING) + 2
    assert not (toxicity == 0).any()

    # One request served both attributes; none was kept by the service, none had the key in its address.
    asked = Counter(body["comment"]["text"] for _, body in server.requests)
    assert asked["ok 7"] == 1
    assert set(asked) == {text for text in texts if text and len(text) <= MAX_BYTES}
    assert all(body["doNotStore"] is True and body["languages"] == ["de"] for _, body in server.requests)
    assert not any(KEY in path for path, _ in server.requests)

    # Again, by a new process: only what failed for a passing reason is asked.
    server.requests.clear()
    assert evaluate.score(db, "r", completions, Language.DE, scorers(server))[1]
    again = {body["comment"]["text"].split()[0] for _, body in server.requests}
    assert again == FAILING.keys() - {"language"}


def test_a_quota_that_is_used_up_stops_the_asking_until_the_next_run(server: Server) -> None:
    judge, _ = scorers(server)
    found = judge.score(["ok 1", "429-always 1", "ok 2", "429-always 2"], Language.DE)
    assert found[0].value is not None
    assert found[1:] == [Score(None, "rate-limited")] * 3
    assert [body["comment"]["text"] for _, body in server.requests] == ["ok 1"] + ["429-always 1"] * 3
    assert scorers(server)[0].score(["ok 2"], Language.DE)[0].value is not None


def test_a_wrong_key_is_asked_once_and_can_be_mended(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    judge, _ = scorers(server, key="a-wrong-key-43")
    assert judge.score(["ok 1", "ok 2", "ok 3"], Language.DE) == [Score(None, "wrong-key")] * 3
    assert len(server.requests) == 1
    assert scorers(server)[0].score(["ok 1"], Language.DE)[0].value == pytest.approx(true_value("ok 1", "toxicity"))
    assert "a-wrong-key-43" not in caplog.text + repr(judge._client) + str(judge)
    assert KEY not in caplog.text


@pytest.mark.parametrize("lang", [Language.AM, Language.UK])
def test_languages_it_cannot_read_are_never_sent(server: Server, lang: Language) -> None:
    assert scorers(server)[0].score(["ok 1"], lang) == [Score(None, "unsupported-language")]
    assert server.requests == []


def test_requests_keep_their_distance(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("engine.score.perspective.time.sleep", pauses.append)
    client = Client(ATTRIBUTES, server.url, KEY, 60.0)
    PerspectiveScorer("perspective", client).score(["ok 1", "ok 2"], Language.DE)
    assert pauses[0] == 0
    assert 50 < pauses[1] <= 60


def test_retries_honour_the_server_and_are_bounded() -> None:
    retry = retries()
    assert retry.total == 5
    assert retry.respect_retry_after_header
    for _ in range(5):
        retry = retry.increment("POST", "/")
        assert retry.get_backoff_time() <= 17


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "PERSPECTIVE_API_KEY"),
        ({"PERSPECTIVE_API_KEY": KEY, "PERSPECTIVE_QPS": "0"}, "PERSPECTIVE_QPS"),
        ({"PERSPECTIVE_API_KEY": KEY, "PERSPECTIVE_QPS": "fast"}, "PERSPECTIVE_QPS"),
    ],
)
def test_what_perspective_needs_is_said_before_anything_starts(environment: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        open_perspective(["perspective"], {}, environment)
    assert KEY not in str(error.value)


# --- classifiers ----------------------------------------------------------------------------------------------------


def classifier(folder: Path, **config: object) -> Path:
    """A tiny random XLM-R that tells two labels apart, with the tiny base's tokenizer."""
    tokenizer = tiny.tokenizer()
    tokenizer.model_max_length = 40
    shape = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 1.0}
    settings = {"intermediate_size": 32, "max_position_embeddings": 64, **shape, **ends, **config}
    torch.manual_seed(1)
    transformers.XLMRobertaForSequenceClassification(transformers.XLMRobertaConfig(**settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LABELS = {"id2label": {0: "neutral", 1: "toxic"}, "label2id": {"neutral": 0, "toxic": 1}}


def test_a_classifier_gives_the_probability_of_its_toxic_label(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "c", **LABELS)
    texts = ["der Hund", "", "the cat sat on the mat today", "word " * 60, "дом"]
    (scorer,) = open_scorers([f"classifier:{folder}"], {})
    found = scorer.score(texts, Language.DE)
    assert [score.reason for score in found] == [None, "empty", None, "too-long", None]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for i in (0, 2, 4):
        with torch.inference_mode():
            expected = model(**tokenizer(texts[i], return_tensors="pt")).logits.softmax(1)[0, 1].item()
        assert found[i].value == pytest.approx(expected, abs=1e-5)
    assert len({score.value for score in found}) == 4


def test_its_revision_is_its_content_and_its_toxic_label_must_be_plain(tmp_path: Path) -> None:
    one, other = classifier(tmp_path / "a", **LABELS), classifier(tmp_path / "b")
    assert ClassifierScorer(f"classifier:{one}").revision != ClassifierScorer(f"classifier:{other}").revision
    assert ClassifierScorer(f"classifier:{other}").score(["x"], Language.DE)[0].value is not None  # LABEL_1
    third = classifier(tmp_path / "c", id2label={0: "sad", 1: "glad"}, label2id={"sad": 0, "glad": 1})
    with pytest.raises(ModelError, match="sad, glad"):
        ClassifierScorer(f"classifier:{third}").score(["x"], Language.DE)


def test_labels_that_are_named_are_summed_and_must_be_there(tmp_path: Path) -> None:
    names = ["fine", "insult", "threat"]
    folder = classifier(tmp_path / "c", id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    found = [
        ClassifierScorer(f"classifier:{folder}{label}").score(["der Hund"], Language.DE)[0].value or 0
        for label in ("#insult", "#threat", "#insult+THREAT")
    ]
    assert found[2] == pytest.approx(found[0] + found[1], abs=1e-6) and min(found) > 0
    for label, says in (("#rude", "no label rude"), ("", "#LABEL")):
        with pytest.raises(ModelError, match=says):
            ClassifierScorer(f"classifier:{folder}{label}").score(["x"], Language.DE)
    multi = classifier(
        tmp_path / "m",
        id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
        problem_type="multi_label_classification",
    )
    summed = ClassifierScorer(f"classifier:{multi}#fine+insult+threat").score(["der Hund"], Language.DE)[0].value
    assert summed is not None and 0 < summed <= 1


def test_a_classifier_without_padding_and_one_that_gives_no_numbers(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "c", **LABELS)
    texts = ["der Hund", "the cat sat on the mat"]
    expected = [score.value for score in ClassifierScorer(f"classifier:{folder}").score(texts, Language.DE)]
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    del tokenizer["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    plain = ClassifierScorer(f"classifier:{folder}")
    assert plain._tokenizer.pad_token_id is None
    assert [score.value for score in plain.score(texts, Language.DE)] == pytest.approx(expected, abs=1e-5)
    with torch.no_grad():
        next(plain._model.parameters()).fill_(float("nan"))
    assert plain.score(texts, Language.DE) == [Score(None, "not-a-number")] * 2


def test_a_folder_that_is_no_classifier_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        open_scorers([f"classifier:{tmp_path / 'empty'}"], {})


def test_a_classifier_is_at_hand_where_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = classifier(tmp_path / "c", **LABELS)
    assert registry.classifier_at_hand(str(folder)) == folder
    assert available([f"classifier:{folder}"]) == {
        "ngram": "ngram",
        f"classifier:{folder}": f"classifier:{folder}",
    }
    cached = tmp_path / "hub" / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    shutil.copytree(folder, cached / "snapshots" / "abc")
    assert registry.classifier_at_hand("owner/name") == cached / "snapshots" / "abc"
    for absent in ("no-such-folder/with/parts", "owner/other", "", str(tmp_path)):
        assert registry.classifier_at_hand(absent) is None
