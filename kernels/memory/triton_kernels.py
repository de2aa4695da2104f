"""Reading from a memory in Triton, the kernels: two passes over the items, and no (T, N) matrix.

A cosine is at most 1, so that the powers of the softmax need no running maximum. The first pass adds them up for each
query. The second computes them again, applies the threshold, and adds up in one go the weighted items, the weights and
their entropy; the L1 norm and its logarithm are divided out at the end. The backward pass computes everything again.

Scores are inner products of the rows as they are, divided by the norms afterwards: half-precision rows then lose
nothing by being normalised. Results are added up in a fixed order.
"""

import triton
import triton.language as tl

from .._triton_math import LOG2E, dot
from .reference import NORM_EPS

SHORTEST = tl.constexpr(NORM_EPS)


@triton.jit
def _rows(base, rows, count, columns, channels, WORK: tl.constexpr):
    """Elements (rows, columns) of a contiguous matrix, zeros outside."""
    mask = (rows < count)[:, None] & (columns < channels)[None, :]
    return tl.load(base + (rows[:, None] * channels + columns[None, :]), mask=mask, other=0.0).to(WORK)


@triton.jit
def _at(pointer, first, channels):
    """Address of a row of a contiguous matrix, in 64 bits; what a tile adds to it fits in 32."""
    return pointer + tl.cast(first, tl.int64) * channels


