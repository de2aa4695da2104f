"""The nearest rows of a bank in Triton, the kernels.

A row of the bank is compared by its score |b|^2 / 2 - q b; a score that is not a number is infinite. For one neighbour
the scores stay in registers: a program has a block of queries and a share of the bank, and keeps the best row of each
query. For more neighbours the scores of a block of queries are written, and a program per query takes the smallest from
the cache, then the next one, and so on.
"""

import triton
import triton.language as tl

from .._triton_math import at, dot, tile


@triton.jit
def _scores(
    q, bank, half_norms, first, start, queries, count, channels,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Scores (BM, BN) of the queries from ``first`` on with the rows of the bank from ``start`` on."""
    rows, own = tl.arange(0, BM), tl.arange(0, BN)
    left, right = at(q, first, channels), at(bank, start, channels)
    acc = tl.zeros([BM, BN], ACC)
    for offset in range(0, channels, BK):
        columns = offset + tl.arange(0, BK)
        a = tile(left, rows, queries - first, columns, channels, WORK)
        b = tile(right, own, count - start, columns, channels, WORK)
        acc = dot(a, tl.trans(b), acc, PRECISION)
    scores = tl.load(half_norms + start + own, mask=own < count - start, other=float("inf"))[None, :] - acc
    return tl.where(scores == scores, scores, float("inf"))


@triton.jit
def nearest_best_kernel(
    q, bank, half_norms, scores, indices, queries, count, channels, share,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The best row of each query in each share of the bank, (shares, T): its score and its index."""
    blocks = tl.cdiv(queries, BM)
    part = tl.program_id(0) // blocks
    first = tl.program_id(0) % blocks * BM
    rows = tl.arange(0, BM)
    best = tl.full([BM], float("inf"), ACC)
    best_index = tl.full([BM], 0, tl.int32) + part * share
    for start in range(part * share, tl.minimum(part * share + share, count), BN):
        found = _scores(q, bank, half_norms, first, start, queries, count, channels, BM, BN, BK, WORK, PRECISION, ACC)
        score = tl.min(found, 1)
        # In a second step: both at a time would take twice the registers.
        index = tl.min(tl.where(found == score[:, None], start + tl.arange(0, BN)[None, :], count), 1)
        better = score < best
        best = tl.where(better, score, best)
        best_index = tl.where(better, index, best_index)
    there = rows < queries - first
    tl.store(at(scores, part, queries) + first + rows, best, mask=there)
    tl.store(at(indices, part, queries) + first + rows, best_index, mask=there)


@triton.jit
def nearest_scores_kernel(
    q, bank, half_norms, scores, queries, count, channels,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    WORK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """All scores (T, N) of a block of queries."""
    blocks = tl.cdiv(queries, BM)
    first, start = tl.program_id(0) % blocks * BM, tl.program_id(0) // blocks * BN
    found = _scores(q, bank, half_norms, first, start, queries, count, channels, BM, BN, BK, WORK, PRECISION, ACC)
    rows, columns = tl.arange(0, BM), start + tl.arange(0, BN)
    mask = (rows < queries - first)[:, None] & (columns < count)[None, :]
    tl.store(at(scores, first, count) + (rows[:, None] * count + columns[None, :]), found, mask=mask)


@triton.jit
def nearest_smallest_kernel(scores, indices, count, k, BN: tl.constexpr):
    """The k smallest of one row of scores: each is the first one that comes after the one before."""
    row = at(scores, tl.program_id(0), count)
    out = at(indices, tl.program_id(0), k)
    last = tl.full([], -float("inf"), scores.dtype.element_ty)
    last_index = tl.full([], -1, tl.int32)
    for place in range(k):
        best = tl.full([BN], float("inf"), scores.dtype.element_ty)
        best_index = tl.full([BN], 0, tl.int32) + count
        for start in range(0, count, BN):
            columns = start + tl.arange(0, BN)
            inside = columns < count
            found = tl.load(row + columns, mask=inside, other=float("inf"))
            after = inside & ((found > last) | ((found == last) & (columns > last_index)))
            better = after & ((found < best) | (best_index == count))
            best = tl.where(better, found, best)
            best_index = tl.where(better, columns, best_index)
        last = tl.min(best, 0)
        last_index = tl.min(tl.where(best == last, best_index, count), 0)
        tl.store(out + place, last_index)


@triton.jit
def nearest_distances_kernel(
    q, bank, indices, distances, pairs, channels, k, BR: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr
):
    """The distances of some pairs (query, row of the bank)."""
    own = tl.program_id(0) * BR + tl.arange(0, BR)
    there = own < pairs
    a = q + (own // k).to(tl.int64) * channels
    b = bank + tl.load(indices + own, mask=there, other=0) * channels
    squares = tl.zeros([BR, BK], ACC)
    for start in range(0, channels, BK):
        columns = start + tl.arange(0, BK)[None, :]
        inside = there[:, None] & (columns < channels)
        apart = tl.load(a[:, None] + columns, mask=inside, other=0.0).to(ACC)
        apart -= tl.load(b[:, None] + columns, mask=inside, other=0.0).to(ACC)
        squares += apart * apart
    tl.store(distances + own, tl.sqrt(tl.sum(squares, 1)), mask=there)
