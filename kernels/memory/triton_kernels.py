"""Reading from a memory in Triton: what lies between the matrix products, one row of a table (T, N) a program.

Forward: scores, the inner products of a query with all items, become weights. Backward: weights, and what the output's
gradient gives them, become gradients of the scores; and the gradients of unit rows become those of the rows.

Rows of a table begin at addresses from which several numbers are loaded at once. Scores are inner products of the rows
as they are, divided by the norms here: half-precision rows then lose nothing by being normalised. Results are added up
in a fixed order. A program may write over the row that it reads.
"""

import triton
import triton.language as tl

from .._triton_math import LN2, LOG2E, at, fast_log2
from .reference import NORM_EPS

SHORTEST = tl.constexpr(NORM_EPS)
# The logarithm of a smaller weight may be minus infinity, and what it adds to the entropy is nothing.
SMALLEST = tl.constexpr(2.0**-126)


@triton.jit
def _inverse(norm):
    """Inverse norms, those of short rows that of SHORTEST."""
    return 1.0 / tl.where(norm <= SHORTEST, SHORTEST, norm)


@triton.jit
def _log2(weights):
    """Of weights; 0 of those that are 0."""
    return fast_log2(tl.where(weights >= SMALLEST, weights, 1.0))


@triton.jit
def _scores(products, item_norms, items, count, factor):
    """Scores of a query with some items, in units of log 2; minus infinity beyond the last item."""
    inside = items < count
    norm = tl.load(item_norms + items, mask=inside, other=1.0)
    product = tl.load(products + items, mask=inside, other=0.0)
    return tl.where(inside, product * _inverse(norm) * factor, -float("inf"))


@triton.jit
def _shrunk(softmax, limit):
    """Weights after the hard shrinkage. A comparison the other way round would lose what is not a number."""
    return tl.where(softmax <= limit, 0.0, softmax)


