"""A short visit to a GPU: is the engine right there, how fast is it, and where does the time go?

    python -m bench.gpu --out FOLDER

For a machine with torch, transformers, peft and safetensors, and without a network. The base has the shape of Aya 8B
and random weights that are drawn on the device; nothing is written but FOLDER/gpu.jsonl, a line for each step as it
ends. A step that fails is a line with its error; steps that the deadline leaves no time for are lines too. With
`--shape tiny` all of it runs on a CPU in a minute.
"""

import argparse
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As `run_sweep.py` sets it; and what cuBLAS needs to say that it is deterministic.
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from bench import gpu_steps
from bench.gpu_base import SHAPES, Device

DEADLINE = 420.0
"""Seconds after which no step is begun."""


@dataclass(frozen=True)
class Step:
    """`run` gives the numbers of one step, as JSON has them."""

    name: str
    run: Callable[[Device], dict[str, Any]]


STEPS = (
    Step("facts", gpu_steps.facts),
    Step("float32: equal to PEFT", gpu_steps.equal_to_peft),
    Step("bfloat16: near float32", gpu_steps.near_float32),
    Step("dropout: equal to a CPU's", gpu_steps.dropout_masks),
    Step("training, 13 adapters", lambda device: gpu_steps.training(device, 13)),
    Step("training, one adapter", lambda device: gpu_steps.training(device, 1)),
    Step("determinism", gpu_steps.determinism),
    Step("training, naive and strong", gpu_steps.training_baselines),
    Step("perplexity", gpu_steps.likelihoods),
    Step("generation", gpu_steps.generation),
    Step("generation, naive and strong", gpu_steps.generation_baselines),
)


def main() -> int:
    """Runs the steps; 0 when every one ran and the gates hold."""
    parser = argparse.ArgumentParser(description="How right and how fast the engine is on this machine's GPU.")
    parser.add_argument("--out", type=Path, required=True, help="the folder of gpu.jsonl")
    parser.add_argument("--shape", choices=SHAPES, default="cohere-8b", help="the shape of the random base")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds after which no step is begun")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    began, device, ok = time.monotonic(), Device(options.shape), True
    with open(options.out / "gpu.jsonl", "a", encoding="utf-8") as target:
        for step in STEPS:
            record = _record(step, device, began, options.deadline)
            ok &= record["state"] == "done" and record.get("is_right", True)
            target.write(json.dumps(record) + "\n")
            target.flush()
            sys.stdout.write(f"{step.name}: {record['state']} in {record['seconds']:.1f} s{_brief(record)}\n")
            sys.stdout.flush()
    return 0 if ok else 1


def _record(step: Step, device: Device, began: float, deadline: float) -> dict[str, Any]:
    start = time.monotonic()
    record: dict[str, Any] = {"step": step.name, "shape": device.shape_name, "state": "done"}
    if start - began > deadline:
        return {**record, "state": "skipped: past the deadline", "seconds": 0.0}
    try:
        device.reset_peak()
        record |= step.run(device)
        record["peak_gb"] = device.peak_gb()
    except Exception as error:  # noqa: BLE001  a step that fails is a result, and the next one goes on
        record |= {"state": f"failed: {error}", "traceback": traceback.format_exc()}
    # The traceback held what the step had in memory.
    gc.collect()
    if device.is_cuda:
        torch.cuda.empty_cache()
    return {**record, "seconds": time.monotonic() - start}


def _brief(record: dict[str, Any]) -> str:
    """The numbers of a record, on one line."""
    numbers = {name: value for name, value in record.items() if isinstance(value, int | float) and name != "seconds"}
    return "".join(f"; {name} {value:.4g}" for name, value in numbers.items())


if __name__ == "__main__":
    sys.exit(main())
