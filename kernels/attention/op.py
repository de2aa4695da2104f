"""The public ``attention``: checks its arguments, then hands them to a backend."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .._checks import FLOATS, check_same_device, check_same_dtype, check_tensor, is_number
from .._operator import Operator, autocasts, exporting
from .._triton import compute_type
from .reference import attention_torch


def _fake_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Any:
    stats = q.new_empty((2, *q.shape[:3]), dtype=compute_type(q.dtype))
    return _fake_heads(q, q.shape[2], v.shape[3]), stats


def _fake_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, output: Tensor, stats: Tensor, scale: float, *needs: bool
) -> Any:
    return tuple(
        _fake_heads(a, a.shape[2], a.shape[3]) if need else a.new_empty((0,)) for a, need in zip((q, k, v), needs)
    )


def _fake_heads(a: Tensor, rows: int, width: int) -> Tensor:
    return a.new_empty((a.shape[0], rows, a.shape[1], width)).transpose(1, 2)


# The second result is for the backward pass: of each query the largest score, and the inverse sum of the exponentials
# of its scores less that.
OPERATOR = Operator(
    "attention",
    forward="(Tensor q, Tensor k, Tensor v, float scale) -> (Tensor, Tensor)",
    backward="(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor output, Tensor stats, float scale,"
    " bool need_q, bool need_k, bool need_v) -> (Tensor, Tensor, Tensor)",
    fake_forward=_fake_forward,
    fake_backward=_fake_backward,
    eager=attention_torch,
    package=__package__,
    compiled=(),
    # On a GPU too torch's own comes first: it is made for each architecture.
    first=("sdpa",),
    laid_out=lambda a: a.transpose(1, 2).contiguous().transpose(1, 2),
    shapes=lambda B=1, H=2, N=5, M=6, D=4, E=3: ((B, H, N, D), (B, H, M, D), (B, H, M, E)),
)

# A tile of a Triton program holds whole rows of a head: their widest, by the bytes of a number.
WIDEST = {2: 256, 4: 96, 8: 128}

# Whether oneDNN multiplies bfloat16 in hardware; it then is far ahead of blocks of float32.
BFLOAT16_PRODUCTS = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()

# Above this many scores per head their (N, M) matrix no longer pays.
HALF_SCORES = 1024 * 1024


def attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, backend: str = "auto") -> Tensor:
    """softmax(q k^T scale) v, without mask or dropout (Vaswani et al. 2017, eq. 1).

    Args:
        q: queries (B, H, N, D), float32, float64, float16 or bfloat16, of any strides.
        k: keys (B, H, M, D).
        v: values (B, H, M, E).
        scale: factor of the scores; None is 1 / sqrt(D).
        backend: "sdpa" (torch's fused attention), "triton" (CUDA; D and E up to 96, in half precision 256), "eager"
            (materialises the (B, H, N, M) weights) or "auto", which is "sdpa" except when training on short sequences
            in bfloat16 on a CPU that has instructions for it: scores are rounded to bfloat16 then.

    Returns:
        (B, H, N, E) in the dtype of the inputs. Differentiable in q, k and v.

    Raises:
        ValueError: a wrong shape, dtype, device, scale or backend; the message names the argument.
    """
    if scale is not None or not _fit_plainly(q, k, v):
        _check_arguments(q, k, v, scale)
    chosen = OPERATOR.backends.pick(backend, q.device.type)
    if chosen == "eager" or (backend == "auto" and products_are_faster(q, k)):
        return attention_torch(q, k, v, scale)
    if chosen == "triton":
        return _blockwise(q, k, v, q.shape[3] ** -0.5 if scale is None else float(scale))
    return scaled_dot_product_attention(q, k, v, scale=scale)


def _blockwise(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The Triton kernels, which want one dtype."""
    if autocasts(q.device.type) and q.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    for name, a in (("q", q), ("v", v)):
        if a.shape[3] > WIDEST[a.dtype.itemsize]:
            most = WIDEST[a.dtype.itemsize]
            raise ValueError(f"{name}: heads of {a.shape[3]} are wider than backend='triton' can hold, {most}")
    return OPERATOR("triton", (q, k, v), scale)


def products_are_faster(q: Tensor, k: Tensor) -> bool:
    """Whether plain bfloat16 matrix products beat SDPA: with gradients, on a CPU that has instructions for them, while
    the scores stay few.

    SDPA's CPU kernel works in blocks of float32, and its backward most of all; the products run in oneDNN's bfloat16,
    to which they round the scores. In float16 they are slower, and scores above 65504 would be infinite.
    """
    return (
        q.dtype is torch.bfloat16
        and BFLOAT16_PRODUCTS
        and q.device.type == "cpu"
        and q.requires_grad
        and torch.is_grad_enabled()
        and not exporting()
        and q.shape[2] * k.shape[2] <= HALF_SCORES
    )


def _fit_plainly(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether nothing is wrong at first sight; on a call of a few microseconds that is half the cost of all checks."""
    if not type(q) is type(k) is type(v) is Tensor:
        return False
    queries, keys, values = q.shape, k.shape, v.shape
    if not len(queries) == len(keys) == len(values) == 4:
        return False
    (batch, heads, _, width), (k_batch, k_heads, count, k_width), (v_batch, v_heads, v_count, _) = queries, keys, values
    return (
        batch == k_batch == v_batch
        and heads == k_heads == v_heads
        and width == k_width > 0
        and count == v_count > 0
        and q.dtype is k.dtype is v.dtype
        and q.dtype in FLOATS
        and q.device == k.device == v.device
        and not q.is_sparse
        and not k.is_sparse
        and not v.is_sparse
    )


def _check_arguments(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> None:
    check_tensor("q", q, "B", "H", "N", "D")
    check_tensor("k", k, "B", "H", "M", "D")
    check_tensor("v", v, "B", "H", "M", "E")
    # Unpacked once: on a small call every look at a shape counts.
    (batch, heads, _, width), (k_batch, k_heads, keys, k_width) = q.shape, k.shape
    v_batch, v_heads, v_keys, _ = v.shape
    if k_batch != batch or k_heads != heads or k_width != width:
        raise ValueError(f"k: shape {tuple(k.shape)} does not go with q of {tuple(q.shape)}; B, H and D must be equal")
    if v_batch != batch or v_heads != heads or v_keys != keys:
        raise ValueError(f"v: shape {tuple(v.shape)} does not go with k of {tuple(k.shape)}; B, H and M must be equal")
    if keys == 0 or width == 0:
        raise ValueError(f"k: shape {tuple(k.shape)} holds no keys to attend to")
    check_same_device("k", k, "q", q)
    check_same_device("v", v, "q", q)
    if scale is not None and not (is_number(scale) and -math.inf < scale < math.inf):
        raise ValueError(f"scale: expected a finite number, got {scale!r}")
    # Autocast brings them to one dtype itself.
    if (k.dtype != q.dtype or v.dtype != q.dtype) and not autocasts(q.device.type):
        check_same_dtype("k", k, "q", q)
        check_same_dtype("v", v, "q", q)
