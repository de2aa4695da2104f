"""The Triton kernels compiled, on a GPU: against the oracles, and under everything torch does with an operator.

Rehearsed by test_triton_interpreter.py, see gpu_place.py.
"""

import os

import pytest
import torch
import triton_cases as cases
from contract import assert_ssim_is_bounded
from gpu_place import DEVICE, marks, only_on_a_gpu, sized
from rehearsal import REHEARSAL

from vitlite.kernels import attention, gmm_log_likelihood, memory_read, ssim
from vitlite.kernels._triton import interpreted, recording

# Without it torch refuses deterministic matrix products, which the tests ask for.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

pytest.importorskip("triton")

pytestmark = [*marks, pytest.mark.skipif(interpreted() != REHEARSAL, reason="Triton interprets on the CPU only")]


def rand(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype).requires_grad_()


def normal(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype).requires_grad_()


@pytest.mark.parametrize(("shape", "dtype"), cases.ATTENTION, ids=str)
def test_attention(shape, dtype):
    cases.check_attention(DEVICE, shape, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "shape",
    sized(
        [(2, 3, 577, 577, 64, 64), (1, 2, 1025, 1025, 64, 64), (2, 2, 300, 200, 96, 80)],
        [(1, 2, 97, 97, 64, 64), (1, 1, 80, 50, 96, 80)],
    ),
    ids=str,
)
def test_attention_of_many_tokens(shape, dtype):
    cases.check_attention(DEVICE, shape, dtype)


def test_attention_under_every_circumstance():
    cases.check_attention_with_large_scores(DEVICE)
    cases.check_attention_of_any_strides(DEVICE)
    with pytest.raises(ValueError, match=r"^q: heads of 300 are wider"):
        attention(*[torch.rand(1, 1, 2, 300, device=DEVICE)] * 3, backend="triton")


