"""Reading from a memory in Triton, the kernels: two passes over the items, and never a whole (T, N) matrix.

The first pass writes the exponentials of a block of queries, as many as the launcher has room for, and adds them up;
those of a block of items, a split, are relative to its largest score. The second applies the threshold to them and
adds up in one go the weighted items, the weights and their entropy; it divides by the L1 norm, and subtracts its
logarithm, at the end. The backward pass computes the cosines again, turns them row by row into weights and gradients of
scores, and multiplies with those. A score is a cosine times the temperature, here in units of log 2.

Rows of a table (T, N) begin at addresses from which several numbers are loaded at once; zeros fill the room behind the
N of them. Scores are inner products of the rows as they are, divided by the norms afterwards: half-precision rows then
lose nothing by being normalised. Results are added up in a fixed order.
"""

import triton
import triton.language as tl

from .._triton_math import LN2, LOG2E, dot, fast_log2
from .reference import NORM_EPS

SHORTEST = tl.constexpr(NORM_EPS)
# The logarithm of a smaller weight may be minus infinity, and what it adds to the entropy is nothing.
SMALLEST = tl.constexpr(2.0**-126)


@triton.jit
def _tile(base, rows, count, columns, width, TYPE: tl.constexpr):
    """Elements (rows, columns) of a contiguous matrix of so many rows and columns, zeros outside."""
    mask = (rows < count)[:, None] & (columns < width)[None, :]
    return tl.load(base + (rows[:, None] * width + columns[None, :]), mask=mask, other=0.0).to(TYPE)


