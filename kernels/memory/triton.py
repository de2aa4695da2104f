"""Reading from a memory in Triton, the launchers: block shapes, shares of the work, and room for the results."""

import torch
import triton.language as tl

from .._triton import accumulator, ceil_div, compute_type, launch, pieces, power_of_two, product_precision
from .triton_kernels import (
    memory_grad_items_kernel,
    memory_grad_z_kernel,
    memory_norms_kernel,
    memory_powers_kernel,
    memory_read_kernel,
    memory_sums_kernel,
)

# Programs of the passes that only add up: a few for each multiprocessor of the largest chips.
PROGRAMS = 512


def memory_read_forward(z, items, threshold, eps, save):
    """Output (T, C) and entropy (T,) in the type of the computation, and (2, T) for the backward pass: the inverse sum
    of a query's powers and the sum of its weights, which cost so little that ``save`` is not looked at."""
    z, items = z.contiguous(), items.contiguous()
    (queries, channels), count = z.shape, items.shape[0]
    compute = compute_type(z.dtype)
    output = z.new_empty((queries, channels), dtype=compute)
    entropy = z.new_empty((queries,), dtype=compute)
    kept = z.new_empty((2, queries), dtype=compute)
    if queries == 0:
        return output, entropy, kept
    shapes, options = blocks(z.dtype, queries, count, channels)
    common = {"z": z, "items": items, "z_norms": _norms(z), "item_norms": _norms(items)}
    sizes = {"queries": queries, "count": count, "channels": channels}
    tiles = ceil_div(queries, shapes["BT"])
    splits, share = split(count, shapes["BN"], tiles)
    sums = z.new_empty((splits, queries), dtype=compute)
    launch(
        memory_powers_kernel,
        (tiles, splits),
        {**common, "sums": sums, **sizes, "share": share},
        **{name: shapes[name] for name in ("BT", "BN", "BK", "WORK", "PRECISION", "ACC")},
        **options,
    )
    results = {"sums": sums, "out": output, "entropies": entropy, "inverses": kept[0], "totals": kept[1]}
    launch(
        memory_read_kernel,
        (tiles, ceil_div(channels, shapes["W"])),
        {**common, **results, "splits": splits, **sizes, "threshold": threshold, "eps": eps},
        **shapes,
        **options,
    )
    return output, entropy, kept


def memory_read_backward(grad_output, grad_entropy, z, items, kept, threshold, eps, need_z, need_items):
    """Gradients for z (T, C) and items (N, C) in their dtype; an empty tensor where one is not wanted."""
    z, items, grad_output = z.contiguous(), items.contiguous(), grad_output.contiguous()
    (queries, channels), count = z.shape, items.shape[0]
    compute = compute_type(z.dtype)
    shapes, options = blocks(z.dtype, queries, count, channels, backward=True)
    few = {name: shapes[name] for name in ("BT", "BN", "BK", "WORK", "PRECISION", "ACC")}
    tensors = {
        "z": z,
        "items": items,
        "grad": grad_output,
        "z_norms": _norms(z),
        "item_norms": _norms(items),
        "inverses": kept[0],
        "totals": kept[1],
        "grad_entropies": grad_entropy.contiguous(),
    }
    numbers = {"threshold": threshold, "eps": eps}
    sizes = {"queries": queries, "count": count, "channels": channels}
    tiles = ceil_div(queries, shapes["BT"])
    splits, share = split(count, shapes["BN"], tiles)
    sums = z.new_empty((3, splits, queries), dtype=compute)
    launch(
        memory_sums_kernel,
        (tiles, splits),
        {**tensors, "sums": sums, **sizes, "share": share, **numbers},
        **few,
        **options,
    )
    normal, sloped, slopes = sums.sum(1)
    offsets = torch.where(kept[1] <= eps, 0.0, normal)
    means = (sloped - offsets * slopes) / torch.where(kept[1] <= eps, eps, kept[1])
    tensors |= {"offsets": offsets, "means": means}
    grad_z = torch.empty_like(z) if need_z else z.new_empty((0, 0))
    across = ceil_div(channels, shapes["W"])
    if need_z:
        launch(
            memory_grad_z_kernel,
            (tiles, across),
            {**tensors, "grad_z": grad_z, **sizes, **numbers},
            **shapes,
            **options,
        )
    if not need_items:
        return grad_z, items.new_empty((0, 0))
    shapes, options = blocks(z.dtype, queries, count, channels, backward=True, swapped=True)
    tiles = ceil_div(count, shapes["BN"])
    splits, share = split(queries, shapes["BT"], tiles * across)
    parts = items.new_empty((splits, count, channels), dtype=items.dtype if splits == 1 else compute)
    arguments = {**tensors, "grad_items": parts, **sizes, "share": share, **numbers}
    launch(memory_grad_items_kernel, (tiles, across, splits), arguments, **shapes, **options)
    return grad_z, parts[0] if splits == 1 else parts.sum(0).to(items.dtype)


