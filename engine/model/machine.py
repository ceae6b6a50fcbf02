"""The hardware: its memory, the dtype that it supports, and how fast it multiplies matrices.

torch knows. A dry run, which imports no torch, asks another process: `python -m engine.model.machine` prints what
`at_hand` returns, as JSON.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import psutil

from engine.config import BFLOAT16, FLOAT32

H100_RATES = {BFLOAT16: 790e12, FLOAT32: 50e12}
"""Floating-point operations per second that large matrix products reach on an H100."""

PRODUCT = (336, 640, 4096)
"""Rows, inputs and outputs of the product that is timed on a CPU: a token of every row of a batch, and a slice of the
embedded base's output head."""

CUDA_PRODUCT = (8192, 8192, 8192)
"""And on a GPU: large enough to fill it."""

RATE_SECONDS = 0.25


@dataclass(frozen=True)
class Machine:
    """`kind` is 'cuda' or 'cpu'; `memory` in bytes; `dtype`: the best that it has in hardware; `rates`: floating-point
    operations per second in matrix products, by dtype."""

    kind: str
    name: str
    memory: float
    dtype: str
    rates: Mapping[str, float]


H100 = Machine("cuda", "one H100 with 80 GB", 80e9, BFLOAT16, H100_RATES)


@cache
def at_hand() -> Machine:
    """This machine, with the memory that a container may use. Imports torch."""
    import torch

    from engine.model.processor import has_bfloat16

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        dtype = BFLOAT16 if torch.cuda.is_bf16_supported() else FLOAT32
        rates = {dtype: _rate(dtype, "cuda", CUDA_PRODUCT) for dtype in (BFLOAT16, FLOAT32)}
        return Machine("cuda", properties.name, float(properties.total_memory), dtype, rates)
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    memory = min(float(psutil.virtual_memory().total), float("inf" if allowed == "max" else allowed))
    rates = {dtype: _rate(dtype, "cpu", PRODUCT) for dtype in (BFLOAT16, FLOAT32)}
    return Machine("cpu", "this machine", memory, BFLOAT16 if has_bfloat16() else FLOAT32, rates)


@cache
def asked_outside() -> Machine:
    """`at_hand` of another process, for one that imports no torch."""
    root = Path(__file__).parents[2]
    answer = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=True, cwd=root)
    return Machine(**json.loads(answer.stdout.splitlines()[-1]))


def _rate(dtype: str, device: str, product: tuple[int, int, int]) -> float:
    """Floating-point operations per second that a product with frozen weights reaches here, on the whole device.

    The median of what fits in `RATE_SECONDS`, so that a pause of the machine does not count.
    """
    import torch

    from engine.model.frozen import FrozenLinear

    rows, inputs, outputs = product
    # Random: a GPU multiplies ones faster.
    generator = torch.Generator(device).manual_seed(0)
    weight, x = (
        torch.randn(n, inputs, dtype=getattr(torch, dtype), device=device, generator=generator) for n in (outputs, rows)
    )
    layer = FrozenLinear(weight)
    seconds: list[float] = []
    with torch.inference_mode():
        layer(x)  # the first one is slower
        while sum(seconds) < RATE_SECONDS:
            torch.get_device_module(device).synchronize()
            began = time.perf_counter()
            layer(x)
            torch.get_device_module(device).synchronize()
            seconds.append(time.perf_counter() - began)
    return 2.0 * rows * inputs * outputs / statistics.median(seconds)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(at_hand())) + "\n")
