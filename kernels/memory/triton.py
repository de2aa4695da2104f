"""Reading from a memory in Triton, the launchers: how many queries at a time, block shapes, room for what they find."""

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from .._triton import accumulator, ceil_div, compute_type, launch, power_of_two, product_precision
from .reference import shrinkage_limit
from .triton_kernels import (
    memory_exponentials_kernel,
    memory_grad_kernel,
    memory_norms_kernel,
    memory_read_kernel,
    memory_score_grads_kernel,
    memory_scores_kernel,
)

# Numbers that are held between the first pass over the items and the second, whatever the number of queries. In float32
# they are 32 MiB, which stays in the cache of an H100.
ROOM = 1 << 23
# With fewer programs than this an H100 has multiprocessors without work.
PROGRAMS = 132
# Queries of a program that turns scores into their gradients.
ROWS = 8


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
    entropy = z.new_empty((queries,), dtype=compute)
    sums = z.new_empty((3, queries), dtype=compute)
    weights = z.new_empty((queries, count) if save else (0,), dtype=compute)
    norms, item_norms, types = _norms(z), _norms(items), types_of(z.dtype)
    width = width_of(count)
    most = at_a_time(queries, width, ROOM)
    shapes, options = product_blocks(most, count, channels, types, channels % 16 == 0)
    splits = ceil_div(count, shapes["BN"])
    between = {
        "exponentials": z.new_empty((most, width), dtype=compute),
        "split_largest": z.new_empty((splits, most), dtype=compute),
        "split_sums": z.new_empty((splits, most), dtype=compute),
    }
    limit = shrinkage_limit(threshold, count, compute)
    for own in slabs(queries, most):
        slab = {"z": z[own], "items": items, "z_norms": norms[own], "item_norms": item_norms}
        grid = (ceil_div(slab["z"].shape[0], shapes["BM"]) * splits,)
        arguments = {**slab, **between, **_sizes(slab), "temperature": temperature}
        launch(memory_exponentials_kernel, grid, arguments, **shapes, **types, **options)
        found = {"out": output[own], "entropies": entropy[own], **_rows_of(sums, own)}
        results = {**found, "kept": weights[own] if save else None}
        _read({"items": items, **between, **results, **_sizes(slab), "limit": limit}, shapes["BN"], types)
    if save:  # Divided here, since the total is known only at the end of the pass.
        weights.div_(sums[2].masked_fill(sums[2] == 0, 1.0)[:, None])
    return output, entropy, sums, weights


def _read(arguments: dict[str, Any], split: int, types: dict[str, Any]) -> None:
    queries, channels = arguments["out"].shape
    shapes, options = read_blocks(queries, arguments["count"], channels, types)
    grid = (ceil_div(queries, shapes["BM"]), ceil_div(channels, shapes["BN"]))
    launch(memory_read_kernel, grid, arguments, SPLIT=split, **shapes, **types, **options)