@triton.jit
def memory_weights_kernel(
    products, z_norms, item_norms, weights, kept, entropies, largest, inverses, totals, count, width,
    limit: tl.float64, temperature: tl.float64, BN: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The normalised weights of one query, their entropy, and the sums that the backward pass wants."""
    query = tl.program_id(0)
    own = tl.arange(0, BN)
    row = at(products, query, width)
    factor = tl.full((), temperature * LOG2E, ACC) * _inverse(tl.load(z_norms + query))
    best = tl.full((), -float("inf"), ACC)
    whole = tl.full((), 0.0, ACC)
    for start in range(0, count, BN):
        scores = _scores(row, item_norms, start + own, count, factor)
        found = tl.maximum(best, tl.max(scores, 0))
        whole = whole * tl.exp2(best - found) + tl.sum(tl.exp2(scores - found), 0)
        best = found
    inverse, most = 1.0 / whole, tl.full((), limit, ACC)
    total = tl.full((), 0.0, ACC)
    moment = tl.full((), 0.0, ACC)
    for start in range(0, count, BN):
        softmax = tl.exp2(_scores(row, item_norms, start + own, count, factor) - best) * inverse
        # Times N they are at least 1 if the threshold is 1 / N, and the logarithms small.
        shrunk = _shrunk(softmax, most) * count
        total += tl.sum(shrunk, 0)
        moment += tl.sum(shrunk * _log2(shrunk), 0)
    divisor = tl.where(total == 0, 1.0, total)
    for start in range(0, count, BN):
        softmax = tl.exp2(_scores(row, item_norms, start + own, count, factor) - best) * inverse
        normal = _shrunk(softmax, most) * count / divisor
        inside = start + own < count
        tl.store(at(weights, query, width) + start + own, normal.to(weights.dtype.element_ty), mask=inside)
        if kept is not None:
            tl.store(at(kept, query, count) + start + own, normal, mask=inside)
    entropy = total / divisor * tl.log(divisor) - moment * LN2 / divisor
    tl.store(entropies + query, tl.where(entropy < 0, 0.0, entropy))
    tl.store(largest + query, best)
    tl.store(inverses + query, inverse)
    tl.store(totals + query, total / count)


@triton.jit
def _weights(
    products, kept, item_norms, items, count, factor, best, inverse, divisor, limit, ACC: tl.constexpr
):  # fmt: skip
    """Normalised weights of a query: those that were kept, or else from the products once more."""
    if kept is not None:
        return tl.load(kept + items, mask=items < count, other=0.0)
    softmax = tl.exp2(_scores(products, item_norms, items, count, factor) - best) * inverse
    return _shrunk(softmax, limit) / divisor


@triton.jit
def memory_score_grads_kernel(
    products, kept, given, z_norms, item_norms, largest, inverses, totals, grad_entropies, weights, grads, count, width,
    limit: tl.float64, temperature: tl.float64, BN: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The normalised weights of one query, and the gradients of its inner products with the items.

    The weights are the softmax of the scores of what is kept, so their gradient is its gradient. In the gradient of the
    entropy, a number that all weights of a query have in common falls out: times N they are near 1, and the logarithms
    small.
    """
    query = tl.program_id(0)
    own = tl.arange(0, BN)
    z_inverse = _inverse(tl.load(z_norms + query))
    scale, most = tl.full((), temperature, ACC), tl.full((), limit, ACC)
    factor = scale * LOG2E * z_inverse
    best, inverse = tl.load(largest + query), tl.load(inverses + query)
    total, grad_entropy = tl.load(totals + query), tl.load(grad_entropies + query)
    divisor = tl.where(total == 0, 1.0, total)
    row, seen = at(products, query, width), at(given, query, width)
    old = at(kept, query, count) if kept is not None else None
    offset = tl.full((), 0.0, ACC)
    whole = tl.full((), 0.0, ACC)
    for start in range(0, count, BN):
        items = start + own
        normal = _weights(row, old, item_norms, items, count, factor, best, inverse, divisor, most, ACC)
        found = tl.load(seen + items, mask=items < count, other=0.0) - grad_entropy * LN2 * _log2(normal * count)
        offset += tl.sum(normal * found, 0)
        whole += tl.sum(normal, 0)
    # Rounded, the weights add up to 1 but for rounding, which a large gradient of all of them would show.
    offset /= tl.where(whole == 0, 1.0, whole)
    for start in range(0, count, BN):
        items = start + own
        inside = items < count
        normal = _weights(row, old, item_norms, items, count, factor, best, inverse, divisor, most, ACC)
        found = tl.load(seen + items, mask=inside, other=0.0) - grad_entropy * LN2 * _log2(normal * count)
        norm = tl.load(item_norms + items, mask=inside, other=1.0)
        grad = scale * normal * (found - offset) * z_inverse * _inverse(norm)
        tl.store(at(weights, query, width) + items, normal.to(weights.dtype.element_ty), mask=inside)
        tl.store(at(grads, query, width) + items, grad.to(grads.dtype.element_ty), mask=inside)


@triton.jit
def memory_unit_grads_kernel(
    found, more, x, norms, out, channels, BK: tl.constexpr, ACC: tl.constexpr
):  # fmt: skip
    """Of one row x: ``found``, the gradient of x / |x| over |x|, less its part along x; plus ``more`` if there is any.

    A short row is divided by a constant and not by its norm, and nothing is taken away.
    """
    row = tl.program_id(0)
    own = tl.arange(0, BK)
    found, x = at(found, row, channels), at(x, row, channels)
    along = tl.full((), 0.0, ACC)
    for start in range(0, channels, BK):
        inside = start + own < channels
        value = tl.load(x + start + own, mask=inside, other=0.0).to(ACC)
        along += tl.sum(tl.load(found + start + own, mask=inside, other=0.0) * value, 0)
    norm = tl.load(norms + row)
    along = tl.where(norm <= SHORTEST, 0.0, along * _inverse(norm) * _inverse(norm))
    for start in range(0, channels, BK):
        inside = start + own < channels
        value = tl.load(x + start + own, mask=inside, other=0.0).to(ACC)
        grad = tl.load(found + start + own, mask=inside, other=0.0) - along * value
        if more is not None:
            grad += tl.load(at(more, row, channels) + start + own, mask=inside, other=0.0)
        tl.store(at(out, row, channels) + start + own, grad.to(out.dtype.element_ty), mask=inside)
