"""A processor without bfloat16, whichever this one is: oneDNN is told to use nothing newer than AVX2."""

import os
import subprocess
import sys

import pytest
import torch

from engine.model import processor
from engine.model.machine import at_hand

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
PROBE = """
import torch
from engine.model import processor
from engine.model.machine import at_hand
from engine.model.frozen import FrozenLinear
torch.manual_seed(0)
for dtype in (torch.bfloat16, torch.float32):
    layer, x = FrozenLinear(torch.randn(48, 32).to(dtype)), torch.randn(5, 32).to(dtype).requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, x @ layer.weight.to_dense().T)
    y.sum().backward()
    print(layer.is_packed, bool(x.grad.isfinite().all()))
print(processor.has_bfloat16(), at_hand().dtype)
"""


def output_of(program: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", program], env={**os.environ, **AVX2}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the dtype is the GPU's there")
def test_without_bfloat16_a_base_is_float32_and_bfloat16_still_works() -> None:
    is_packed, has_gradient, *rest = output_of(PROBE)
    assert (is_packed, has_gradient) == ("False", "True")
    assert rest == [str(processor.packs(torch.ones(8, 8))), "True", "False", "float32"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the dtype is the GPU's there")
def test_the_dtype_and_the_packing_of_this_machine_have_one_answer() -> None:
    assert processor.packs(torch.ones(8, 8).bfloat16()) == processor.has_bfloat16()
    assert at_hand().dtype == ("bfloat16" if processor.has_bfloat16() else "float32")


def test_a_process_without_torch_asks_another_one() -> None:
    program = (
        "import sys; from engine.model.machine import asked_outside\n"
        "print(asked_outside().dtype, 'torch' in sys.modules)"
    )
    assert output_of(program) == ["float32", "False"]
