"""A local server that speaks as much of the hub's protocol as models need: metadata, file lists, files at a commit."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

COMMIT = "c" * 40
GATED, ILL = "owner/gated", "owner/ill"
"""A model whose terms are not accepted, and one that makes the hub fail."""


class HubServer(ThreadingHTTPServer):
    """`repos`: model id → the folder of its files. `requests` holds the path of every GET."""

    def __init__(self, repos: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.requests = dict(repos), list[str]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def downloads(self, repo: str) -> list[str]:
        """The files of a model that were downloaded."""
        begin = f"/{repo}/resolve/"
        return [path.rpartition("/")[2] for path in self.requests if path.startswith(begin)]


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self._answer(True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+|/tree/[^/]+)?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        match = api or file
        repo = match[1] if match else ""
        if repo == ILL:
            return self._send(500, b"", with_body)
        if repo == GATED:
            return self._send(403, b"", with_body, {"X-Error-Code": "GatedRepo"})
        if match is None or repo not in self.server.repos:
            return self._send(404, b"", with_body, {"X-Error-Code": "RepoNotFound"})
        folder = self.server.repos[repo]
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if api and (api[2] or "").startswith("/tree"):
            tree = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": _etag(p)} for p in files]
            return self._send(200, json.dumps(tree).encode(), with_body)
        if api:
            info = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": path.name} for path in files]}
            return self._send(200, json.dumps(info).encode(), with_body)
        if not (folder / match[2]).is_file():
            return self._send(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
        content = (folder / match[2]).read_bytes()
        return self._send(200, content, with_body, {"ETag": f'"{_etag(folder / match[2])}"'})

    def _send(self, status: int, body: bytes, with_body: bool, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serving(repos: Mapping[str, Path]) -> Iterator[HubServer]:
    with HubServer(repos) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def use(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """This process asks the hub at `address`, and keeps what it downloads in `cache`."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", address, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
