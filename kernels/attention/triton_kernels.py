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
def _tile(base, rows, count, stride, step, FIRST: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """Rows times SIZE columns from FIRST on; zeros beyond ``count`` rows and beyond WIDTH columns."""
    columns = FIRST + tl.arange(0, SIZE)
    pointers = base + (rows[:, None] * stride + columns[None, :] * step)
    mask = (rows < count)[:, None]
    if FIRST + SIZE > WIDTH:
        mask = mask & (columns < WIDTH)[None, :]
    return tl.load(pointers, mask=mask, other=0.0)


@triton.jit
def _full_tile(base, rows, stride, step, FIRST: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """The same where every row exists, so that most widths need no mask at all."""
    columns = FIRST + tl.arange(0, SIZE)
    pointers = base + (rows[:, None] * stride + columns[None, :] * step)
    if FIRST + SIZE > WIDTH:
        return tl.load(pointers, mask=(columns < WIDTH)[None, :], other=0.0)
    return tl.load(pointers)


@triton.jit
def _store(base, tile, rows, count, stride, step, FIRST: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    columns = FIRST + tl.arange(0, SIZE)
    mask = (rows < count)[:, None] & (columns < WIDTH)[None, :]
    tl.store(base + (rows[:, None] * stride + columns[None, :] * step), tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _head(pointer, head, heads, batch_stride, head_stride):
    """Address of one head, in 64 bits."""
    return pointer + (head // heads).to(tl.int64) * batch_stride + (head % heads).to(tl.int64) * head_stride


@triton.jit
def _place(pointer, head, heads, row, batch_stride, head_stride, row_stride):
    """Address of a row of one head, in 64 bits; what a tile adds to it fits in 32."""
    return _head(pointer, head, heads, batch_stride, head_stride) + row.to(tl.int64) * row_stride


@triton.jit
def _keys_of(base, rows, count, stride, step, FIRST, SIZE: tl.constexpr, WIDTH: tl.constexpr, MASKED: tl.constexpr):
    if MASKED:
        return _tile(base, rows, count, stride, step, FIRST, SIZE, WIDTH)
    else:
        return _full_tile(base, rows, stride, step, FIRST, SIZE, WIDTH)


@triton.jit
def _attend(
    q0, q1, k, v, k_n, k_d, v_m, v_e, left, factor, top, total, acc0, acc1,
    D: tl.constexpr, E: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr,
    BN: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One block of keys: the maximum, the sum and the weighted values of each query so far."""
    keys = tl.arange(0, BN)
    k0 = _keys_of(k, keys, left, k_n, k_d, 0, D0, D, MASKED)
    scores = dot(q0, tl.trans(k0), tl.zeros([q0.shape[0], k0.shape[0]], ACC), PRECISION)
    if D1 > 0:
        k1 = _keys_of(k, keys, left, k_n, k_d, D0, D1, D, MASKED)
        scores = dot(q1, tl.trans(k1), scores, PRECISION)
    scores = scores * factor
    if MASKED:
        scores = tl.where((keys < left)[None, :], scores, float("-inf"))
    highest = tl.maximum(top, tl.max(scores, 1))
    shrink = tl.exp2(top - highest)
    weights = tl.exp2(scores - highest[:, None])
    total = total * shrink + tl.sum(weights, 1)
    v0 = _keys_of(v, keys, left, v_m, v_e, 0, E0, E, MASKED)
    acc0 = acc0 * shrink[:, None]
    acc0 = dot(weights.to(v0.dtype), v0, acc0, PRECISION)
    if E1 > 0:
        v1 = _keys_of(v, keys, left, v_m, v_e, E0, E1, E, MASKED)
        acc1 = acc1 * shrink[:, None]
        acc1 = dot(weights.to(v1.dtype), v1, acc1, PRECISION)
    return highest, total, acc0, acc1


@triton.jit
def attention_forward_kernel(
    q, k, v, out, tops, inverses, scale: tl.float64, queries, keys, heads,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, o_b, o_h, o_n, o_d,
    D: tl.constexpr, E: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A block of queries of one head. Writes the output, and the maximum and the inverse sum of each query's powers."""
    blocks = tl.cdiv(queries, BM)
    head = tl.program_id(0) // blocks
    first = (tl.program_id(0) % blocks) * BM
    rows = tl.arange(0, BM)
    factor = tl.full((), scale * LOG2E, ACC)
    q = _place(q, head, heads, first, q_b, q_h, q_n)
    k = _head(k, head, heads, k_b, k_h)
    v = _head(v, head, heads, v_b, v_h)
    q0 = _tile(q, rows, queries - first, q_n, q_d, 0, D0, D)
    q1 = q0
    if D1 > 0:
        q1 = _tile(q, rows, queries - first, q_n, q_d, D0, D1, D)
    top = tl.full([BM], float("-inf"), ACC)
    total = tl.zeros([BM], ACC)
    acc0 = tl.zeros([BM, E0], ACC)
    acc1 = tl.zeros([BM, E1 if E1 > 0 else 1], ACC)
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
    out = _place(out, head, heads, first, o_b, o_h, o_n)
    _store(out, acc0 * inverse[:, None], rows, queries - first, o_n, o_d, 0, E0, E)
    if E1 > 0:
        _store(out, acc1 * inverse[:, None], rows, queries - first, o_n, o_d, E0, E1, E)
    place = head.to(tl.int64) * queries + first
    tl.store(tops + place + rows, top, mask=rows < queries - first)
    tl.store(inverses + place + rows, inverse, mask=rows < queries - first)


@triton.jit
def attention_along_kernel(
    grad, out, along, queries, heads, g_b, g_h, g_n, g_d, o_b, o_h, o_n, o_d,
    E: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr, BM: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The inner product of each output with its gradient: what the softmax takes off every score's gradient."""
    blocks = tl.cdiv(queries, BM)
    head = tl.program_id(0) // blocks
    first = (tl.program_id(0) % blocks) * BM
    rows = tl.arange(0, BM)
    left = queries - first
    grad = _place(grad, head, heads, first, g_b, g_h, g_n)
    out = _place(out, head, heads, first, o_b, o_h, o_n)
    g0 = _tile(grad, rows, left, g_n, g_d, 0, E0, E).to(ACC)
    sums = tl.sum(g0 * _tile(out, rows, left, o_n, o_d, 0, E0, E).to(ACC), 1)
    if E1 > 0:
        g1 = _tile(grad, rows, left, g_n, g_d, E0, E1, E).to(ACC)
        sums += tl.sum(g1 * _tile(out, rows, left, o_n, o_d, E0, E1, E).to(ACC), 1)
    tl.store(along + head.to(tl.int64) * queries + first + rows, sums, mask=rows < left)


@triton.jit
def attention_grad_q_kernel(
    q, k, v, grad, tops, inverses, along, grad_q, scale: tl.float64, queries, keys, heads,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, g_b, g_h, g_n, g_d, dq_b, dq_h, dq_n, dq_d,
    D: tl.constexpr, E: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, E0: tl.constexpr, E1: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A block of queries of one head, over all keys."""
    blocks = tl.cdiv(queries, BM)
    head = tl.program_id(0) // blocks
    first = (tl.program_id(0) % blocks) * BM
    rows = tl.arange(0, BM)
    left = queries - first
    factor = tl.full((), scale * LOG2E, ACC)
    q = _place(q, head, heads, first, q_b, q_h, q_n)
    grad = _place(grad, head, heads, first, g_b, g_h, g_n)
    k = _head(k, head, heads, k_b, k_h)
    v = _head(v, head, heads, v_b, v_h)
    q0 = _tile(q, rows, left, q_n, q_d, 0, D0, D)
    g0 = _tile(grad, rows, left, g_n, g_d, 0, E0, E)
    q1 = q0
    if D1 > 0:
        q1 = _tile(q, rows, left, q_n, q_d, D0, D1, D)
    g1 = g0
    if E1 > 0:
        g1 = _tile(grad, rows, left, g_n, g_d, E0, E1, E)
    place = head.to(tl.int64) * queries + first
    top = tl.load(tops + place + rows, mask=rows < left, other=0.0)
    inverse = tl.load(inverses + place + rows, mask=rows < left, other=0.0)
    off = tl.load(along + place + rows, mask=rows < left, other=0.0)
    acc0 = tl.zeros([BM, D0], ACC)
    acc1 = tl.zeros([BM, D1 if D1 > 0 else 1], ACC)
    own = tl.arange(0, BN)
    for start in range(0, keys, BN):
        k0 = _tile(k, own, keys - start, k_n, k_d, 0, D0, D)
        scores = dot(q0, tl.trans(k0), tl.zeros([BM, BN], ACC), PRECISION)
        k1 = k0
        if D1 > 0:
            k1 = _tile(k, own, keys - start, k_n, k_d, D0, D1, D)
            scores = dot(q1, tl.trans(k1), scores, PRECISION)
        v0 = _tile(v, own, keys - start, v_n, v_d, 0, E0, E)
        slopes = dot(g0, tl.trans(v0), tl.zeros([BM, BN], ACC), PRECISION)
        if E1 > 0:
            v1 = _tile(v, own, keys - start, v_n, v_d, E0, E1, E)
            slopes = dot(g1, tl.trans(v1), slopes, PRECISION)
        weights = tl.exp2(scores * factor - top[:, None]) * inverse[:, None]
        # A key that does not exist has score 0, which may lie far above the maximum.
        weights = tl.where((own < keys - start)[None, :], weights, 0.0)
        slopes = (weights * (slopes - off[:, None])).to(k0.dtype)
        acc0 = dot(slopes, k0, acc0, PRECISION)
        if D1 > 0:
            acc1 = dot(slopes, k1, acc1, PRECISION)
        k += BN * tl.cast(k_n, tl.int64)
        v += BN * tl.cast(v_n, tl.int64)
    by = tl.full((), scale, ACC)
    grad_q = _place(grad_q, head, heads, first, dq_b, dq_h, dq_n)
    _store(grad_q, acc0 * by, rows, left, dq_n, dq_d, 0, D0, D)
    if D1 > 0:
        _store(grad_q, acc1 * by, rows, left, dq_n, dq_d, D0, D1, D)


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
    blocks = tl.cdiv(keys, BN)
    head = tl.program_id(0) // blocks
    first = (tl.program_id(0) % blocks) * BN
    own = tl.arange(0, BN)
    left = keys - first
    factor = tl.full((), scale * LOG2E, ACC)
    k = _place(k, head, heads, first, k_b, k_h, k_n)
    v = _place(v, head, heads, first, v_b, v_h, v_n)
    q = _head(q, head, heads, q_b, q_h)
    grad = _head(grad, head, heads, g_b, g_h)
    k0 = _tile(k, own, left, k_n, k_d, 0, D0, D)
    v0 = _tile(v, own, left, v_n, v_d, 0, E0, E)
    k1 = k0
    if D1 > 0:
        k1 = _tile(k, own, left, k_n, k_d, D0, D1, D)
    v1 = v0
    if E1 > 0:
        v1 = _tile(v, own, left, v_n, v_d, E0, E1, E)
    dk0 = tl.zeros([BN, D0], ACC)
    dk1 = tl.zeros([BN, D1 if D1 > 0 else 1], ACC)
    dv0 = tl.zeros([BN, E0], ACC)
    dv1 = tl.zeros([BN, E1 if E1 > 0 else 1], ACC)
    rows = tl.arange(0, BM)
    place = head.to(tl.int64) * queries
    for start in range(0, queries, BM):
        there = rows < queries - start
        # The inverse sum of a query that does not exist is 0, and so are its weights.
        top = tl.load(tops + place + rows, mask=there, other=0.0)
        inverse = tl.load(inverses + place + rows, mask=there, other=0.0)
        q0 = _tile(q, rows, queries - start, q_n, q_d, 0, D0, D)
        scores = dot(k0, tl.trans(q0), tl.zeros([BN, BM], ACC), PRECISION)
        q1 = q0
        if D1 > 0:
            q1 = _tile(q, rows, queries - start, q_n, q_d, D0, D1, D)
            scores = dot(k1, tl.trans(q1), scores, PRECISION)
        weights = tl.exp2(scores * factor - top[None, :]) * inverse[None, :]
        g0 = _tile(grad, rows, queries - start, g_n, g_d, 0, E0, E)
        g1 = g0
        if E1 > 0:
            g1 = _tile(grad, rows, queries - start, g_n, g_d, E0, E1, E)
        if NEED_V:
            dv0 = dot(weights.to(g0.dtype), g0, dv0, PRECISION)
            if E1 > 0:
                dv1 = dot(weights.to(g1.dtype), g1, dv1, PRECISION)
        if NEED_K:
            slopes = dot(v0, tl.trans(g0), tl.zeros([BN, BM], ACC), PRECISION)
            if E1 > 0:
                slopes = dot(v1, tl.trans(g1), slopes, PRECISION)
            off = tl.load(along + place + rows, mask=there, other=0.0)
            slopes = (weights * (slopes - off[None, :])).to(q0.dtype)
            dk0 = dot(slopes, q0, dk0, PRECISION)
            if D1 > 0:
                dk1 = dot(slopes, q1, dk1, PRECISION)
        q += BM * tl.cast(q_n, tl.int64)
        grad += BM * tl.cast(g_n, tl.int64)
        place += BM
    if NEED_K:
        by = tl.full((), scale, ACC)
        grad_k = _place(grad_k, head, heads, first, dk_b, dk_h, dk_n)
        _store(grad_k, dk0 * by, own, left, dk_n, dk_d, 0, D0, D)
        if D1 > 0:
            _store(grad_k, dk1 * by, own, left, dk_n, dk_d, D0, D1, D)
    if NEED_V:
        grad_v = _place(grad_v, head, heads, first, dv_b, dv_h, dv_n)
        _store(grad_v, dv0, own, left, dv_n, dv_d, 0, E0, E)
        if E1 > 0:
            _store(grad_v, dv1, own, left, dv_n, dv_d, E0, E1, E)
