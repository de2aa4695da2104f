"""attention against its numpy oracle, and the same under every backend."""

import numpy as np
import pytest
import torch

from vitlite.kernels import attention
from vitlite.kernels.attention.reference import attention_numpy

BACKENDS = ["sdpa", "eager"]
# (B, H, N, M, D, E): one token, odd head widths, fewer queries than keys, values of another width, no batch.
SHAPES = [(1, 1, 1, 1, 1, 1), (2, 3, 17, 17, 30, 30), (1, 2, 5, 33, 24, 24), (2, 1, 9, 4, 7, 5), (0, 2, 4, 4, 8, 8)]


def tokens(shape, dtype=torch.float32, scale=1.0, requires_grad=False):
    batch, heads, queries, keys, width, values = shape
    generator = torch.Generator().manual_seed(0)
    sizes = (queries, width), (keys, width), (keys, values)
    made = [torch.randn((batch, heads, *size), generator=generator, dtype=torch.float64) for size in sizes]
    return [(t * scale).to(dtype).requires_grad_(requires_grad) for t in made]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_agrees_with_the_oracle(backend, shape, scale, dtype):
    q, k, v = tokens(shape, dtype)
    found = attention(q, k, v, scale=scale, backend=backend)
    assert found.dtype == dtype
    expected = attention_numpy(q, k, v, scale)
    np.testing.assert_allclose(found, expected, rtol=0, atol=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_do_not_overflow(backend):
    q, k, v = tokens((1, 2, 6, 9, 8, 8), scale=1e4)
    found = attention(q, k, v, backend=backend)
    np.testing.assert_allclose(found, attention_numpy(q, k, v), rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend):
    q, k, v = tokens((1, 2, 5, 7, 6, 4), torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: attention(*a, scale=0.7, backend=backend), (q, k, v))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_half_precision(dtype, requires_grad):
    q, k, v = tokens((1, 2, 33, 33, 24, 24), dtype, requires_grad=requires_grad)
    expected = attention_numpy(*(t.detach().double() for t in (q, k, v)))
    found = {backend: attention(q, k, v, backend=backend).detach() for backend in ("auto", *BACKENDS)}
    errors = {backend: np.abs(value.double().numpy() - expected).max() for backend, value in found.items()}
    assert {value.dtype for value in found.values()} == {dtype}
    assert errors["eager"] < 10 * torch.finfo(dtype).eps
    assert errors["sdpa"] <= 2 * errors["eager"] + torch.finfo(dtype).eps
    assert errors["auto"] <= 2 * errors["eager"] + torch.finfo(dtype).eps