@triton.jit
def _products(
    a, b, a_count, b_count, channels, BA: tl.constexpr, BB: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Inner products (BA, BB) of the rows at a with those at b."""
    rows_a, rows_b = tl.arange(0, BA), tl.arange(0, BB)
    acc = tl.zeros([BA, BB], ACC)
    for start in range(0, channels, BK):
        columns = start + tl.arange(0, BK)
        left = _rows(a, rows_a, a_count, columns, channels, WORK)
        right = _rows(b, rows_b, b_count, columns, channels, WORK)
        acc = dot(left, tl.trans(right), acc, PRECISION)
    return acc


@triton.jit
def _inverse(norms, rows, count):
    """Inverse norms, those of short rows that of SHORTEST; of rows that do not exist 0."""
    norm = tl.load(norms + rows, mask=rows < count, other=float("inf"))
    return 1.0 / tl.where(norm <= SHORTEST, SHORTEST, norm)


@triton.jit
def _shrink(softmax, threshold, eps):
    """Weights after the hard shrinkage, and the derivative. Comparisons let what is not a number through."""
    gap = softmax - threshold
    room = tl.where(gap <= 0, 1.0, gap + eps)
    ratio = gap / room
    slope = ratio + softmax * (eps / room) / room
    return tl.where(gap <= 0, 0.0, softmax * ratio), tl.where(gap <= 0, 0.0, slope)


@triton.jit
def _score_grads(weights, slope, given, grad_entropy, total_inverse):
    """Gradient for the normalised weights where they are kept, given that of the output's part of it."""
    normal = weights * total_inverse
    log = tl.log(tl.where(normal > 0, normal, 1.0))
    return tl.where(slope == 0, 0.0, given - grad_entropy * (log + 1.0))


@triton.jit
def memory_norms_kernel(matrix, norms, count, channels, BR: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr):
    """Euclidean norm of each row."""
    first = tl.program_id(0) * BR
    rows = tl.arange(0, BR)
    base = _at(matrix, first, channels)
    squares = tl.zeros([BR, BK], ACC)
    for start in range(0, channels, BK):
        tile = _rows(base, rows, count - first, start + tl.arange(0, BK), channels, ACC)
        squares += tile * tile
    tl.store(norms + first + rows, tl.sqrt(tl.sum(squares, 1)), mask=rows < count - first)


@triton.jit
def memory_powers_kernel(
    z, items, z_norms, item_norms, sums, queries, count, channels, share,
    BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """First pass: for a block of queries the sum of the powers of one share of the items."""
    first = tl.program_id(0) * BT
    split = tl.program_id(1)
    rows = tl.arange(0, BT)
    base = _at(z, first, channels)
    z_inverse = _inverse(z_norms + first, rows, queries - first)
    total = tl.zeros([BT], ACC)
    for start in range(split * share, tl.minimum(count, split * share + share), BN):
        own = tl.arange(0, BN)
        scores = _products(
            base, _at(items, start, channels), queries - first, count - start, channels, BT, BN, BK,
            WORK, PRECISION, ACC,
        )  # fmt: skip
        cosines = scores * z_inverse[:, None] * _inverse(item_norms + start, own, count - start)[None, :]
        total += tl.sum(tl.where((own < count - start)[None, :], tl.exp2(cosines * LOG2E), 0.0), 1)
    place = sums + split.to(tl.int64) * queries + first
    tl.store(place + rows, total, mask=rows < queries - first)


@triton.jit
def memory_read_kernel(
    z, items, z_norms, item_norms, sums, out, entropies, inverses, totals, splits, queries, count, channels,
    threshold: tl.float64, eps: tl.float64,
    BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, W: tl.constexpr, W0: tl.constexpr, W1: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Second pass, for a block of queries and W columns of the output."""
    first = tl.program_id(0) * BT
    column = tl.program_id(1) * W
    rows, own = tl.arange(0, BT), tl.arange(0, BN)
    left = queries - first
    least, room = tl.full((), threshold, ACC), tl.full((), eps, ACC)
    base = _at(z, first, channels)
    z_inverse = _inverse(z_norms + first, rows, left)
    powers = tl.zeros([BT], ACC)
    for split in range(splits):
        powers += tl.load(sums + tl.cast(split, tl.int64) * queries + first + rows, mask=rows < left, other=0.0)
    # Rounded once, so that N equal weights are exactly the default threshold, 1 / N.
    inverse = tl.div_rn(1.0 + tl.zeros([BT], ACC), powers) if ACC == tl.float32 else 1.0 / powers  # noqa: SIM300
    acc0 = tl.zeros([BT, W0], ACC)
    acc1 = tl.zeros([BT, W1 if W1 > 0 else 1], ACC)
    total = tl.zeros([BT], ACC)
    moment = tl.zeros([BT], ACC)
    columns0 = column + tl.arange(0, W0)
    scale = tl.full((), count, ACC)
    for start in range(0, count, BN):
        memory = _at(items, start, channels)
        scores = _products(base, memory, left, count - start, channels, BT, BN, BK, WORK, PRECISION, ACC)
        cosines = scores * z_inverse[:, None] * _inverse(item_norms + start, own, count - start)[None, :]
        softmax = tl.exp2(cosines * LOG2E) * inverse[:, None]
        weights, _ = _shrink(softmax, least, room)
        # Times N they are between 1 and e^2: within any format, and the logarithms small.
        weights = tl.where((own < count - start)[None, :], weights, 0.0) * scale
        total += tl.sum(weights, 1)
        moment += tl.sum(weights * tl.log(tl.where(weights > 0, weights, 1.0)), 1)
        tile = _rows(memory, own, count - start, columns0, channels, WORK)
        acc0 = dot(weights.to(WORK), tile, acc0, PRECISION)
        if W1 > 0:
            columns1 = column + W0 + tl.arange(0, W1)
            tile = _rows(memory, own, count - start, columns1, channels, WORK)
            acc1 = dot(weights.to(WORK), tile, acc1, PRECISION)
    floor = room * scale
    divisor = tl.where(total <= floor, floor, total)
    out = _at(out, first, channels)
    mask = (rows < left)[:, None]
    ends = tl.minimum(channels, column + W)
    # A sum of nothing is 0, also where the divisor is so small that its inverse is infinite.
    tl.store(
        out + (rows[:, None] * channels + columns0[None, :]),
        acc0 / divisor[:, None],
        mask=mask & (columns0 < ends)[None, :],
    )
    if W1 > 0:
        columns1 = column + W0 + tl.arange(0, W1)
        tl.store(
            out + (rows[:, None] * channels + columns1[None, :]),
            acc1 / divisor[:, None],
            mask=mask & (columns1 < ends)[None, :],
        )
    if tl.program_id(1) == 0:
        entropy = total / divisor * tl.log(divisor) - moment / divisor
        tl.store(entropies + first + rows, tl.where(entropy < 0, 0.0, entropy), mask=rows < left)
        tl.store(inverses + first + rows, inverse, mask=rows < left)
        tl.store(totals + first + rows, total / scale, mask=rows < left)


@triton.jit
def memory_sums_kernel(
    z, items, grad, z_norms, item_norms, inverses, totals, grad_entropies, sums, queries, count, channels, share,
    threshold: tl.float64, eps: tl.float64,
    BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """What the gradients of a query's scores need of all of them, of one share of the items: three sums a query."""
    first = tl.program_id(0) * BT
    split = tl.program_id(1)
    rows, own = tl.arange(0, BT), tl.arange(0, BN)
    left = queries - first
    least, room = tl.full((), threshold, ACC), tl.full((), eps, ACC)
    base, base_grad = _at(z, first, channels), _at(grad, first, channels)
    z_inverse = _inverse(z_norms + first, rows, left)
    inverse = tl.load(inverses + first + rows, mask=rows < left, other=0.0)
    total = tl.load(totals + first + rows, mask=rows < left, other=1.0)
    total_inverse = 1.0 / tl.where(total <= room, room, total)
    grad_entropy = tl.load(grad_entropies + first + rows, mask=rows < left, other=0.0)
    normal = tl.zeros([BT], ACC)
    sloped = tl.zeros([BT], ACC)
    slopes = tl.zeros([BT], ACC)
    for start in range(split * share, tl.minimum(count, split * share + share), BN):
        memory = _at(items, start, channels)
        scores = _products(base, memory, left, count - start, channels, BT, BN, BK, WORK, PRECISION, ACC)
        given = _products(base_grad, memory, left, count - start, channels, BT, BN, BK, WORK, PRECISION, ACC)
        cosines = scores * z_inverse[:, None] * _inverse(item_norms + start, own, count - start)[None, :]
        there = (own < count - start)[None, :]
        softmax = tl.where(there, tl.exp2(cosines * LOG2E) * inverse[:, None], 0.0)
        weights, slope = _shrink(softmax, least, room)
        weights = tl.where(there, weights, 0.0)
        slope = tl.where(there, slope, 0.0)
        grads = _score_grads(weights, slope, given, grad_entropy[:, None], total_inverse[:, None])
        normal += tl.sum(weights * total_inverse[:, None] * grads, 1)
        sloped += tl.sum(softmax * slope * grads, 1)
        slopes += tl.sum(softmax * slope, 1)
    place = sums + split.to(tl.int64) * queries + first + rows
    step = tl.num_programs(1).to(tl.int64) * queries
    tl.store(place, normal, mask=rows < left)
    tl.store(place + step, sloped, mask=rows < left)
    tl.store(place + 2 * step, slopes, mask=rows < left)


@triton.jit
def memory_grad_z_kernel(
    z, items, grad, z_norms, item_norms, inverses, totals, grad_entropies, offsets, means, grad_z,
    queries, count, channels, threshold: tl.float64, eps: tl.float64,
    BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, W: tl.constexpr, W0: tl.constexpr, W1: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of queries, W columns of it."""
    first = tl.program_id(0) * BT
    column = tl.program_id(1) * W
    rows, own = tl.arange(0, BT), tl.arange(0, BN)
    left = queries - first
    least, room = tl.full((), threshold, ACC), tl.full((), eps, ACC)
    base, base_grad = _at(z, first, channels), _at(grad, first, channels)
    norm = tl.load(z_norms + first + rows, mask=rows < left, other=1.0)
    z_inverse = _inverse(z_norms + first, rows, left)
    inverse = tl.load(inverses + first + rows, mask=rows < left, other=0.0)
    total = tl.load(totals + first + rows, mask=rows < left, other=1.0)
    total_inverse = 1.0 / tl.where(total <= room, room, total)
    grad_entropy = tl.load(grad_entropies + first + rows, mask=rows < left, other=0.0)
    offset = tl.load(offsets + first + rows, mask=rows < left, other=0.0)
    mean = tl.load(means + first + rows, mask=rows < left, other=0.0)
    acc0 = tl.zeros([BT, W0], ACC)
    acc1 = tl.zeros([BT, W1 if W1 > 0 else 1], ACC)
    along = tl.zeros([BT], ACC)
    columns0 = column + tl.arange(0, W0)
    for start in range(0, count, BN):
        memory = _at(items, start, channels)
        scores = _products(base, memory, left, count - start, channels, BT, BN, BK, WORK, PRECISION, ACC)
        given = _products(base_grad, memory, left, count - start, channels, BT, BN, BK, WORK, PRECISION, ACC)
        item_inverse = _inverse(item_norms + start, own, count - start)
        cosines = scores * z_inverse[:, None] * item_inverse[None, :]
        there = (own < count - start)[None, :]
        softmax = tl.where(there, tl.exp2(cosines * LOG2E) * inverse[:, None], 0.0)
        weights, slope = _shrink(softmax, least, room)
        slope = tl.where(there, slope, 0.0)
        grads = _score_grads(weights, slope, given, grad_entropy[:, None], total_inverse[:, None])
        grads = tl.where(slope == 0, 0.0, (grads - offset[:, None]) * total_inverse[:, None] * slope)
        grads = softmax * (grads - mean[:, None])
        along += tl.sum(grads * cosines, 1)
        grads = (grads * item_inverse[None, :]).to(WORK)
        tile = _rows(memory, own, count - start, columns0, channels, WORK)
        acc0 = dot(grads, tile, acc0, PRECISION)
        if W1 > 0:
            tile = _rows(memory, own, count - start, column + W0 + tl.arange(0, W1), channels, WORK)
            acc1 = dot(grads, tile, acc1, PRECISION)
    # A short row is divided by a constant and not by its norm.
    along = tl.where(norm <= SHORTEST, 0.0, along) * z_inverse
    _project(grad_z, base, acc0, along, z_inverse, rows, left, first, columns0, column + W, channels, ACC)
    if W1 > 0:
        columns1 = column + W0 + tl.arange(0, W1)
        _project(grad_z, base, acc1, along, z_inverse, rows, left, first, columns1, column + W, channels, ACC)


@triton.jit
def _project(pointer, base, acc, along, factor, rows, left, first, columns, end, channels, ACC: tl.constexpr):
    """Stores (acc - along x) factor, for x the rows at ``base``."""
    x = _rows(base, rows, left, columns, channels, ACC)
    grad = (acc - along[:, None] * x) * factor[:, None]
    mask = (rows < left)[:, None] & (columns < tl.minimum(channels, end))[None, :]
    place = _at(pointer, first, channels) + (rows[:, None] * channels + columns[None, :])
    tl.store(place, grad.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def memory_grad_items_kernel(
    z, items, grad, z_norms, item_norms, inverses, totals, grad_entropies, offsets, means, grad_items,
    queries, count, channels, share, threshold: tl.float64, eps: tl.float64,
    BT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, W: tl.constexpr, W0: tl.constexpr, W1: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of items from one share of the queries, W columns of it. Scores have a row for each item."""
    first = tl.program_id(0) * BN
    column = tl.program_id(1) * W
    split = tl.program_id(2)
    own, rows = tl.arange(0, BN), tl.arange(0, BT)
    left = count - first
    least, room = tl.full((), threshold, ACC), tl.full((), eps, ACC)
    base = _at(items, first, channels)
    norm = tl.load(item_norms + first + own, mask=own < left, other=1.0)
    item_inverse = _inverse(item_norms + first, own, left)
    acc0 = tl.zeros([BN, W0], ACC)
    acc1 = tl.zeros([BN, W1 if W1 > 0 else 1], ACC)
    along = tl.zeros([BN], ACC)
    columns0 = column + tl.arange(0, W0)
    for start in range(split * share, tl.minimum(queries, split * share + share), BT):
        there = rows < queries - start
        query, query_grad = _at(z, start, channels), _at(grad, start, channels)
        scores = _products(base, query, left, queries - start, channels, BN, BT, BK, WORK, PRECISION, ACC)
        given = _products(base, query_grad, left, queries - start, channels, BN, BT, BK, WORK, PRECISION, ACC)
        z_inverse = _inverse(z_norms + start, rows, queries - start)
        inverse = tl.load(inverses + start + rows, mask=there, other=0.0)
        total = tl.load(totals + start + rows, mask=there, other=1.0)
        total_inverse = 1.0 / tl.where(total <= room, room, total)
        grad_entropy = tl.load(grad_entropies + start + rows, mask=there, other=0.0)
        offset = tl.load(offsets + start + rows, mask=there, other=0.0)
        mean = tl.load(means + start + rows, mask=there, other=0.0)
        cosines = scores * item_inverse[:, None] * z_inverse[None, :]
        # The inverse sum of a query that does not exist is 0, and with it all that follows.
        softmax = tl.exp2(cosines * LOG2E) * inverse[None, :]
        weights, slope = _shrink(softmax, least, room)
        grads = _score_grads(weights, slope, given, grad_entropy[None, :], total_inverse[None, :])
        grads = tl.where(slope == 0, 0.0, (grads - offset[None, :]) * total_inverse[None, :] * slope)
        grads = softmax * (grads - mean[None, :])
        along += tl.sum(grads * cosines, 1)
        grads = (grads * z_inverse[None, :] * item_inverse[:, None]).to(WORK)
        weights = tl.where(there[None, :], weights * total_inverse[None, :], 0.0).to(WORK)
        tile = _rows(query_grad, rows, queries - start, columns0, channels, WORK)
        acc0 = dot(weights, tile, acc0, PRECISION)
        tile = _rows(query, rows, queries - start, columns0, channels, WORK)
        acc0 = dot(grads, tile, acc0, PRECISION)
        if W1 > 0:
            columns1 = column + W0 + tl.arange(0, W1)
            tile = _rows(query_grad, rows, queries - start, columns1, channels, WORK)
            acc1 = dot(weights, tile, acc1, PRECISION)
            tile = _rows(query, rows, queries - start, columns1, channels, WORK)
            acc1 = dot(grads, tile, acc1, PRECISION)
    along = tl.where(norm <= SHORTEST, 0.0, along) * item_inverse * item_inverse
    grad_items = _at(grad_items, split.to(tl.int64) * count, channels)
    one = tl.full([BN], 1.0, ACC)
    _project(grad_items, base, acc0, along, one, own, left, first, columns0, column + W, channels, ACC)
    if W1 > 0:
        columns1 = column + W0 + tl.arange(0, W1)
        _project(grad_items, base, acc1, along, one, own, left, first, columns1, column + W, channels, ACC)
