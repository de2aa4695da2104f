"""Every Triton kernel in Triton's interpreter against the oracles: the tests that are meant for a GPU, rehearsed.

So what these tests ask and tolerate is known to be right before there is a GPU. Whether a kernel is interpreted is
settled when it is defined, and so they have a process of their own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitlite.kernels import backends, memory_read

pytest.importorskip("triton")
HERE = Path(__file__).parent
REHEARSED = ["test_triton_gpu.py", "test_cuda_runtime.py"]


def test_rehearsal():
    """With a GPU's rounding."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "VITLITE_REHEARSAL": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "gpu_rounding", "-p", "no:cacheprovider"]
    files = [str(HERE / name) for name in REHEARSED]
    done = subprocess.run([*command, *files], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100
    assert "'dot INPUT_PRECISION.TF32x3': " in done.stdout  # it did round


def test_without_the_interpreter_cpu_tensors_are_refused():
    with pytest.raises(ValueError, match=r"^backend: 'triton' of memory_read is not available: .*TRITON_INTERPRET=1"):
        memory_read(torch.rand(4, 6), torch.rand(5, 6), backend="triton")
    assert "triton" not in backends("ssim")["auto"].get("cpu", "")
