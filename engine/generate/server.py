"""A vLLM server, or another one that speaks its OpenAI-compatible completions, as a back end for single prompts.

Owns the protocol, and turns every way in which a server can fail into a ServerError. Text is reproducible by the
server's own per-request seed only: it draws other numbers than our own back end.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from engine.errors import ServerError
from engine.vocabulary import Sampling

CONNECT, READ = 5.0, 120.0
"""Seconds to wait for a connection, and for each next piece: under load a first token has taken 77."""


@dataclass(frozen=True)
class Served:
    """A model that the server offers; `base` is the one it adapts, None for a base itself."""

    name: str
    base: str | None


class Server:
    """`url` as in VLLM_URL: http://host:port, with or without /v1."""

    def __init__(self, url: str, timeout: tuple[float, float] = (CONNECT, READ)) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout = timeout
        parts = urlsplit(self.url)
        self.name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        """The address without the password that it may hold."""

    def models(self) -> list[Served]:
        """Bases and adapters, in the server's order. Errors: ServerError."""
        with self._asked("GET", "/v1/models") as answer:
            try:
                return [Served(str(model["id"]), model.get("parent")) for model in answer.json()["data"]]
            except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ServerError(f"{self.name}: its list of models cannot be read. Is it a vLLM server?") from error

    def stream(self, prompt: str, model: str, seed: int, sampling: Sampling) -> Generator[str, None, None]:
        """The pieces of a completion as they come. Closing the iterator ends the request.

        Errors: ServerError, at the first piece or in the middle.
        """
        body = {
            "model": model,
            "prompt": prompt,
            "seed": seed,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "stream": True,
        }
        with self._asked("POST", "/v1/completions", body) as answer:
            try:
                for line in answer.iter_lines(chunk_size=1):  # larger ones wait until they are full
                    if line.startswith(b"data:"):
                        event = line.removeprefix(b"data:").strip()
                        if event == b"[DONE]":
                            return
                        yield self._piece(event)
            except requests.RequestException as error:
                raise ServerError(
                    f"{self.name}: the stream broke off ({_cause(error)}). Run the prompt again."
                ) from error
            raise ServerError(f"{self.name}: the stream ended in the middle. Run the prompt again.")

    def _piece(self, event: bytes) -> str:
        try:
            said: Any = json.loads(event)
            if "error" in said:
                raise ServerError(f"{self.name}: {_message(said)}")
            return "".join(choice["text"] for choice in said["choices"])
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{self.name}: a piece of the stream cannot be read. Is it a vLLM server?") from error

    def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        try:
            answer = requests.request(method, self.url + path, json=body, timeout=self.timeout, stream=True)
        except requests.RequestException as error:
            raise ServerError(
                f"{self.name}: the server cannot be reached ({_cause(error)}). Start it, or set another VLLM_URL."
            ) from error
        if answer.status_code == 200:
            return answer
        with answer:
            try:
                why = _message(answer.json())
            except (requests.RequestException, ValueError):
                why = ""
        if answer.status_code == 404 and body:
            raise ServerError(
                f"{self.name}: the server has no model {body['model']!r}. Choose another one. {why}".strip()
            )
        raise ServerError(f"{self.name}: the server answers with HTTP {answer.status_code}. {why}".strip())


def _cause(error: requests.RequestException) -> str:
    return "no answer in time" if isinstance(error, requests.Timeout) or "timed out" in str(error) else "no connection"


def _message(said: Any) -> str:
    """What a server says went wrong: {"error": {"message": …}}, or older {"message": …}; '' where it says nothing."""
    inner = said.get("error", said) if isinstance(said, dict) else said
    found = inner.get("message", "") if isinstance(inner, dict) else inner
    return str(found)[:300]
