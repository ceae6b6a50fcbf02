"""What this machine's processor computes in hardware: asked of oneDNN, which torch multiplies matrices with.

One answer for all who ask: the dtype of a base, the packing of its frozen weights, the estimate of a plan's time.
"""

import statistics
import time
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRODUCT = (336, 640, 4096)
"""Rows, inputs and outputs of the product that `matrix_rate` times: a token of every row of a batch, and a slice of the
embedded base's output head."""

RATE_SECONDS = 0.25


def has_bfloat16() -> bool:
    """Whether bfloat16 products are in hardware.

    oneDNN's own predicate obeys ONEDNN_MAX_CPU_ISA, but also says yes where AVX-512 alone emulates bfloat16 (a sixth of
    the rate of float32, measured); so the processor's flags must say yes as well.
    """
    import torch

    return bool(
        torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    )


def packs(weight: "torch.Tensor") -> bool:
    """Whether oneDNN takes this weight in a layout of its own: on x86, bfloat16 only where it is in hardware."""
    import torch

    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return has_bfloat16()
    return weight.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability().startswith("AVX")


@cache
def matrix_rate(dtype: str) -> float:
    """Floating-point operations per second that products with frozen weights reach here, on all cores, measured.

    The median of what fits in `RATE_SECONDS`, so that a pause of the machine does not count.
    """
    import torch

    from engine.model.frozen import FrozenLinear

    rows, inputs, outputs = PRODUCT
    weight, x = (torch.ones(n, inputs, dtype=getattr(torch, dtype)) for n in (outputs, rows))
    layer = FrozenLinear(weight)
    seconds: list[float] = []
    with torch.inference_mode():
        layer(x)  # the first one is slower
        while sum(seconds) < RATE_SECONDS:
            began = time.perf_counter()
            layer(x)
            seconds.append(time.perf_counter() - began)
    return 2.0 * rows * inputs * outputs / statistics.median(seconds)
