"""Google's Perspective API (Lees et al. 2022) over HTTP. Never invents a value, never shows the key.

One request a text asks for all attributes a sweep scores by; a text that fails has no score and a reason. The key goes
in a header, never into a URL. The service is announced to end with 2026; scores that are stored stay usable.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import requests
from urllib3.util import Retry

from engine.errors import UsageError
from engine.score.remote import TIMEOUT, retries, session
from engine.vocabulary import Language, Pair, Score

URL = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
REVISION = "v1alpha1"
SUPPORTED = frozenset(
    ["ar", "cs", "de", "en", "es", "fr", "hi", "hin", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "zh"]
)
"""Languages whose toxicity it scores."""
PERSPECTIVE_CODES = {Language.HIN: "hi-Latn"}
MAX_BYTES = 20_480
QPS = 1.0
"""Requests a second that a new key may send."""


@dataclass
class Client:
    """One connection for all attributes of a sweep. `answers` remembers what was asked in this process. `stopped_by`:
    why the service is asked no more in this process: a wrong key, or a quota that is used up."""

    attributes: tuple[str, ...]
    url: str
    key: str = field(repr=False)
    seconds_between: float
    retry: Retry = field(default_factory=retries)
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        self.session = session(self.retry, {"X-Goog-Api-Key": self.key})
        self.answers: dict[tuple[Language, str], dict[str, Score]] = {}
        self.next_time = 0.0
        self.stopped_by = ""

    def ask(self, text: str, lang: Language) -> dict[str, Score]:
        """The scores of one text by attribute; the same reason for all where there are none."""
        if (lang, text) not in self.answers:
            answer = self._request(text, lang)
            self.answers[lang, text] = answer if isinstance(answer, dict) else dict.fromkeys(self.attributes, answer)
        return self.answers[lang, text]

    def _request(self, text: str, lang: Language) -> dict[str, Score] | Score:
        if not text.strip():
            return Score(None, "empty")
        if lang not in SUPPORTED:
            return Score(None, "unsupported-language")
        if len(text.encode()) > MAX_BYTES:
            return Score(None, "too-long")
        if self.stopped_by:
            return Score(None, self.stopped_by)
        time.sleep(max(0.0, self.next_time - time.monotonic()))
        self.next_time = time.monotonic() + self.seconds_between
        body = {
            "comment": {"text": text},
            "languages": [PERSPECTIVE_CODES.get(lang, lang.value)],
            "requestedAttributes": {name.upper(): {} for name in self.attributes},
            "doNotStore": True,
        }
        try:
            answer = self.session.post(self.url, json=body, timeout=self.timeout)
        except requests.RequestException:
            return Score(None, "no-connection")
        return self._read(answer)

    def _read(self, answer: requests.Response) -> dict[str, Score] | Score:
        if answer.status_code == 200:
            try:
                scores = answer.json()["attributeScores"]
                values = {name: scores[name.upper()]["summaryScore"]["value"] for name in self.attributes}
            except (ValueError, KeyError, TypeError):
                return Score(None, "bad-answer")
            if all(type(value) in (int, float) and 0 <= value <= 1 for value in values.values()):
                return {name: Score(float(value)) for name, value in values.items()}
            return Score(None, "bad-answer")
        if answer.status_code == 429:  # after all tries: the quota is used up, and more requests would be refused too
            self.stopped_by = "rate-limited"
            return Score(None, self.stopped_by)
        message = _message(answer)
        if answer.status_code in (401, 403) or "API key" in message:
            self.stopped_by = "wrong-key"
            return Score(None, self.stopped_by)
        if answer.status_code == 400 and "language" in message.lower():
            return Score(None, "unsupported-language")
        return Score(None, f"http-{answer.status_code}")


def _message(answer: requests.Response) -> str:
    try:
        return json.dumps(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return ""


class PerspectiveScorer:
    """One attribute of the answers of a shared client."""

    revision = REVISION
    is_remote = True

    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self._attribute, self._client = attribute_of(name), client

    def score(self, texts: Sequence[str], eval_lang: Language) -> list[Score]:
        """Amharic and Ukrainian are refused, not sent as another language. A sentence the service cannot read in a
        language it knows has no score either."""
        return [self._client.ask(text, eval_lang)[self._attribute] for text in texts]


def attribute_of(name: str) -> str:
    """`perspective` is the first attribute, toxicity; `perspective:insult` and so on are scorers of their own."""
    return name.partition(":")[2] or "toxicity"


def open_scorers(
    names: Sequence[str], training: Mapping[Language, Sequence[Pair]], environment: Mapping[str, str] = os.environ
) -> list[PerspectiveScorer]:
    """The scorers of these names over one client. Errors: UsageError (no key, or a rate that is no number)."""
    key = environment.get("PERSPECTIVE_API_KEY", "")
    if not key:
        raise UsageError("--scorers perspective needs a key: set PERSPECTIVE_API_KEY, or use --scorers ngram.")
    rate = environment.get("PERSPECTIVE_QPS", str(QPS))
    try:
        seconds = 1 / float(rate)
    except (ValueError, ZeroDivisionError):
        seconds = -1.0
    if not seconds > 0:
        raise UsageError(f"PERSPECTIVE_QPS is {rate!r}; set it to requests per second, such as 1.")
    client = Client(tuple(map(attribute_of, names)), environment.get("PERSPECTIVE_URL", URL), key, seconds)
    return [PerspectiveScorer(name, client) for name in names]


def available(used: Sequence[str]) -> dict[str, str]:
    """Toxicity, where there is a key."""
    return {"perspective": "perspective"} if os.environ.get("PERSPECTIVE_API_KEY") else {}