def _norms(matrix):
    count, channels = matrix.shape
    norms = matrix.new_empty((count,), dtype=compute_type(matrix.dtype))
    columns = power_of_two(channels, 16, 1024)
    rows = min(max(1, 4096 // columns), 16)
    arguments = {"matrix": matrix, "norms": norms, "count": count, "channels": channels}
    shapes = {"BR": rows, "BK": columns, "ACC": accumulator(matrix.dtype)}
    launch(memory_norms_kernel, (ceil_div(count, rows),), arguments, **shapes)
    return norms


def split(length, block, programs):
    """Into how many shares to cut ``length``, and how long each is: whole blocks, so that ``PROGRAMS`` have work."""
    blocks = max(1, ceil_div(length, block))
    share = ceil_div(blocks, min(blocks, max(1, PROGRAMS // max(programs, 1)))) * block
    return max(1, ceil_div(length, share)), share


def blocks(dtype, queries, count, channels, backward=False, swapped=False):
    """Block shapes and types of the kernels, and the launch options. Fixed by shape: nothing is timed at run time.

    The accumulators of W columns are what fills the registers: 64 rows of 384 numbers are 96 for each of 256 threads.
    With more columns the scores are computed less often; but too many spill registers, soonest where one product is
    three in tf32. ``swapped`` is for the kernel that owns items instead of queries.
    """
    work, precision, narrow = accumulator(dtype), product_precision(dtype), channels <= 64
    if dtype == torch.float16 and backward:
        # Gradients of scores do not fit in float16. Its numbers are exact in tf32, which has float32's range.
        own, other, depth, widest, precision = 64, 32, 32, 128, "tf32"
    elif backward:
        own, other, depth, widest = {
            2: (64, 32, 64, 128),
            4: (32, 16 if narrow else 32, 16 if swapped and not narrow else 32, 128),
            8: (16, 16, 16, 64),
        }[dtype.itemsize]
    else:
        own, other, depth, widest = {2: (64, 32, 64, 384), 4: (32, 32, 32, 256), 8: (16, 16, 16, 64)}[dtype.itemsize]
    if dtype == torch.bfloat16 or (dtype == torch.float16 and not backward):
        work = tl.bfloat16 if dtype == torch.bfloat16 else tl.float16
    width = ceil_div(channels, ceil_div(channels, widest))
    first, second = pieces(width)
    shapes = {
        "BT": power_of_two(queries, 16, other if swapped else own),
        "BN": power_of_two(count, 16, own if swapped else other),
        "BK": power_of_two(channels, 16, depth),
        "W": width,
        "W0": first,
        "W1": second,
        "WORK": work,
        "PRECISION": precision,
        "ACC": accumulator(dtype),
    }
    return shapes, {"num_warps": 8 if first >= 128 else 4, "num_stages": 2}
