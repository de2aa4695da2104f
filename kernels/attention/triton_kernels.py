"""Attention in Triton, the kernels: one pass over the keys with a running maximum, and no (N, M) matrix in memory.

Forward is the online softmax of Milakov and Gimelshein 2018 in blocks, as in FlashAttention (Dao et al. 2022); backward
computes the weights of a block again from the maximum and the sum that forward keeps for each query. One kernel
owns a block of keys and one a block of queries, so that nothing is added up in memory and the result is repeatable.

A head that is not a power of two wide is cut into two that together cover it (80 is 64 + 16, 96 is 64 + 32), and what
still sticks out is masked (30 of 32).
"""

import triton
import triton.language as tl

from .._triton_math import LOG2E, dot


@triton.jit
def _tile(
    base, rows, count, stride, step,
    FIRST: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Rows times SIZE columns from FIRST on; zeros beyond ``count`` rows, if they are ``MASKED``, and WIDTH columns."""
    columns = FIRST + tl.arange(0, SIZE)
    pointers = base + (rows[:, None] * stride + columns[None, :] * step)
    if FIRST + SIZE > WIDTH:
        if MASKED:
            return tl.load(pointers, mask=(rows < count)[:, None] & (columns < WIDTH)[None, :], other=0.0)
        return tl.load(pointers, mask=(columns < WIDTH)[None, :], other=0.0)
    if MASKED:
        return tl.load(pointers, mask=(rows < count)[:, None], other=0.0)
    return tl.load(pointers)


@triton.jit
def _parts(
    base, rows, count, stride, step, FIRST: tl.constexpr, REST: tl.constexpr, WIDTH: tl.constexpr, MASKED: tl.constexpr
):
    """Rows of both parts of a head; if there is one part, it stands for the second too, which nobody reads."""
    first = _tile(base, rows, count, stride, step, 0, FIRST, WIDTH, MASKED)
    rest = first
    if REST > 0:
        rest = _tile(base, rows, count, stride, step, FIRST, REST, WIDTH, MASKED)
    return first, rest


@triton.jit
def _store_tile(base, tile, rows, count, stride, step, FIRST: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    columns = FIRST + tl.arange(0, SIZE)
    mask = (rows < count)[:, None] & (columns < WIDTH)[None, :]
    tl.store(base + (rows[:, None] * stride + columns[None, :] * step), tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _store(base, first, rest, rows, count, stride, step, FIRST: tl.constexpr, REST: tl.constexpr, WIDTH: tl.constexpr):
    """Writes what ``_parts`` reads, in the type of the head."""
    _store_tile(base, first, rows, count, stride, step, 0, FIRST, WIDTH)
    if REST > 0:
        _store_tile(base, rest, rows, count, stride, step, FIRST, REST, WIDTH)


@triton.jit
def _zeros(ROWS: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, ACC: tl.constexpr):
    return tl.zeros([ROWS, FIRST], ACC), tl.zeros([ROWS, REST if REST > 0 else 1], ACC)


@triton.jit
def _inner(a_first, a_rest, b_first, b_rest, REST: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr):
    """Inner products of the rows of a with the rows of b."""
    sums = dot(a_first, tl.trans(b_first), tl.zeros([a_first.shape[0], b_first.shape[0]], ACC), PRECISION)
    if REST > 0:
        sums = dot(a_rest, tl.trans(b_rest), sums, PRECISION)
    return sums


@triton.jit
def _add(weights, b_first, b_rest, acc_first, acc_rest, REST: tl.constexpr, PRECISION: tl.constexpr):
    """acc + weights b, in the type of acc; the product is taken in the type of b."""
    acc_first = dot(weights.to(b_first.dtype), b_first, acc_first, PRECISION)
    if REST > 0:
        acc_rest = dot(weights.to(b_rest.dtype), b_rest, acc_rest, PRECISION)
    return acc_first, acc_rest


@triton.jit
def _head(pointer, head, heads, batch_stride, head_stride):
    """Address of one head, in 64 bits."""
    return pointer + (head // heads).to(tl.int64) * batch_stride + (head % heads).to(tl.int64) * head_stride


@triton.jit
def _place(pointer, head, heads, row, batch_stride, head_stride, row_stride):
    """Address of a row of one head, in 64 bits; what a tile adds to it fits in 32."""
    return _head(pointer, head, heads, batch_stride, head_stride) + row.to(tl.int64) * row_stride


@triton.jit
def _block(count, SIZE: tl.constexpr):
    """Head, first row and rows of the block of this program."""
    blocks = tl.cdiv(count, SIZE)
    return tl.program_id(0) // blocks, (tl.program_id(0) % blocks) * SIZE, tl.arange(0, SIZE)


@triton.jit
def _attend(
    q0, q1, k, v, k_n, k_d, v_m, v_e, left, factor, top, total, acc0, acc1,
    D: tl.constexpr, E: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr,
    BN: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One block of keys: the maximum, the sum and the weighted values of each query so far."""
    keys = tl.arange(0, BN)
    k0, k1 = _parts(k, keys, left, k_n, k_d, D0, D1, D, MASKED)
    scores = _inner(q0, q1, k0, k1, D1, PRECISION, ACC) * factor
    if MASKED:
        scores = tl.where((keys < left)[None, :], scores, float("-inf"))
    highest = tl.maximum(top, tl.max(scores, 1))
    shrink = tl.exp2(top - highest)
    weights = tl.exp2(scores - highest[:, None])
    total = total * shrink + tl.sum(weights, 1)
    v0, v1 = _parts(v, keys, left, v_m, v_e, E0, E1, E, MASKED)
    acc0 = acc0 * shrink[:, None]
    if E1 > 0:
        acc1 = acc1 * shrink[:, None]
    acc0, acc1 = _add(weights, v0, v1, acc0, acc1, E1, PRECISION)
    return highest, total, acc0, acc1


@triton.jit
def attention_forward_kernel(
    q, k, v, out, tops, inverses, scale: tl.float64, queries, keys, heads,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, o_b, o_h, o_n, o_d,
    D: tl.constexpr, E: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A block of queries of one head. Writes the output, and of each query the largest score times log2(e) and the
    inverse sum of the exponentials."""
    head, first, rows = _block(queries, BM)
    left = queries - first
    factor = tl.full((), scale * LOG2E, ACC)
    k, v = _head(k, head, heads, k_b, k_h), _head(v, head, heads, v_b, v_h)
    q0, q1 = _parts(_place(q, head, heads, first, q_b, q_h, q_n), rows, left, q_n, q_d, D0, D1, D, True)
    top = tl.full([BM], float("-inf"), ACC)
    total = tl.zeros([BM], ACC)
    acc0, acc1 = _zeros(BM, E0, E1, ACC)
    whole = (keys // BN) * BN
    for start in range(0, whole, BN):
        top, total, acc0, acc1 = _attend(
            q0, q1, k, v, k_n, k_d, v_n, v_d, keys - start, factor, top, total, acc0, acc1,
            D, E, D0, D1, E0, E1, BN, False, PRECISION, ACC,
        )  # fmt: skip
        k += BN * tl.cast(k_n, tl.int64)
        v += BN * tl.cast(v_n, tl.int64)
    if whole < keys:
        top, total, acc0, acc1 = _attend(
            q0, q1, k, v, k_n, k_d, v_n, v_d, keys - whole, factor, top, total, acc0, acc1,
            D, E, D0, D1, E0, E1, BN, True, PRECISION, ACC,
        )  # fmt: skip
    inverse = 1.0 / total
    acc0 = acc0 * inverse[:, None]
    if E1 > 0:
        acc1 = acc1 * inverse[:, None]
    _store(_place(out, head, heads, first, o_b, o_h, o_n), acc0, acc1, rows, left, o_n, o_d, E0, E1, E)
    place = head.to(tl.int64) * queries + first + rows
    tl.store(tops + place, top, mask=rows < left)
    tl.store(inverses + place, inverse, mask=rows < left)


@triton.jit
def attention_along_kernel(
    grad, out, along, queries, heads, g_b, g_h, g_n, g_d, o_b, o_h, o_n, o_d,
    E: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr, BM: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The inner product of each output with its gradient, which the softmax subtracts from every score's gradient."""
    head, first, rows = _block(queries, BM)
    left = queries - first
    g0, g1 = _parts(_place(grad, head, heads, first, g_b, g_h, g_n), rows, left, g_n, g_d, E0, E1, E, True)
    o0, o1 = _parts(_place(out, head, heads, first, o_b, o_h, o_n), rows, left, o_n, o_d, E0, E1, E, True)
    sums = tl.sum(g0.to(ACC) * o0.to(ACC), 1)
    if E1 > 0:
        sums += tl.sum(g1.to(ACC) * o1.to(ACC), 1)
    tl.store(along + head.to(tl.int64) * queries + first + rows, sums, mask=rows < left)


@triton.jit
def attention_grad_q_kernel(
    q, k, v, grad, tops, inverses, along, grad_q, scale: tl.float64, queries, keys, heads,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, g_b, g_h, g_n, g_d, dq_b, dq_h, dq_n, dq_d,
    D: tl.constexpr, E: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A block of queries of one head, over all keys."""
    head, first, rows = _block(queries, BM)
    left = queries - first
    factor = tl.full((), scale * LOG2E, ACC)
    k, v = _head(k, head, heads, k_b, k_h), _head(v, head, heads, v_b, v_h)
    q0, q1 = _parts(_place(q, head, heads, first, q_b, q_h, q_n), rows, left, q_n, q_d, D0, D1, D, True)
    g0, g1 = _parts(_place(grad, head, heads, first, g_b, g_h, g_n), rows, left, g_n, g_d, E0, E1, E, True)
    place = head.to(tl.int64) * queries + first + rows
    top = tl.load(tops + place, mask=rows < left, other=0.0)
    inverse = tl.load(inverses + place, mask=rows < left, other=0.0)
    off = tl.load(along + place, mask=rows < left, other=0.0)
    acc0, acc1 = _zeros(BM, D0, D1, ACC)
    own = tl.arange(0, BN)
    for start in range(0, keys, BN):
        k0, k1 = _parts(k, own, keys - start, k_n, k_d, D0, D1, D, True)
        scores = _inner(q0, q1, k0, k1, D1, PRECISION, ACC)
        v0, v1 = _parts(v, own, keys - start, v_n, v_d, E0, E1, E, True)
        slopes = _inner(g0, g1, v0, v1, E1, PRECISION, ACC)
        weights = tl.exp2(scores * factor - top[:, None]) * inverse[:, None]
        # A key that does not exist has score 0, which may lie far above the maximum.
        weights = tl.where((own < keys - start)[None, :], weights, 0.0)
        acc0, acc1 = _add(weights * (slopes - off[:, None]), k0, k1, acc0, acc1, D1, PRECISION)
        k += BN * tl.cast(k_n, tl.int64)
        v += BN * tl.cast(v_n, tl.int64)
    by = tl.full((), scale, ACC)
    _store(
        _place(grad_q, head, heads, first, dq_b, dq_h, dq_n), acc0 * by, acc1 * by, rows, left, dq_n, dq_d, D0, D1, D
    )


@triton.jit
def attention_grad_kv_kernel(
    q, k, v, grad, tops, inverses, along, grad_k, grad_v, scale: tl.float64, queries, keys, heads,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, g_b, g_h, g_n, g_d,
    dk_b, dk_h, dk_n, dk_d, dv_b, dv_h, dv_n, dv_d,
    D: tl.constexpr, E: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, NEED_K: tl.constexpr, NEED_V: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A block of keys of one head, over all queries. Scores are transposed: a row for each key."""
    head, first, own = _block(keys, BN)
    left = keys - first
    factor = tl.full((), scale * LOG2E, ACC)
    q, grad = _head(q, head, heads, q_b, q_h), _head(grad, head, heads, g_b, g_h)
    k0, k1 = _parts(_place(k, head, heads, first, k_b, k_h, k_n), own, left, k_n, k_d, D0, D1, D, True)
    v0, v1 = _parts(_place(v, head, heads, first, v_b, v_h, v_n), own, left, v_n, v_d, E0, E1, E, True)
    dk0, dk1 = _zeros(BN, D0, D1, ACC)
    dv0, dv1 = _zeros(BN, E0, E1, ACC)
    rows = tl.arange(0, BM)
    place = head.to(tl.int64) * queries
    for start in range(0, queries, BM):
        there = rows < queries - start
        # The inverse sum of a query that does not exist is 0, and so are its weights.
        top = tl.load(tops + place + rows, mask=there, other=0.0)
        inverse = tl.load(inverses + place + rows, mask=there, other=0.0)
        q0, q1 = _parts(q, rows, queries - start, q_n, q_d, D0, D1, D, True)
        scores = _inner(k0, k1, q0, q1, D1, PRECISION, ACC)
        weights = tl.exp2(scores * factor - top[None, :]) * inverse[None, :]
        g0, g1 = _parts(grad, rows, queries - start, g_n, g_d, E0, E1, E, True)
        if NEED_V:
            dv0, dv1 = _add(weights, g0, g1, dv0, dv1, E1, PRECISION)
        if NEED_K:
            slopes = _inner(v0, v1, g0, g1, E1, PRECISION, ACC)
            off = tl.load(along + place + rows, mask=there, other=0.0)
            dk0, dk1 = _add(weights * (slopes - off[None, :]), q0, q1, dk0, dk1, D1, PRECISION)
        q += BM * tl.cast(q_n, tl.int64)
        grad += BM * tl.cast(g_n, tl.int64)
        place += BM
    if NEED_K:
        by = tl.full((), scale, ACC)
        place_k = _place(grad_k, head, heads, first, dk_b, dk_h, dk_n)
        _store(place_k, dk0 * by, dk1 * by, own, left, dk_n, dk_d, D0, D1, D)
    if NEED_V:
        _store(_place(grad_v, head, heads, first, dv_b, dv_h, dv_n), dv0, dv1, own, left, dv_n, dv_d, E0, E1, E)
