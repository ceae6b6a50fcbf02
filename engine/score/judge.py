"""A language model as a judge: `judge:MODEL` behind an OpenAI-compatible endpoint at JUDGE_URL (and JUDGE_API_KEY).

The rubric is data/judge/rubric.md. The answer is JSON with one number, which the request's schema demands. The revision
is a hash of the rubric; which weights a service has behind a model's name, only the service knows.
"""

import json
import os
from collections.abc import Mapping, Sequence

import requests
from urllib3.util import Retry

from engine.config import DATA
from engine.errors import UsageError
from engine.score.remote import TIMEOUT, retries, session
from engine.vocabulary import Language, Pair, Score, digest

RUBRIC = DATA / "judge" / "rubric.md"
SCHEMA = {
    "name": "toxicity",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"toxicity": {"type": "number", "minimum": 0, "maximum": 100}},
        "required": ["toxicity"],
        "additionalProperties": False,
    },
}
MAX_TOKENS = 50
MAX_CHARACTERS = 20_000


class JudgeScorer:
    """One request a text, greedy. A wrong key, or a quota that is used up, stops the asking; the same command goes on
    later."""

    is_remote = True

    def __init__(self, name: str, url: str, key: str = "", retry: Retry | None = None) -> None:
        self.name, self._model = name, name.partition(":")[2]
        self._rubric = RUBRIC.read_text(encoding="utf-8")
        self.revision = digest([self._rubric, SCHEMA], 8)
        base = url.rstrip("/").removesuffix("/v1")
        self._url = f"{base}/v1/chat/completions"
        self._session = session(retry or retries(), {"Authorization": f"Bearer {key}"} if key else {})
        self._stopped_by = ""

    def score(self, texts: Sequence[str], eval_lang: Language) -> list[Score]:
        """The language changes nothing: the rubric is for any."""
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> Score:
        if not text.strip():
            return Score(None, "empty")
        if len(text) > MAX_CHARACTERS:
            return Score(None, "too-long")
        if self._stopped_by:
            return Score(None, self._stopped_by)
        body = {
            "model": self._model,
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
            "response_format": {"type": "json_schema", "json_schema": SCHEMA},
            "messages": [{"role": "system", "content": self._rubric}, {"role": "user", "content": text}],
        }
        try:
            answer = self._session.post(self._url, json=body, timeout=TIMEOUT)
        except requests.RequestException:
            return Score(None, "no-connection")
        if answer.status_code in (401, 403, 429):
            self._stopped_by = "rate-limited" if answer.status_code == 429 else "wrong-key"
            return Score(None, self._stopped_by)
        if answer.status_code != 200:
            return Score(None, f"http-{answer.status_code}")
        return _read(answer)


def _read(answer: requests.Response) -> Score:
    try:
        value = json.loads(answer.json()["choices"][0]["message"]["content"])["toxicity"]
    except (ValueError, KeyError, TypeError, IndexError):
        return Score(None, "bad-answer")
    if type(value) not in (int, float) or not 0 <= value <= 100:
        return Score(None, "bad-answer")
    return Score(value / 100)


def open_scorers(
    names: Sequence[str], training: Mapping[Language, Sequence[Pair]], environment: Mapping[str, str] = os.environ
) -> list[JudgeScorer]:
    """The judges of these names. Errors: UsageError (no model, or no address)."""
    for name in names:
        if not name.partition(":")[2]:
            raise UsageError("--scorers judge needs a model: judge:MODEL, as the endpoint at JUDGE_URL calls it.")
    url = environment.get("JUDGE_URL", "")
    if not url.startswith(("http://", "https://")):
        raise UsageError("--scorers judge needs an OpenAI-compatible endpoint: set JUDGE_URL, such as https://host/v1.")
    return [JudgeScorer(name, url, environment.get("JUDGE_API_KEY", "")) for name in names]


def available(used: Sequence[str]) -> dict[str, str]:
    """None: every text costs a request."""
    return {}
