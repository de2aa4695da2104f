"""Every Triton kernel in Triton's interpreter against the oracles: the tests that are meant for a GPU, rehearsed.

So what these tests ask and tolerate is known to be right before there is a GPU.
"""

import re
from pathlib import Path

import pytest
import torch
from rehearsal import rehearse

from vitlite.kernels import backends, memory_read

pytest.importorskip("triton")
HERE = Path(__file__).parent
REHEARSED = ["test_triton_gpu.py", "test_cuda_runtime.py"]


@pytest.mark.slow
def test_rehearsal():
    """With a GPU's rounding."""
    printed = rehearse("gpu_rounding", *(HERE / name for name in REHEARSED))
    assert int(re.search(r"(\d+) passed", printed)[1]) > 100
    assert "'dot INPUT_PRECISION.TF32x3': " in printed  # it did round


def test_without_the_interpreter_cpu_tensors_are_refused():
    with pytest.raises(ValueError, match=r"^backend: 'triton' of memory_read is not available: .*TRITON_INTERPRET=1"):
        memory_read(torch.rand(4, 6), torch.rand(5, 6), backend="triton")
    assert "triton" not in backends("ssim")["auto"].get("cpu", "")
