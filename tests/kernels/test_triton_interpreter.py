"""Every Triton kernel in Triton's interpreter against the oracles, values and gradients.

Whether a kernel is interpreted is settled when it is defined, so that these tests have a process of their own: without
TRITON_INTERPRET=1 in the environment the file has one test, which runs the file again with it.
"""

import os
import subprocess
import sys
import warnings

import pytest
import torch
import triton_cases as cases

from vitlite.kernels import attention, backends, linear_gmm_log_likelihood, memory_read, ssim
from vitlite.kernels._triton import interpreted

pytest.importorskip("triton")
CPU = torch.device("cpu")

if not interpreted():

    def test_all_of_this_file_in_the_interpreter():
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert " passed" in done.stdout

    def test_without_the_interpreter_cpu_tensors_are_refused():
        with pytest.raises(
            ValueError, match=r"^backend: 'triton' of memory_read is not available: .*TRITON_INTERPRET=1"
        ):
            memory_read(torch.rand(4, 6), torch.rand(5, 6), backend="triton")
        assert "triton" not in backends("ssim")["auto"].get("cpu", "")

else:

    @pytest.fixture(autouse=True)
    def _quiet():
        """numpy warns of what happens in rows that are masked afterwards."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield

    @pytest.mark.parametrize(("shape", "dtype"), cases.ATTENTION, ids=str)
    def test_attention(shape, dtype):
        cases.check_attention(CPU, shape, dtype)

    def test_attention_under_every_circumstance():
        cases.check_attention_with_large_scores(CPU)
        cases.check_attention_of_any_strides(CPU)
        with pytest.raises(ValueError, match=r"^q: heads of 300 are wider"):
            attention(*[torch.rand(1, 1, 2, 300)] * 3, backend="triton")

    @pytest.mark.parametrize(("shape", "scale", "dtype", "options"), cases.MEMORY, ids=str)
    def test_memory(shape, scale, dtype, options):
        cases.check_memory(CPU, shape, scale, dtype, options)

    def test_memory_under_every_circumstance():
        cases.check_memory_that_is_all_shrunk(CPU)
        cases.check_memory_with_zero_rows(CPU)
        cases.check_memory_with_a_bad_row(CPU)

    @pytest.mark.parametrize(("shape", "window_size", "padding", "reduction", "dtype"), cases.SSIM, ids=str)
    def test_ssim(shape, window_size, padding, reduction, dtype):
        cases.check_ssim(CPU, shape, window_size, padding, reduction, dtype)

    def test_ssim_under_every_circumstance():
        cases.check_ssim_of_any_strides(CPU)
        with pytest.raises(ValueError, match=r"^window_size: 27 is more than"):
            ssim(*[torch.rand(1, 1, 30, 30)] * 2, window_size=27, backend="triton")

    @pytest.mark.parametrize(("shape", "scale", "isotropic", "dtype"), cases.GMM, ids=str)
    def test_gmm(shape, scale, isotropic, dtype):
        cases.check_gmm(CPU, shape, scale, isotropic, dtype)

    def test_gmm_under_every_circumstance():
        cases.check_gmm_of_any_strides(CPU)

    @pytest.mark.parametrize(("shape", "scale", "biases", "chunk", "dtype"), cases.LINEAR, ids=str)
    def test_linear_gmm(shape, scale, biases, chunk, dtype):
        cases.check_linear(CPU, shape, scale, biases, chunk, dtype)

    def test_gradient_of_one_argument_alone():
        z, items, *grads = cases.test_memory.problem(7, 22, 9)
        both = cases.test_memory.run(z, items, *grads, backend="triton")[2:]
        for wanted in (0, 1):
            inputs = [a.detach().requires_grad_(i == wanted) for i, a in enumerate((z, items))]
            (alone,) = torch.autograd.grad(memory_read(*inputs, backend="triton"), inputs[wanted], grads)
            torch.testing.assert_close(alone, both[wanted])
        tensors, grad = cases.test_gmm_linear.problem(4, 3, 5, 6)
        whole = cases.test_gmm_linear.run(tensors, grad, backend="triton")[1:]
        for wanted, right in enumerate(whole):
            inputs = [a.detach().requires_grad_(i == wanted) for i, a in enumerate(tensors)]
            (alone,) = torch.autograd.grad(linear_gmm_log_likelihood(*inputs, backend="triton"), inputs[wanted], grad)
            torch.testing.assert_close(alone, right)

    def test_second_derivatives():
        q = torch.rand(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda q: attention(q, q, q, backend="triton"), (q,), fast_mode=True)
