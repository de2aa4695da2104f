"""The nearest rows of a bank in Triton, the launchers: shares of the bank, block shapes, the order of the results."""

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from .._triton import accumulator, ceil_div, compute_type, launch, power_of_two, product_precision
from .._triton_math import row_norms
from .triton_kernels import (
    nearest_best_kernel,
    nearest_distances_kernel,
    nearest_scores_kernel,
    nearest_smallest_kernel,
)

# Scores that are held at a time if more than one neighbour is wanted. In float32 they are 32 MiB, which stays in the
# cache of an H100.
ROOM = 1 << 23
# With fewer programs than this, twice its multiprocessors, an H100 waits for the last ones.
PROGRAMS = 264
# Pairs whose distance a program computes.
PAIRS = 8


def nearest_forward(q: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances (T, k) in the type of the computation, ascending, and indices (T, k)."""
    q, bank = q.contiguous(), bank.contiguous()
    types = _types_of(q.dtype)
    half_norms = row_norms(bank, half_squares=True)
    indices = _nearest(q, bank, half_norms, types) if k == 1 else _several(q, bank, half_norms, types, k)
    distances = q.new_empty(indices.shape, dtype=compute_type(q.dtype))
    channels, pairs = q.shape[1], indices.numel()
    arguments = {"q": q, "bank": bank, "indices": indices, "distances": distances}
    sizes = {"pairs": pairs, "channels": channels, "k": k}
    shapes = {"BR": PAIRS, "BK": power_of_two(channels, 16, 256), "ACC": types["ACC"]}
    launch(nearest_distances_kernel, (ceil_div(pairs, PAIRS),), {**arguments, **sizes}, **shapes)
    if k == 1:
        return distances, indices
    # They were in the order of their indices, and a stable sort leaves equal distances so.
    distances, order = distances.sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


def nearest_backward(
    grad: Tensor, q: Tensor, bank: Tensor, distances: Tensor, indices: Tensor, k: int, need_q: bool, need_bank: bool
) -> tuple[Tensor, Tensor]:
    """Gradients for q (T, C) and bank (N, C) in their dtype; an empty tensor if one is not wanted."""
    compute = compute_type(q.dtype)
    by = torch.where(distances == 0, 0.0, grad.to(compute) / distances)
    parts = by[:, :, None] * (q.to(compute)[:, None] - bank.to(compute)[indices])
    grad_q, grad_bank = q.new_empty((0,)), bank.new_empty((0,))
    if need_q:
        grad_q = parts.sum(1).to(q.dtype)
    if need_bank:
        whole = torch.zeros_like(bank, dtype=compute, memory_format=torch.contiguous_format)
        # In a fixed order: on a GPU index_add_ would add as its threads come.
        grad_bank = whole.index_put_((indices.flatten(),), -parts.flatten(0, 1), accumulate=True).to(bank.dtype)
    return grad_q, grad_bank


def _nearest(q: Tensor, bank: Tensor, half_norms: Tensor, types: dict[str, Any]) -> Tensor:
    """Index (T, 1) of the nearest row."""
    (queries, channels), count = q.shape, bank.shape[0]
    shapes, options = _blocks(queries, count, channels, types)
    blocks = ceil_div(queries, shapes["BM"])
    parts = min(ceil_div(PROGRAMS, max(1, blocks)), ceil_div(count, shapes["BN"]))
    share = ceil_div(ceil_div(count, parts), shapes["BN"]) * shapes["BN"]
    parts = ceil_div(count, share)
    scores = q.new_empty((parts, queries), dtype=compute_type(q.dtype))
    indices = q.new_empty((parts, queries), dtype=torch.int32)
    arguments = {"q": q, "bank": bank, "half_norms": half_norms, "scores": scores, "indices": indices}
    sizes = {"queries": queries, "count": count, "channels": channels, "share": share}
    launch(nearest_best_kernel, (blocks * parts,), {**arguments, **sizes}, **shapes, **types, **options)
    best = scores.min(0, keepdim=True).indices  # of equal ones the first share, whose indices are the lower ones
    return indices.gather(0, best).t().long()


def _several(q: Tensor, bank: Tensor, half_norms: Tensor, types: dict[str, Any], k: int) -> Tensor:
    """Indices (T, k) of the k nearest rows, ascending."""
    (queries, channels), count = q.shape, bank.shape[0]
    indices = q.new_empty((queries, k), dtype=torch.int32)
    most = max(1, min(queries, max(16, ROOM // count)))
    scores = q.new_empty((most, count), dtype=compute_type(q.dtype))
    for start in range(0, queries, most):
        own = slice(start, min(start + most, queries))
        rows = own.stop - own.start
        shapes, options = _blocks(rows, count, channels, types)
        grid = (ceil_div(rows, shapes["BM"]) * ceil_div(count, shapes["BN"]),)
        arguments = {"q": q[own], "bank": bank, "half_norms": half_norms, "scores": scores}
        sizes = {"queries": rows, "count": count, "channels": channels}
        launch(nearest_scores_kernel, grid, {**arguments, **sizes}, **shapes, **types, **options)
        table = {"scores": scores, "indices": indices[own]}
        numbers = {"count": count, "k": k}
        launch(nearest_smallest_kernel, (rows,), {**table, **numbers}, BN=power_of_two(count, 16, 2048))
    return indices.sort(1).values.long()


def _types_of(dtype: torch.dtype) -> dict[str, Any]:
    """What the products are computed in, how exactly, and what everything else is computed in."""
    if dtype in (torch.float16, torch.bfloat16):
        work = tl.float16 if dtype == torch.float16 else tl.bfloat16
        return {"WORK": work, "PRECISION": "ieee", "ACC": tl.float32}
    return {"WORK": accumulator(dtype), "PRECISION": product_precision(dtype), "ACC": accumulator(dtype)}


def _blocks(queries: int, count: int, channels: int, types: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Block shapes, queries by rows of the bank, and the launch options. Fixed by shape: nothing is timed."""
    side, deep = {16: (128, 64), 32: (128, 32), 64: (16, 16)}[types["WORK"].primitive_bitwidth]
    if types["PRECISION"] == "tf32x3":
        side = 64
    aligned = channels % 16 == 0
    shapes = {
        "BM": power_of_two(queries, 16, side),
        "BN": power_of_two(count, 16, side),
        # Rows that are not aligned are loaded number by number, and every number takes registers.
        "BK": power_of_two(channels, 16, deep if aligned else 16),
    }
    # With three stages such rows also spill on sm_80, as Triton 3.9 compiles them.
    stages = 3 if aligned or types["PRECISION"] != "tf32x3" else 2
    return shapes, {"num_warps": 8 if shapes["BM"] * shapes["BN"] > 64 * 64 else 4, "num_stages": stages}
