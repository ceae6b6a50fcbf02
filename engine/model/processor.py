"""What this CPU computes in hardware, according to oneDNN, which torch uses for matrix products.

One answer for all who ask: the dtype of a base, and the packing of its frozen weights.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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
