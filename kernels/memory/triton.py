"""Reading from a memory on a GPU, the launchers: torch multiplies, and Triton does what lies between two products.

Queries are taken a block at a time, so that the tables (T, N) between the products stay small.
"""

from typing import Any

import torch
from torch import Tensor

from .._triton import (
    accumulator,
    add_product,
    ceil_div,
    compute_type,
    even_share,
    launch,
    multiply,
    power_of_two,
    slabs,
    table,
)
from .._triton_math import row_norms
from .reference import shrinkage_limit
from .triton_kernels import memory_score_grads_kernel, memory_unit_grads_kernel, memory_weights_kernel

# Numbers of a table, whatever the number of queries. In float32 they are 32 MiB, which stays in the cache of an H100.
ROOM = 1 << 23


def memory_read_forward(
    z: Tensor, items: Tensor, threshold: float | None, temperature: float, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output (T, C), entropy (T,), sums (3, T), that is the largest score of a query over log 2, the inverse sum of
    its exponentials and the sum of its shrunk weights, and if ``save`` the normalised weights (T, N), all in the type
    of the computation."""
    z, items = z.contiguous(), items.contiguous()
    (queries, channels), count = z.shape, items.shape[0]
    compute = compute_type(z.dtype)
    output = z.new_empty((queries, channels), dtype=compute)
    entropy, sums = z.new_empty((queries,), dtype=compute), z.new_empty((3, queries), dtype=compute)
    kept = z.new_empty((queries, count) if save else (0,), dtype=compute)
    norms, item_norms = row_norms(z), row_norms(items)
    most = at_a_time(queries, count, ROOM)
    products = table(z, most, count, compute)
    weights = products if z.dtype == compute else table(z, most, count, z.dtype)
    numbers = {"limit": shrinkage_limit(threshold, count, compute), "temperature": temperature}
    numbers |= {"count": count, "width": products.shape[1]}
    for own in slabs(queries, most):
        rows = own.stop - own.start
        multiply(z[own], items.t(), products[:rows, :count])
        tensors = {"products": products, "weights": weights, "kept": kept[own] if save else None}
        found = {"z_norms": norms[own], "item_norms": item_norms, "entropies": entropy[own], **_rows_of(sums, own)}
        launch(memory_weights_kernel, (rows,), {**tensors, **found, **numbers}, **_row(count, compute))
        multiply(weights[:rows, :count], items, output[own])
    return output, entropy, sums, kept


def memory_read_backward(
    grad_output: Tensor, grad_entropy: Tensor, z: Tensor, items: Tensor, sums: Tensor, weights: Tensor,
    threshold: float | None, temperature: float, need_z: bool, need_items: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients for z (T, C) and items (N, C) in their dtype; an empty tensor if one is not wanted.

    ``weights`` are those that were kept, or empty: then the scores are computed again.
    """
    given_z, given_items, compute = z, items, compute_type(z.dtype)
    if z.dtype == torch.float16:  # gradients of scores do not fit in float16
        z, items = z.to(compute), items.to(compute)
    z, items, grad_output, grad_entropy = (t.contiguous() for t in (z, items, grad_output.to(z.dtype), grad_entropy))
    (queries, channels), count, save = z.shape, items.shape[0], weights.numel() > 0
    norms, item_norms = row_norms(z), row_norms(items)
    most = at_a_time(queries, count, ROOM // 2)
    products, given = (table(z, most, count, compute) for _ in range(2))
    tables = [products, given] if z.dtype == compute else [table(z, most, count, z.dtype) for _ in range(2)]
    grad_z = given_z.new_empty(z.shape if need_z else (0,))
    of_unit, of_output = (z.new_zeros(items.shape if need_items else (0,), dtype=compute) for _ in range(2))
    numbers = {"limit": shrinkage_limit(threshold, count, compute), "temperature": temperature}
    numbers |= {"count": count, "width": products.shape[1]}
    for own in slabs(queries, most):
        rows = own.stop - own.start
        if not save:
            multiply(z[own], items.t(), products[:rows, :count])
        multiply(grad_output[own], items.t(), given[:rows, :count])
        tensors = {"products": products, "kept": weights[own] if save else None, "given": given}
        tensors |= {"z_norms": norms[own], "item_norms": item_norms, "grad_entropies": grad_entropy[own]}
        found = {"weights": tables[0], "grads": tables[1], **_rows_of(sums, own)}
        launch(memory_score_grads_kernel, (rows,), {**tensors, **found, **numbers}, **_row(count, compute))
        normal, grads = (whole[:rows, :count] for whole in tables)
        if need_z:
            part = z.new_empty((rows, channels), dtype=compute)
            multiply(grads, items, part)
            _unit_grads(part, None, z[own], norms[own], grad_z[own])
        if need_items:
            add_product(grads.t(), z[own], of_unit)
            add_product(normal.t(), grad_output[own], of_output)
    grad_items = given_items.new_empty(items.shape if need_items else (0,))
    if need_items:
        _unit_grads(of_unit, of_output, items, item_norms, grad_items)
    return grad_z, grad_items


def _unit_grads(found: Tensor, more: Tensor | None, x: Tensor, norms: Tensor, out: Tensor) -> None:
    rows, channels = x.shape
    tensors = {"found": found, "more": more, "x": x, "norms": norms, "out": out, "channels": channels}
    shapes = {"BK": power_of_two(channels, 16, 1024), "ACC": accumulator(found.dtype)}
    launch(memory_unit_grads_kernel, (rows,), tensors, **shapes)


def at_a_time(queries: int, count: int, room: int) -> int:
    """How many queries to take so that their weights fit in ``room``."""
    return even_share(queries, max(16, room // (ceil_div(count, 16) * 16)))


def _rows_of(sums: Tensor, own: slice) -> dict[str, Tensor]:
    return {"largest": sums[0, own], "inverses": sums[1, own], "totals": sums[2, own]}


def _row(count: int, compute: torch.dtype) -> dict[str, Any]:
    """How a program takes a row: all of it at a time, if it has at most 4096 items."""
    block = power_of_two(count, 16, 4096)
    return {"BN": block, "ACC": accumulator(compute), "num_warps": 8 if block > 1024 else 4}
