"""A vLLM server, or another one with OpenAI-compatible completions, as a backend for single prompts.

Owns the protocol, and turns every way in which a server can fail into a ServerError. Text is reproducible by the
server's own per-request seed only: it draws other numbers than our own backend.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from engine.errors import ServerError
from engine.vocabulary import Sampling

CONNECT, READ = 5.0, 120.0
"""Seconds to wait for a connection, and for each next piece: under load a first token has taken 77."""

LOAD = "/v1/load_lora_adapter"
"""vLLM has this address where VLLM_ALLOW_RUNTIME_LORA_UPDATING is set."""


@dataclass(frozen=True)
class ServedModel:
    """A model that the server offers; `base` is the one it adapts, None for a base itself."""

    name: str
    base: str | None


class _RefusedError(ServerError):
    """An answer that is not 200, and what the server says of it."""

    def __init__(self, name: str, status: int, why: str) -> None:
        super().__init__(f"{name}: the server answers with HTTP {status}. {why}".strip())
        self.status, self.why = status, why


class Server:
    """`url` as in VLLM_URL: http://host:port, with or without /v1."""

    def __init__(self, url: str, timeout: tuple[float, float] = (CONNECT, READ)) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout = timeout
        parts = urlsplit(self.url)
        self.name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        """The address without the password that it may hold."""

    def models(self) -> list[ServedModel]:
        """Bases and adapters, in the server's order. Errors: ServerError."""
        with self._request("GET", "/v1/models") as answer:
            try:
                return [ServedModel(str(model["id"]), model.get("parent")) for model in answer.json()["data"]]
            except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ServerError(f"{self.name}: cannot read its list of models. Is it a vLLM server?") from error

    def loads_adapters(self) -> bool:
        """Whether it takes adapters at run time. Errors: ServerError."""
        try:
            self._request("GET", LOAD).close()
        except _RefusedError as error:
            return error.status == 405  # the address is there, for POST
        return False

    def load(self, name: str, folder: Path) -> None:
        """Has it load the adapter in `folder`, a path on the server's machine, as `name`. Errors: ServerError."""
        try:
            self._request("POST", LOAD, {"lora_name": name, "lora_path": str(folder)}).close()
        except _RefusedError as error:
            if error.status in (404, 405) and not error.why:
                raise ServerError(
                    f"{self.name}: the server cannot load adapters at run time. Choose one that it was started with, "
                    f"or start it with {name} (make serve), or with VLLM_ALLOW_RUNTIME_LORA_UPDATING=true."
                ) from error
            raise ServerError(f"{self.name}: the server cannot load {name}. {error.why}".strip()) from error

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
        try:
            streamed = self._request("POST", "/v1/completions", body)
        except _RefusedError as error:
            if error.status != 404:
                raise
            raise ServerError(
                f"{self.name}: the server has no model {model!r}. Choose another one. {error.why}".strip()
            ) from error
        with streamed as answer:
            try:
                for line in answer.iter_lines(chunk_size=1):  # larger ones wait until they are full
                    if line.startswith(b"data:"):
                        event = line.removeprefix(b"data:").strip()
                        if event == b"[DONE]":
                            return
                        yield self._piece(event)
            except requests.RequestException as error:
                raise ServerError(
                    f"{self.name}: the stream was interrupted ({_cause(error)}). Run the prompt again."
                ) from error
            raise ServerError(f"{self.name}: the stream ended early. Run the prompt again.")

    def _piece(self, event: bytes) -> str:
        try:
            event_data: Any = json.loads(event)
            if "error" in event_data:
                raise ServerError(f"{self.name}: {_message(event_data)}")
            return "".join(choice["text"] for choice in event_data["choices"])
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{self.name}: cannot read the stream. Is it a vLLM server?") from error

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
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
        raise _RefusedError(self.name, answer.status_code, why)


def _cause(error: requests.RequestException) -> str:
    return "no answer in time" if isinstance(error, requests.Timeout) or "timed out" in str(error) else "no connection"


def _message(answer: Any) -> str:
    """What a server says went wrong: {"error": {"message": …}}, or older {"message": …}; '' where it says nothing."""
    inner = answer.get("error", answer) if isinstance(answer, dict) else answer
    message = inner.get("message", "") if isinstance(inner, dict) else inner
    return str(message)[:300]
