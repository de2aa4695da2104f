"""Attention in Triton, the launchers: block shapes, strides, and room for the results."""

from typing import Any

import torch
from torch import Tensor

from .._triton import accumulator, ceil_div, compute_type, launch, pieces, power_of_two, product_precision, reachable
from .triton_kernels import (
    attention_along_kernel,
    attention_forward_kernel,
    attention_grad_kv_kernel,
    attention_grad_q_kernel,
)

# Rows of the largest tile.
LONGEST = 128


def attention_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output (B, H, N, E), and stats (2, B, H, N) in the type of the computation: for each query the largest score
    times log2(e), and the inverse sum of the exponentials of its scores less the largest."""
    q, k, v = (reachable(a, 2, LONGEST) for a in (q, k, v))
    batch, heads, queries, width = q.shape
    keys, values = v.shape[2:]
    out = q.new_empty((batch, queries, heads, values)).transpose(1, 2)
    stats = q.new_empty((2, batch, heads, queries), dtype=compute_type(q.dtype))
    own, other, options = forward_blocks(width, values, q.dtype, queries)
    tensors = {"q": q, "k": k, "v": v, "out": out, "tops": stats[0], "inverses": stats[1]}
    sizes = {"scale": scale, "queries": queries, "keys": keys, "heads": heads}
    grid = (ceil_div(queries, own) * batch * heads if values else 0,)
    arguments = {**tensors, **sizes, **_strides(q=q, k=k, v=v, o=out)}
    shapes = _shapes(width, values, q.dtype)
    launch(attention_forward_kernel, grid, arguments, **shapes, BM=own, BN=other, **options)
    return out, stats


def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, stats: Tensor, scale: float,
    need_q: bool, need_k: bool, need_v: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients for q, k and v; an empty tensor if one is not wanted."""
    q, k, v, grad = (reachable(a, 2, LONGEST) for a in (q, k, v, grad))
    batch, heads, queries, width = q.shape
    keys, values = v.shape[2:]
    tensors = {"q": q, "k": k, "v": v, "grad": grad, "tops": stats[0], "inverses": stats[1]}
    sizes = {"scale": scale, "queries": queries, "keys": keys, "heads": heads}
    shapes = _shapes(width, values, q.dtype)
    tensors["along"] = along = torch.empty_like(stats[0])
    given = {"grad": grad, "out": out, "along": along, "queries": queries, "heads": heads, **_strides(g=grad, o=out)}
    parts = {name: shapes[name] for name in ("E", "E0", "E1", "ACC")}
    rows = 32
    launch(attention_along_kernel, (ceil_div(queries, rows) * batch * heads,), given, **parts, BM=rows)
    grads = [gradient(a, need) for a, need in ((q, need_q), (k, need_k), (v, need_v))]
    own, other, options = backward_blocks(width, values, q.dtype)
    arguments = {**tensors, **sizes, **_strides(q=q, k=k, v=v, g=grad)}
    if need_q:
        own_q = min(own, power_of_two(queries, 16))
        found = {"grad_q": grads[0], **_strides(dq=grads[0])}
        grid = (ceil_div(queries, own_q) * batch * heads,)
        launch(attention_grad_q_kernel, grid, {**arguments, **found}, **shapes, BM=own_q, BN=other, **options)
    if need_k or need_v:
        own_k = min(own, power_of_two(keys, 16))
        # An output that is not wanted is not written; any tensor will do for its pointer.
        grad_k, grad_v = grads[1] if need_k else k, grads[2] if need_v else v
        found = {"grad_k": grad_k, "grad_v": grad_v, **_strides(dk=grad_k, dv=grad_v)}
        grid, needs = (ceil_div(keys, own_k) * batch * heads,), {"NEED_K": need_k, "NEED_V": need_v}
        launch(attention_grad_kv_kernel, grid, {**arguments, **found}, **shapes, BM=other, BN=own_k, **needs, **options)
    return tuple(grads)


def gradient(a: Tensor, need: bool) -> Tensor:
    """Room for the gradient of ``a`` (B, H, N, D), laid out as the projections of a transformer block are; or none."""
    if not need:
        return a.new_empty((0,))
    batch, heads, rows, width = a.shape
    return a.new_empty((batch, rows, heads, width)).transpose(1, 2)


def forward_blocks(width: int, values: int, dtype: torch.dtype, queries: int) -> tuple[int, int, dict[str, int]]:
    """Queries and keys at a time, and the launch options. Fixed by shape, so that nothing is timed at run time.

    A tile of queries has at most 128 rows (two of the matrix units' 64) and its accumulators at most 128 registers a
    thread; few queries, as in the short sequences of SIVT, get a small tile and few warps. A product that is three in
    tf32 keeps both parts of the queries in registers, so that wide heads leave room for small tiles alone.
    """
    widest = power_of_two(max(width, values), 16)
    thrice = product_precision(dtype) == "tf32x3"
    own, other, warps = {
        8: (32, 16, 4) if widest <= 64 else (16, 16, 4),
        4: (64, 16 if thrice else 32, 4) if widest <= 64 else (16, 16, 4) if thrice else (64, 32, 8),
        2: (128, 64, 8) if widest <= 128 else (32, 32, 8),
    }[dtype.itemsize]
    few = power_of_two(queries, 16)
    if few < own:
        own, warps = few, max(1, min(warps, few // 16))
    stages = 1 if dtype == torch.float64 else 2 if widest > 64 or dtype == torch.float32 else 3
    return own, other, {"num_warps": warps, "num_stages": stages}


def backward_blocks(width: int, values: int, dtype: torch.dtype) -> tuple[int, int, dict[str, int]]:
    """Rows that a program owns and rows at a time of what it walks over, and the launch options."""
    widest = power_of_two(max(width, values), 16)
    thrice = product_precision(dtype) == "tf32x3"
    own, other, warps = {
        8: (16, 16, 4),
        4: (32 if thrice else 64, 16, 8) if widest <= 64 else (16, 16, 4) if thrice else (32, 16, 8),
        2: (128, 64, 8) if widest <= 64 else (64, 32, 4) if widest <= 128 else (32, 32, 8),
    }[dtype.itemsize]
    stages = 1 if dtype == torch.float64 else 2
    return own, other, {"num_warps": warps, "num_stages": stages}


def _shapes(width: int, values: int, dtype: torch.dtype) -> dict[str, Any]:
    (d0, d1), (e0, e1) = pieces(width), pieces(values)
    constants = {"D": width, "E": values, "D0": d0, "D1": d1, "E0": e0, "E1": e1}
    return {**constants, "PRECISION": product_precision(dtype), "ACC": accumulator(dtype)}


def _strides(**tensors: Tensor) -> dict[str, int]:
    return {f"{name}_{axis}": s for name, a in tensors.items() for axis, s in zip("bhnd", a.stride())}