@pytest.mark.parametrize(("shape", "scale", "dtype", "options"), cases.MEMORY, ids=str)
def test_memory(shape, scale, dtype, options):
    cases.check_memory(DEVICE, shape, scale, dtype, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_memory_of_many_items(dtype):
    cases.check_memory(DEVICE, sized((300, 700, 768), (40, 70, 100)), 1.0, dtype, {"threshold": 0.0})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_memory_of_a_few_queries_at_a_time(dtype, monkeypatch):
    """As it goes where the weights of all queries are more than there is room for."""
    from vitlite.kernels.memory import triton

    monkeypatch.setattr(triton, "ROOM", 40 * 48)
    assert [s.stop for s in triton.slabs(70, triton.at_a_time(70, 33, triton.ROOM))] == [40, 70]
    cases.check_memory(DEVICE, (70, 33, 40), 1.0, dtype, {"threshold": 0.0})


def test_memory_under_every_circumstance():
    cases.check_memory_that_is_all_shrunk(DEVICE)
    cases.check_memory_with_zero_rows(DEVICE)
    cases.check_memory_with_a_bad_row(DEVICE)


@pytest.mark.parametrize(("shape", "dtype"), cases.NEAREST, ids=str)
def test_nearest(shape, dtype):
    cases.check_nearest(DEVICE, shape, dtype)


def test_nearest_under_every_circumstance(monkeypatch, request):
    if request.config.pluginmanager.has_plugin("gpu_rounding"):
        pytest.skip("rounding that is made up parts equal distances")
    from vitlite.kernels.nearest import triton

    cases.check_nearest_under_every_circumstance(DEVICE)
    monkeypatch.setattr(triton, "ROOM", 0)  # 16 queries at a time
    cases.check_nearest(DEVICE, (20, 20, 9, 2), torch.float32)


@pytest.mark.parametrize(("shape", "window_size", "padding", "reduction", "dtype"), cases.SSIM, ids=str)
def test_ssim(shape, window_size, padding, reduction, dtype):
    cases.check_ssim(DEVICE, shape, window_size, padding, reduction, dtype)


@pytest.mark.parametrize("window_size", [11, 25])
def test_ssim_of_large_images(window_size):
    cases.check_ssim(DEVICE, sized((2, 3, 150, 301), (1, 1, 3, 37)), window_size, "same", "none", torch.float32)


def test_ssim_under_every_circumstance():
    cases.check_ssim_of_any_strides(DEVICE)
    assert_ssim_is_bounded("triton", DEVICE)
    with pytest.raises(ValueError, match=r"^window_size: 27 is more than"):
        ssim(*[torch.rand(1, 1, 30, 30, device=DEVICE)] * 2, window_size=27, backend="triton")


@pytest.mark.parametrize(("shape", "scale", "isotropic", "dtype"), cases.GMM, ids=str)
def test_gmm(shape, scale, isotropic, dtype):
    cases.check_gmm(DEVICE, shape, scale, isotropic, dtype)


def test_gmm_under_every_circumstance():
    cases.check_gmm_of_any_strides(DEVICE)


@pytest.mark.parametrize(("shape", "scale", "biases", "chunk", "dtype"), cases.LINEAR, ids=str)
def test_linear_gmm(shape, scale, biases, chunk, dtype):
    cases.check_linear(DEVICE, shape, scale, biases, chunk, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_linear_gmm_of_many_rows(dtype):
    cases.check_linear(DEVICE, sized((300, 9, 130, 200), (70, 3, 40, 50)), 1.0, True, 0, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("rows", "chunk", "parts"), [(1, 0, 5), (15, 2, 2), (32, 0, 2), (40, 0, 2), (33, 5, 5), (33, 1, 1)]
)
def test_linear_gmm_of_a_few_rows_and_components_at_a_time(rows, chunk, parts, dtype, monkeypatch):
    """As it goes where there is not room for all; the last blocks are smaller than the others, or as large."""
    from vitlite.kernels.gmm import linear_triton

    monkeypatch.setattr(linear_triton, "MOST_ROWS", 16)
    monkeypatch.setattr(linear_triton, "ROOM", 16 * 48)
    assert linear_triton.block_of(rows, 5, 17, 8, chunk) == (min(rows, 16), parts)
    cases.check_linear(DEVICE, (rows, 5, 17, 8), 1.0, True, chunk, dtype)


def test_linear_gmm_of_no_rows():
    for dtype in (torch.float32, torch.bfloat16):
        cases.check_linear_of_no_rows(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_linear_gmm_is_the_same_each_time(dtype, monkeypatch):
    from vitlite.kernels.gmm import linear_triton

    monkeypatch.setattr(linear_triton, "MOST_ROWS", sized(128, 32))
    cases.check_linear_twice(DEVICE, sized((300, 9, 130, 200), (70, 3, 40, 50)), dtype)


def test_second_derivatives():
    q = torch.rand(1, 1, 3, 4, dtype=torch.float64).to(DEVICE).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda q: attention(q, q, q, backend="triton"), (q,), fast_mode=True)


@only_on_a_gpu
@pytest.mark.slow
def test_more_elements_than_32_bits_count():
    rows, components, dims = 2**16 + 3, 64, 512  # 2^31 and some in each of mean and std
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GiB of GPU memory")
    mean = torch.full((rows, components, dims), 0.25, device=DEVICE, dtype=torch.bfloat16)
    mean[-2:] = normal(2, components, dims, dtype=torch.bfloat16).detach()
    y, logits = rand(rows, dims, dtype=torch.bfloat16).detach(), rand(rows, components, dtype=torch.bfloat16).detach()
    found = gmm_log_likelihood(y, logits, mean, mean.abs() + 1, backend="triton")[-3:]
    right = gmm_log_likelihood(y[-3:], logits[-3:], mean[-3:], mean[-3:].abs() + 1, backend="eager")
    torch.testing.assert_close(found, right, rtol=2e-2, atol=0)


def test_nothing_runs_while_launches_are_recorded():
    with recording() as launches:
        memory_read(normal(4, 8).detach(), normal(3, 8).detach(), backend="triton")
    assert len(launches) == 3
