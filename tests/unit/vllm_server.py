"""A server on this machine that speaks vLLM's protocol, and breaks it in every way that we know of.

The model that is asked for says how: those of `MODELS` answer, the others misbehave by their names. Like vLLM it takes
adapters at run time where it is told to, and then they answer too.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECES = ("Ein ", "schöner ", "Tag 🌞", ".")
MODELS = {"base": None, "german": "base", "hindi": "base", "russian": "base"}
MISBEHAVING = ("missing", "broken", "cut", "short", "silent", "endless", "garbled", "refusing")


class _Handler(BaseHTTPRequestHandler):
    server: "VllmServer"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        if self.path == "/v1/load_lora_adapter":
            self._answer(405 if self.server.takes_adapters else 404, {"detail": "no"})
            return
        assert self.path == "/v1/models"
        if self.server.list_is_broken:
            self._answer(200, {"models": []})
            return
        names = {self.server.base if name == "base" else name: parent for name, parent in MODELS.items()}
        names |= dict.fromkeys([*MISBEHAVING, *self.server.loaded], "base")
        parents = {"base": self.server.base, None: None}
        self._answer(200, {"data": [{"id": name, "parent": parents[parent]} for name, parent in names.items()]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            self._load(body["lora_name"], body["lora_path"])
            return
        assert self.path == "/v1/completions"
        self.server.asked.append(body)
        match body["model"]:
            case "missing":
                self._answer(404, {"error": {"message": "The model `missing` does not exist."}})
            case model if model not in {*MODELS, *MISBEHAVING, *self.server.loaded, self.server.base}:
                self._answer(404, {"error": {"message": f"The model `{model}` does not exist."}})
            case "broken":
                self._answer(500, {"error": {"message": "out of memory"}})
            case model:
                self._stream(model, body)

    def _load(self, name: str, path: str) -> None:
        """As vLLM 0.32 answers; a folder named `too-large` stands for an adapter that its engine refuses."""
        if not self.server.takes_adapters:
            self._answer(404, {"detail": "Not AdapterFolder"})
        elif name in self.server.loaded:
            self._answer(400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}})
        elif not os.path.isdir(path):
            self._answer(404, {"error": {"message": f"No adapter found for {path}"}})
        elif os.path.basename(path) == "too-large":
            self._answer(500, {"error": {"message": "LoRA rank 64 is greater than max_lora_rank 16."}})
        else:
            self.server.loaded[name] = path
            self._answer(200, f"Success: LoRA adapter '{name}' added successfully.")

    def _answer(self, status: int, said: object) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, model: str, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        pieces = [f"{model}: {body['prompt']} ", *PIECES]
        for number, piece in enumerate(pieces):
            if model in MISBEHAVING and number == 2:
                break
            self._say(json.dumps({"choices": [{"text": piece, "index": 0}]}, ensure_ascii=False))
        match model:
            case "cut":
                self.close_connection = True
                return
            case "short":
                self._chunk(b"")
                return
            case "garbled":
                self._say('{"choices": [{"te')
            case "refusing":
                self._say(json.dumps({"error": {"message": "the engine is dead"}}))
            case "silent":
                self.server.released.wait()
            case "endless":
                while self._say(json.dumps({"choices": [{"text": "x", "index": 0}]})):
                    pass
                self.server.hung_up.set()
                self.close_connection = True
                return
        self._say("[DONE]")
        self._chunk(b"")

    def _say(self, event: str) -> bool:
        """Sends an event; False when nobody listens any more."""
        return self._chunk(f"data: {event}\n\n".encode())

    def _chunk(self, content: bytes) -> bool:
        try:
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        except OSError:
            return False
        return True


class VllmServer(ThreadingHTTPServer):
    """`asked`: the bodies of all requests for text. `base`: what it calls its base. `loaded`: folders of adapters, by
    name, that it has loaded; it takes them where `takes_adapters`. A `silent` stream goes on when it is `released`;
    `hung_up` is set when somebody closes an `endless` one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.released, self.hung_up = threading.Event(), threading.Event()
        self.list_is_broken = self.takes_adapters = False
        self.base = "base"
        self.loaded: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[VllmServer]:
    """The server, for the length of a block."""
    with VllmServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
