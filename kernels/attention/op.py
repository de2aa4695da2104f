"""The public ``attention``: checks its arguments, then hands them to a backend."""

import math

import torch
from torch.nn.functional import scaled_dot_product_attention

from .._backends import Backends
from .._checks import check_same_device, check_same_dtype, check_tensor
from .reference import attention_torch

BACKENDS = {"attention": Backends("attention", [("sdpa", None, None), ("eager", None, None)])}

# Above this many scores per head their (N, M) matrix no longer pays.
HALF_SCORES = 1024 * 1024


def attention(q, k, v, *, scale=None, backend="auto"):
    """softmax(q k^T scale) v, without mask or dropout (Vaswani et al. 2017, eq. 1).

    Args:
        q: queries (B, H, N, D), float32, float64, float16 or bfloat16, of any strides.
        k: keys (B, H, M, D).
        v: values (B, H, M, E).
        scale: factor of the scores; None is 1 / sqrt(D).
        backend: "sdpa" (torch's fused attention), "eager" (materialises the (B, H, N, M) weights) or "auto", which is
            "sdpa" except when training on short sequences in half precision on a CPU.

    Returns:
        (B, H, N, E) in the dtype of the inputs. Differentiable in q, k and v.

    Raises:
        ValueError: a wrong shape, dtype, device, scale or backend; the message names the argument.
    """
    _check_arguments(q, k, v, scale)
    chosen = BACKENDS["attention"].pick(backend, q.device.type)
    if chosen == "eager" or (backend == "auto" and products_are_faster(q, k)):
        return attention_torch(q, k, v, scale)
    return scaled_dot_product_attention(q, k, v, scale=scale)


def products_are_faster(q, k):
    """Whether plain half-precision matrix products beat SDPA: with gradients, on a CPU, while the scores stay small.

    SDPA's CPU kernel works in blocks of float32, and its backward most of all; the products run in oneDNN's bfloat16.
    """
    half = q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16)
    return half and q.requires_grad and torch.is_grad_enabled() and q.shape[2] * k.shape[2] <= HALF_SCORES


def _check_arguments(q, k, v, scale):
    check_tensor("q", q, "(B, H, N, D)")
    check_tensor("k", k, "(B, H, M, D)")
    check_tensor("v", v, "(B, H, M, E)")
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
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale: expected a finite number, got {scale!r}")
    # Autocast brings them to one dtype itself.
    if (k.dtype != q.dtype or v.dtype != q.dtype) and not torch.is_autocast_enabled(q.device.type):
        check_same_dtype("k", k, "q", q)
        check_same_dtype("v", v, "q", q)