@triton.jit
def _store(base, rows, count, columns, width, values):
    """Writes what ``_tile`` reads, in the type of the matrix."""
    mask = (rows < count)[:, None] & (columns < width)[None, :]
    tl.store(base + (rows[:, None] * width + columns[None, :]), values.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _at(pointer, first, width):
    """Address of a row of a contiguous matrix, in 64 bits; what a tile adds to it fits in 32."""
    return pointer + tl.cast(first, tl.int64) * width


@triton.jit
def _inner_products(
    a, b, a_count, b_count, channels, BA: tl.constexpr, BB: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Inner products (BA, BB) of the rows at a with those at b."""
    rows_a, rows_b = tl.arange(0, BA), tl.arange(0, BB)
    acc = tl.zeros([BA, BB], ACC)
    for start in range(0, channels, BK):
        columns = start + tl.arange(0, BK)
        left = _tile(a, rows_a, a_count, columns, channels, WORK)
        right = _tile(b, rows_b, b_count, columns, channels, WORK)
        acc = dot(left, tl.trans(right), acc, PRECISION)
    return acc


@triton.jit
def _inverse(norms, rows, count):
    """Inverse norms, those of short rows that of SHORTEST; of rows that do not exist 0."""
    norm = tl.load(norms + rows, mask=rows < count, other=float("inf"))
    return 1.0 / tl.where(norm <= SHORTEST, SHORTEST, norm)


@triton.jit
def _shrunk(softmax, limit):
    """Weights after the hard shrinkage. A comparison the other way round would lose what is not a number."""
    return tl.where(softmax <= limit, 0.0, softmax)


@triton.jit
def memory_norms_kernel(matrix, norms, count, channels, BR: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr):
    """Euclidean norm of each row."""
    first = tl.program_id(0) * BR
    rows = tl.arange(0, BR)
    base = _at(matrix, first, channels)
    squares = tl.zeros([BR, BK], ACC)
    for start in range(0, channels, BK):
        tile = _tile(base, rows, count - first, start + tl.arange(0, BK), channels, ACC)
        squares += tile * tile
    tl.store(norms + first + rows, tl.sqrt(tl.sum(squares, 1)), mask=rows < count - first)


@triton.jit
def _cosines(
    z, items, z_norms, item_norms, first, start, queries, count, channels,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Cosines (BM, BN) of the queries from ``first`` on with the items from ``start`` on."""
    scores = _inner_products(
        _at(z, first, channels), _at(items, start, channels), queries - first, count - start, channels, BM, BN, BK,
        WORK, PRECISION, ACC,
    )  # fmt: skip
    z_inverse = _inverse(z_norms + first, tl.arange(0, BM), queries - first)
    return scores * z_inverse[:, None] * _inverse(item_norms + start, tl.arange(0, BN), count - start)[None, :]


@triton.jit
def memory_exponentials_kernel(
    z, items, z_norms, item_norms, exponentials, split_largest, split_sums, queries, count, width, channels,
    temperature: tl.float64,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """First pass: the exponentials (T, N) of a block of queries and a split, and for each query the largest score and
    their sum."""
    blocks = tl.cdiv(queries, BM)
    share = tl.program_id(0) // blocks
    first, start = tl.program_id(0) % blocks * BM, share * BN
    rows, own = tl.arange(0, BM), tl.arange(0, BN)
    cosines = _cosines(
        z, items, z_norms, item_norms, first, start, queries, count, channels, BM, BN, BK, WORK, PRECISION, ACC
    )
    scores = tl.where((own < count - start)[None, :], cosines * tl.full((), temperature * LOG2E, ACC), -float("inf"))
    largest = tl.max(scores, 1)
    found = tl.exp2(scores - largest[:, None])
    _store(_at(exponentials, first, width), rows, queries - first, start + own, width, found)
    there = rows < queries - first
    tl.store(_at(split_largest, share, queries) + first + rows, largest, mask=there)
    tl.store(_at(split_sums, share, queries) + first + rows, tl.sum(found, 1), mask=there)


@triton.jit
def memory_read_kernel(
    items, exponentials, split_largest, split_sums, out, entropies, largest, inverses, totals, kept,
    queries, count, width, channels, limit: tl.float64,
    SPLIT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Second pass, for a block of queries and of columns of the output. A split is a multiple of BK items."""
    first = tl.program_id(0) * BM
    rows, own = tl.arange(0, BM), tl.arange(0, BK)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    left = queries - first
    there = rows < left
    most = tl.full((), limit, ACC)
    best = tl.full([BM], -float("inf"), ACC)
    for split in range(tl.cdiv(count, SPLIT)):
        best = tl.maximum(best, tl.load(_at(split_largest, split, queries) + first + rows, mask=there, other=0.0))
    whole = tl.zeros([BM], ACC)
    for split in range(tl.cdiv(count, SPLIT)):
        place = _at(split_largest, split, queries) + first + rows
        part = tl.exp2(tl.load(place, mask=there, other=0.0) - best)
        whole += part * tl.load(_at(split_sums, split, queries) + first + rows, mask=there, other=1.0)
    inverse = 1.0 / whole
    acc = tl.zeros([BM, BN], ACC)
    total = tl.zeros([BM], ACC)
    moment = tl.zeros([BM], ACC)
    exponentials = _at(exponentials, first, width)
    for start in range(0, count, BK):
        place = _at(split_largest, start // SPLIT, queries) + first + rows
        part = tl.exp2(tl.load(place, mask=there, other=0.0) - best) * inverse
        weights = _shrunk(_tile(exponentials, rows, left, start + own, width, ACC) * part[:, None], most)
        if kept is not None:  # noqa: SIM102 (settled when the kernel is compiled; the other when it runs)
            if tl.program_id(1) == 0:
                _store(_at(kept, first, count), rows, left, start + own, count, weights)
        # Times N they are at least 1 if the threshold is 1 / N: within any format, and the logarithms small.
        weights *= count
        total += tl.sum(weights, 1)
        if tl.program_id(1) == 0:
            moment += tl.sum(weights * fast_log2(tl.where(weights >= SMALLEST, weights, 1.0)), 1)
        tile = _tile(_at(items, start, channels), own, count - start, columns, channels, WORK)
        acc = dot(weights.to(WORK), tile, acc, PRECISION)
    divisor = tl.where(total == 0, 1.0, total)
    _store(_at(out, first, channels), rows, left, columns, channels, acc / divisor[:, None])
    if tl.program_id(1) == 0:
        entropy = total / divisor * tl.log(divisor) - moment * LN2 / divisor
        tl.store(entropies + first + rows, tl.where(entropy < 0, 0.0, entropy), mask=there)
        tl.store(largest + first + rows, best, mask=there)
        tl.store(inverses + first + rows, inverse, mask=there)
        tl.store(totals + first + rows, total / count, mask=there)


@triton.jit
def memory_scores_kernel(
    z, items, grad, z_norms, item_norms, cosines, given, queries, count, width, channels,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Cosines (T, N) of a block of queries and items, and what the output's gradient gives their weights."""
    blocks = tl.cdiv(queries, BM)
    first, start = tl.program_id(0) % blocks * BM, tl.program_id(0) // blocks * BN
    rows, own = tl.arange(0, BM), start + tl.arange(0, BN)
    found = _cosines(
        z, items, z_norms, item_norms, first, start, queries, count, channels, BM, BN, BK, WORK, PRECISION, ACC
    )
    _store(_at(cosines, first, width), rows, queries - first, own, width, found)
    found = _inner_products(
        _at(grad, first, channels), _at(items, start, channels), queries - first, count - start, channels, BM, BN, BK,
        WORK, PRECISION, ACC,
    )  # fmt: skip
    _store(_at(given, first, width), rows, queries - first, own, width, found)


@triton.jit
def _weight_grads(
    cosines, given, rows, left, items, width, largest, inverse, divisor, grad_score, factor, limit, ACC: tl.constexpr
):
    """Cosines, normalised weights, and the gradient of those weights but for a number that a query's have in common.

    The logarithm of a weight, in the gradient of the entropy, is its score and such a number.
    """
    cosine = _tile(cosines, rows, left, items, width, ACC)
    softmax = tl.exp2(cosine * factor - largest[:, None]) * inverse[:, None]
    normal = _shrunk(softmax, limit) / divisor[:, None]
    return cosine, normal, _tile(given, rows, left, items, width, ACC) - grad_score[:, None] * cosine


@triton.jit
def memory_score_grads_kernel(
    cosines, given, z_norms, item_norms, largest, inverses, totals, grad_entropies, weights, grads,
    along_z, along_items, queries, count, width, limit: tl.float64, temperature: tl.float64,
    BR: tl.constexpr, BN: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The normalised weights (T, N) of some queries and the gradients of their cosines, divided by both norms; and the
    sums of gradient times cosine, for each query and for each item of these queries.

    The weights are the softmax of the scores of what is kept, so their gradient is its gradient. May write over its
    inputs: what a step writes is what it has read.
    """
    first = tl.program_id(0) * BR
    rows, own = tl.arange(0, BR), tl.arange(0, BN)
    left = queries - first
    there = rows < left
    most, factor = tl.full((), limit, ACC), tl.full((), temperature * LOG2E, ACC)
    best = tl.load(largest + first + rows, mask=there, other=0.0)
    # The inverse sum of a query that does not exist is 0, and with it all that follows.
    inverse = tl.load(inverses + first + rows, mask=there, other=0.0)
    total = tl.load(totals + first + rows, mask=there, other=1.0)
    divisor = tl.where(total == 0, 1.0, total)
    scale = tl.full((), temperature, ACC)
    grad_score = tl.load(grad_entropies + first + rows, mask=there, other=0.0) * scale
    z_inverse = _inverse(z_norms + first, rows, left)
    cosines, given = _at(cosines, first, width), _at(given, first, width)
    offset = tl.zeros([BR], ACC)
    whole = tl.zeros([BR], ACC)
    for start in range(0, count, BN):
        items = start + own
        inside = (items < count)[None, :]
        _, normal, found = _weight_grads(
            cosines, given, rows, left, items, width, best, inverse, divisor, grad_score, factor, most, ACC
        )
        offset += tl.sum(tl.where(inside, normal * found, 0.0), 1)
        whole += tl.sum(tl.where(inside, normal, 0.0), 1)
    # Computed again, the weights add up to 1 but for rounding, which a large gradient of all of them would show.
    offset /= tl.where(whole == 0, 1.0, whole)
    weights, grads = _at(weights, first, width), _at(grads, first, width)
    along = tl.zeros([BR], ACC)
    for start in range(0, count, BN):
        items = start + own
        cosine, normal, found = _weight_grads(
            cosines, given, rows, left, items, width, best, inverse, divisor, grad_score, factor, most, ACC
        )
        inside = (items < count)[None, :]
        found = tl.where(inside, scale * normal * (found - offset[:, None]), 0.0)
        parts = found * cosine
        along += tl.sum(parts, 1)
        tl.store(_at(along_items, tl.program_id(0), count) + items, tl.sum(parts, 0), mask=items < count)
        item_inverse = _inverse(item_norms, items, count)
        _store(weights, rows, left, items, width, tl.where(inside, normal, 0.0))
        _store(grads, rows, left, items, width, found * z_inverse[:, None] * item_inverse[None, :])
    tl.store(along_z + first + rows, along, mask=there)


@triton.jit
def _combined(
    table, values, acc, first, columns, queries, count, width, channels, BM: tl.constexpr, BK: tl.constexpr,
    SWAPPED: tl.constexpr, WORK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc plus columns of the product of the table (T, N), from row ``first`` on, with values (N, C); ``SWAPPED``: of
    the transposed table with values (T, C)."""
    own, other = first + tl.arange(0, BM), tl.arange(0, BK)
    for start in range(0, queries if SWAPPED else count, BK):
        if SWAPPED:
            left = tl.trans(_tile(_at(table, start, width), other, queries - start, own, width, WORK))
            right = _tile(_at(values, start, channels), other, queries - start, columns, channels, WORK)
        else:
            left = _tile(_at(table, first, width), own - first, queries - first, start + other, width, WORK)
            right = _tile(_at(values, start, channels), other, count - start, columns, channels, WORK)
        acc = dot(left, right, acc, PRECISION)
    return acc


@triton.jit
def memory_grad_kernel(
    grads, values, weights, more, x, norms, along, out, queries, count, width, channels,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SWAPPED: tl.constexpr, ADD: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of queries, or ``SWAPPED`` of items, for a block of columns; ``ADD`` to what is there.

    grads (T, N) times values and, if they are not None, weights (T, N) times more; of that the part along x, the
    rows whose gradient this is, is taken away.
    """
    first = tl.program_id(0) * BM
    count_own = (count if SWAPPED else queries) - first
    rows, columns = tl.arange(0, BM), tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros([BM, BN], ACC)
    acc = _combined(
        grads, values, acc, first, columns, queries, count, width, channels, BM, BK, SWAPPED, WORK, PRECISION
    )
    if weights is not None:
        acc = _combined(
            weights, more, acc, first, columns, queries, count, width, channels, BM, BK, SWAPPED, WORK, PRECISION
        )
    norm = tl.load(norms + first + rows, mask=rows < count_own, other=1.0)
    inverse = _inverse(norms + first, rows, count_own)
    # A short row is divided by a constant and not by its norm.
    part = tl.where(norm <= SHORTEST, 0.0, tl.load(along + first + rows, mask=rows < count_own, other=0.0))
    part *= inverse * inverse
    acc -= part[:, None] * _tile(_at(x, first, channels), rows, count_own, columns, channels, ACC)
    if ADD:
        acc += _tile(_at(out, first, channels), rows, count_own, columns, channels, ACC)
    _store(_at(out, first, channels), rows, count_own, columns, channels, acc)
