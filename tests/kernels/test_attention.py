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


def test_any_strides():
    # The layout that a transformer block has: one projection for all three, heads inside.
    packed = torch.randn(2, 10, 3, 4, 6).permute(2, 0, 3, 1, 4)
    q, k, v = packed.unbind(0)
    expected = attention(q.contiguous(), k.contiguous(), v.contiguous())
    torch.testing.assert_close(attention(q, k, v), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_takes_mixed_dtypes(backend):
    q, k, v = tokens((1, 1, 4, 4, 8, 8), requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(q, k.bfloat16(), v, backend=backend)
    torch.testing.assert_close(found.float(), attention(q, k, v), rtol=0.05, atol=0.05)
    found.float().sum().backward()
    assert q.grad.dtype == torch.float32


def test_compiles_to_one_graph_with_dynamic_shapes():
    torch.compiler.reset()
    compiled = torch.compile(lambda *a: attention(*a) * 2, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 2, 8, 8, 6, 6), (1, 3, 12, 9, 5, 5)):
        q, k, v = tokens(shape, requires_grad=True)
        found = compiled(q, k, v)
        torch.testing.assert_close(found, 2 * attention(q, k, v))
        found.sum().backward()
        assert q.grad.isfinite().all()


def test_export():
    class Block(torch.nn.Module):
        def forward(self, q, k, v):
            return attention(q, k, v)

    q, k, v = tokens((2, 2, 8, 8, 6, 6))
    program = torch.export.export(Block(), (q, k, v))
    torch.testing.assert_close(program.module()(q, k, v), attention(q, k, v))


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"q": torch.rand(2, 4, 8)}, "q"),
        ({"q": [1.0]}, "q"),
        ({"k": torch.rand(1, 2, 4, 7)}, "k"),
        ({"k": torch.rand(1, 3, 4, 8), "v": torch.rand(1, 3, 4, 8)}, "k"),
        ({"k": torch.rand(1, 2, 0, 8), "v": torch.rand(1, 2, 0, 8)}, "k"),
        ({"k": torch.rand(1, 2, 4, 8).double()}, "k"),
        ({"v": torch.rand(1, 2, 5, 8)}, "v"),
        ({"v": torch.rand(1, 2, 4, 8).long()}, "v"),
        ({"v": torch.rand(1, 2, 4, 8, device="meta")}, "v"),
        ({"scale": float("nan")}, "scale"),
        ({"backend": "flash"}, "backend"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(change, argument):
    arguments = {name: torch.rand(1, 2, 4, 8) for name in "qkv"} | change
    with pytest.raises(ValueError, match=f"^{argument}: ") as caught:
        attention(arguments.pop("q"), arguments.pop("k"), arguments.pop("v"), **arguments)
    assert "\n" not in str(caught.value)
