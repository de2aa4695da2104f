"""How the Triton kernels are reached: never imported early, explained where missing, chosen for CUDA tensors."""

import os
import subprocess
import sys

import pytest

# Calls every operator on this device, which may be one that is only pretended.
CALLS = """
for name in kernels.OPERATORS:
    for dtype in (torch.float32, torch.bfloat16):
        tensors = [torch.empty_like(a, device=device) for a in kernels.operator(name).sample(dtype)]
        results = getattr(kernels, name)(*[a.requires_grad_(gradients) for a in tensors], **options)
        result = results[0] if isinstance(results, tuple) else results
        assert result.dtype == dtype and result.device == device, name
        if gradients: result.sum().backward()
"""


def python(code, **environment):
    variables = {**os.environ, "TRITON_INTERPRET": "0", **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_triton_is_not_imported_before_it_is_needed():
    code = "import sys, torch\nbefore = 'triton' in sys.modules\nfrom vitlite import kernels\nkernels.backends()\n"
    code += "device, options, gradients = torch.device('cpu'), {}, True\n" + CALLS
    python(code + "assert before or 'triton' not in sys.modules\n")


@pytest.mark.parametrize(
    ("replacement", "reason"), [("None", "triton is not installed"), ("find('no such')", "triton")]
)
def test_without_triton_the_reason_is_given(replacement, reason):
    code = "import importlib.util, torch\nfind = importlib.util.find_spec\n"
    code += f"importlib.util.find_spec = lambda name, *a: {replacement} if name == 'triton' else find(name, *a)\n"
    code += "from vitlite import kernels\nprint(kernels.backends('memory_read')['unavailable']['triton'])\n"
    code += "device, options, gradients = torch.device('cpu'), {}, True\n" + CALLS
    assert "triton is not installed" in python(code)


def test_an_old_triton_is_refused():
    code = "import importlib.metadata as m\nversion = m.version\n"
    code += "m.version = lambda name: '3.1.0' if name == 'triton' else version(name)\n"
    code += "from vitlite import kernels\nprint(kernels.backends('ssim')['unavailable']['triton'])\n"
    pytest.importorskip("triton")
    assert "triton 3.1.0 is older than 3.6" in python(code)


PRETEND = """
import torch
torch.version.cuda = torch.version.cuda or "13.0"
from vitlite import kernels
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
made = []
class Recorder(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "vitlite":
            made.append(function._schema.name.removeprefix("vitlite::"))
        return function(*args, **(kwargs or {}))
"""


def test_cuda_tensors_are_served_by_triton_where_nothing_is_compiled_for_them():
    pytest.importorskip("triton")
    code = PRETEND + "for op, table in kernels.backends().items(): print(op, table['auto']['cuda'])\n"
    code += "for op in ('memory_read', 'nearest', 'ssim', 'gmm_log_likelihood', 'linear_gmm_log_likelihood'):\n"
    code += "    for step in ('forward', 'backward'):\n"
    code += "        assert torch._C._dispatch_has_kernel_for_dispatch_key(f'vitlite::{op}_{step}', 'CUDA')\n"
    served = dict(line.split() for line in python(code).splitlines())
    assert served.pop("attention") == "sdpa"
    assert served["memory_read"] == served["nearest"] == served["linear_gmm_log_likelihood"] == "triton"
    assert set(served.values()) <= {"triton", "cuda"}


def test_shapes_and_dtypes_on_cuda_are_known_without_a_gpu():
    """What torch.compile goes by: the public functions with fake CUDA tensors. Forward alone: gradients, of fake ones
    too, take a torch that is built for CUDA."""
    pytest.importorskip("triton")
    code = PRETEND + "device, options, gradients = torch.device('cuda', 0), {'backend': 'triton'}, False\n"
    code += "with FakeTensorMode(), Recorder():\n    " + CALLS.strip().replace("\n", "\n    ")
    code += "\nprint(*sorted(set(made)))\n"
    made = python(code).split()
    assert len(made) == 6
    assert all(name.startswith("triton_") for name in made)