def memory_read_backward(
    grad_output: Tensor, grad_entropy: Tensor, z: Tensor, items: Tensor, sums: Tensor, weights: Tensor,
    threshold: float | None, temperature: float, need_z: bool, need_items: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients for z (T, C) and items (N, C) in their dtype; an empty tensor if one is not wanted.

    Kept weights are not read: the product that they would save costs less here than the memory.
    """
    z, items, grad_output, grad_entropy = (t.contiguous() for t in (z, items, grad_output, grad_entropy))
    queries, count = z.shape[0], items.shape[0]
    compute, types = compute_type(z.dtype), types_of(z.dtype, backward=True)
    norms, item_norms = _norms(z), _norms(items)
    width = width_of(count)
    most = at_a_time(queries, width, ROOM // 2)
    scores = [z.new_empty((most, width), dtype=compute) for _ in range(2)]
    tables = scores
    if types["WORK"] != types["ACC"]:
        # The products would round to the narrower type in any case; what is of another size needs a place of its own.
        grad_output, tables = grad_output.to(z.dtype), [t.to(z.dtype) for t in scores]
    grad_z = torch.empty_like(z) if need_z else z.new_empty((0,))
    grad_items = torch.empty_like(items, dtype=compute if queries > most else None) if need_items else z.new_empty((0,))
    if queries == 0:
        return grad_z, grad_items.zero_()
    numbers = {"limit": shrinkage_limit(threshold, count, compute), "temperature": temperature}
    for own in slabs(queries, most):
        slab = {"z": z[own], "items": items, "grad": grad_output[own], "z_norms": norms[own], "item_norms": item_norms}
        rows = {**_rows_of(sums, own), "grad_entropies": grad_entropy[own]}
        _scores(slab, scores, types)
        along = _score_grads(slab, rows, scores, tables, numbers, types)
        if need_z:
            _grad_z(slab, tables, along[0], grad_z[own], types)
        if need_items:
            _grad_items(slab, tables, along[1], grad_items, own.start > 0, types)
    return grad_z, grad_items.to(items.dtype)


def _scores(slab: dict[str, Any], scores: list[Tensor], types: dict[str, Any]) -> None:
    queries, count, _, channels = _sizes(slab).values()
    shapes, options = product_blocks(queries, count, channels, types, channels % 16 == 0, products=2)
    arguments = {**slab, "cosines": scores[0], "given": scores[1], **_sizes(slab)}
    grid = (ceil_div(queries, shapes["BM"]) * ceil_div(count, shapes["BN"]),)
    launch(memory_scores_kernel, grid, arguments, **shapes, **types, **options)


def _score_grads(
    slab: dict[str, Any],
    rows: dict[str, Tensor],
    scores: list[Tensor],
    tables: list[Tensor],
    numbers: dict[str, float],
    types: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Fills the tables, of weights and of gradients of scores; the sums of these along z (T,) and the items (N,)."""
    queries, count, width, _ = _sizes(slab).values()
    blocks = ceil_div(queries, ROWS)
    along_z, along_items = (scores[0].new_empty(shape) for shape in ((queries,), (blocks, count)))
    given = {"cosines": scores[0], "given": scores[1], "z_norms": slab["z_norms"], "item_norms": slab["item_norms"]}
    found = {"weights": tables[0], "grads": tables[1], "along_z": along_z, "along_items": along_items}
    sizes = {"queries": queries, "count": count, "width": width}
    arguments = {**given, **rows, **found, **sizes, **numbers}
    shapes = {"BR": ROWS, "BN": power_of_two(count, 16, 64), "ACC": types["ACC"]}
    launch(memory_score_grads_kernel, (blocks,), arguments, **shapes)
    return along_z, along_items.sum(0)


def _grad_z(slab: dict[str, Any], tables: list[Tensor], along: Tensor, out: Tensor, types: dict[str, Any]) -> None:
    operands = {"grads": tables[1], "values": slab["items"], "weights": None, "more": None}
    own = {"x": slab["z"], "norms": slab["z_norms"], "along": along, "out": out}
    _grad({**operands, **own, **_sizes(slab)}, types, SWAPPED=False, ADD=False)


def _grad_items(
    slab: dict[str, Any], tables: list[Tensor], along: Tensor, out: Tensor, add: bool, types: dict[str, Any]
) -> None:
    operands = {"grads": tables[1], "values": slab["z"], "weights": tables[0], "more": slab["grad"]}
    own = {"x": slab["items"], "norms": slab["item_norms"], "along": along, "out": out}
    _grad({**operands, **own, **_sizes(slab)}, types, SWAPPED=True, ADD=add)


def _grad(arguments: dict[str, Any], types: dict[str, Any], **which: bool) -> None:
    (rows, channels), depth = arguments["x"].shape, arguments["values"].shape[0]
    shapes, options = product_blocks(rows, channels, depth, types, channels % 16 == 0)
    grid = (ceil_div(rows, shapes["BM"]), ceil_div(channels, shapes["BN"]))
    launch(memory_grad_kernel, grid, arguments, **shapes, **which, **types, **options)


def _rows_of(sums: Tensor, own: slice) -> dict[str, Tensor]:
    return {"largest": sums[0, own], "inverses": sums[1, own], "totals": sums[2, own]}


def _sizes(slab: dict[str, Any]) -> dict[str, int]:
    (queries, channels), count = slab["z"].shape, slab["items"].shape[0]
    return {"queries": queries, "count": count, "width": width_of(count), "channels": channels}


def _norms(matrix: Tensor) -> Tensor:
    count, channels = matrix.shape
    norms = matrix.new_empty((count,), dtype=compute_type(matrix.dtype))
    columns = power_of_two(channels, 16, 1024)
    rows = min(max(1, 4096 // columns), 16)
    arguments = {"matrix": matrix, "norms": norms, "count": count, "channels": channels}
    shapes = {"BR": rows, "BK": columns, "ACC": accumulator(matrix.dtype)}
    launch(memory_norms_kernel, (ceil_div(count, rows),), arguments, **shapes)
    return norms


def width_of(count: int) -> int:
    """Numbers from one row of a table to the next: all rows are then aligned."""
    return ceil_div(count, 16) * 16


def at_a_time(queries: int, width: int, room: int) -> int:
    """How many queries to take so that their weights fit in ``room``: shares of about one size, of whole blocks."""
    most = max(16, room // width)
    shares = ceil_div(queries, most)
    return queries if shares <= 1 else min(most, ceil_div(ceil_div(queries, shares), 128) * 128)


def slabs(queries: int, most: int) -> list[slice]:
    return [slice(start, min(start + most, queries)) for start in range(0, queries, max(1, most))]


def types_of(dtype: torch.dtype, backward: bool = False) -> dict[str, Any]:
    """What the products are computed in, how exactly, and what everything else is computed in."""
    work, precision = accumulator(dtype), product_precision(dtype)
    if dtype == torch.bfloat16:
        work, precision = tl.bfloat16, "ieee"
    elif dtype == torch.float16 and not backward:
        work, precision = tl.float16, "ieee"
    elif dtype == torch.float16:
        # Gradients of scores do not fit in float16. Its numbers are exact in tf32, which has float32's range.
        precision = "tf32"
    return {"WORK": work, "PRECISION": precision, "ACC": accumulator(dtype)}


def product_blocks(
    rows: int, columns: int, depth: int, types: dict[str, Any], aligned: bool, products: int = 1
) -> tuple[dict[str, int], dict[str, int]]:
    """Block shapes of a product of two matrices, and the launch options. Fixed by shape: nothing is timed at run time.

    128 by 128 if there are enough of them for every multiprocessor. A product that is three in tf32 takes twice the
    registers, and 64 by 64 are what fits everywhere. A program that computes several ``products`` has more threads.
    """
    side, deep = {16: (128, 64), 32: (128, 32), 64: (16, 16)}[types["WORK"].primitive_bitwidth]
    if types["PRECISION"] == "tf32x3" or ceil_div(rows, side) * ceil_div(columns, side) < PROGRAMS:
        side = min(side, 64)
    shapes = {
        "BM": power_of_two(rows, 16, side),
        "BN": power_of_two(columns, 16, side // products if side == 128 else side),
        # Rows that are not aligned are loaded number by number, and every number takes registers.
        "BK": power_of_two(depth, 16, deep if aligned else 16),
    }
    return shapes, {"num_warps": 8 if products * shapes["BM"] * shapes["BN"] > 64 * 64 else 4, "num_stages": 3}


def read_blocks(
    queries: int, count: int, channels: int, types: dict[str, Any]
) -> tuple[dict[str, int], dict[str, int]]:
    """Block shapes of the second pass, queries by columns of the output, and the launch options."""
    rows, items, columns = {16: (64, 64, 128), 32: (64, 32, 128), 64: (16, 16, 32)}[types["WORK"].primitive_bitwidth]
    if types["PRECISION"] == "tf32x3":
        columns = 64
    shapes = {
        "BM": power_of_two(queries, 16, rows),
        "BN": power_of_two(channels, 16, columns),
        "BK": power_of_two(count, 16, items),
    }
    return shapes, {"num_warps": 4, "num_stages": 3}
