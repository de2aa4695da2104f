"""A mixture density head in Triton: what lies between the matrix products.

Forward: means and raw deviations, those before the softplus, become log-densities, and these the likelihood. Backward:
they become their own gradients. A table holds those of some rows and of the components of a block, the dimensions of a
component one after the other; its rows begin at addresses from which several numbers are loaded at once. The biases are
added here. Results are added up in a fixed order.
"""

import triton
import triton.language as tl

from .._triton_math import LN2, LOG2E, at, fast_inverse, fast_log2
from .triton import _log_add


@triton.jit
def _inverse(x, FAST: tl.constexpr):
    return fast_inverse(x) if FAST else 1.0 / x


@triton.jit
def _log(x, FAST: tl.constexpr):
    return fast_log2(x) * LN2 if FAST else tl.log(x)


@triton.jit
def _softplus(raw, FAST: tl.constexpr):
    """log(1 + e^raw), exact to rounding also if the exponential is lost beside the 1; ``FAST`` to 5e-6 of itself."""
    exponential = tl.exp2(-tl.abs(raw) * LOG2E)
    if FAST:
        # The logarithm is good to 2e-7, which is little if it is above 0.04; below, five terms of the series are.
        series = exponential * (
            1.0 - exponential * (0.5 - exponential * (0.33333333 - exponential * (0.25 - exponential * 0.2)))
        )
        return tl.maximum(raw, 0.0) + tl.where(exponential < 0.04, series, fast_log2(1.0 + exponential) * LN2)
    whole = 1.0 + exponential
    rest = whole - 1.0
    log = tl.where(rest == 0.0, exponential, tl.log(whole) * (exponential / tl.where(rest == 0.0, 1.0, rest)))
    return tl.maximum(raw, 0.0) + log


@triton.jit
def linear_gmm_densities_kernel(
    y, means, raws, b_mean, b_std, densities, count, parts, dims, components, width, min_std: tl.float64,
    BT: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Log-densities, but for the constant, of some rows under some components of a block."""
    first = tl.program_id(0) * BT
    rows, own = tl.arange(0, BT), tl.program_id(1) * BK + tl.arange(0, BK)
    there = (rows < count - first)[:, None] & (own < parts)[None, :]
    least = tl.full((), min_std, ACC)
    y, means, raws = at(y, first, dims), at(means, first, width), at(raws, first, width)
    density = tl.zeros([BT, BK], ACC)
    for start in range(0, dims, BD):
        columns = start + tl.arange(0, BD)
        inside = (columns < dims)[None, None, :]
        mask = there[:, :, None] & inside
        outputs = own[None, :, None] * dims + columns[None, None, :]
        places = rows[:, None, None] * width + outputs
        mean = tl.load(means + places, mask=mask, other=0.0)
        raw = tl.load(raws + places, mask=mask, other=0.0)
        known = (own < parts)[None, :, None] & inside
        if b_mean is not None:
            mean += tl.load(b_mean + outputs, mask=known, other=0.0)
        if b_std is not None:
            raw += tl.load(b_std + outputs, mask=known, other=0.0)
        point = tl.load(
            y + (rows[:, None, None] * dims + columns[None, None, :]),
            mask=(rows < count - first)[:, None, None] & inside,
            other=0.0,
        )
        std = _softplus(raw, FAST) + least
        gap = (point - mean) * _inverse(std, FAST)
        density -= tl.sum(tl.where(mask, 0.5 * gap * gap + _log(std, FAST), 0.0), 2)
    tl.store(at(densities, first, components) + (rows[:, None] * components + own[None, :]), density, mask=there)


@triton.jit
def linear_gmm_likelihood_kernel(
    logits, log_shares, likelihood, count, components, dims, BT: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr
):
    """The log-likelihood of a block of rows. ``log_shares`` are the densities before, the logarithms of the shares
    after."""
    first = tl.program_id(0) * BT
    rows = tl.arange(0, BT)
    logits, log_shares = at(logits, first, components), at(log_shares, first, components)
    lowest = tl.full([BT], float("-inf"), ACC)
    top, total, joint_top, joint_total = lowest, tl.zeros([BT], ACC), lowest, tl.zeros([BT], ACC)
    for start in range(0, components, BK):
        own = start + tl.arange(0, BK)
        there = (rows < count - first)[:, None] & (own < components)[None, :]
        places = rows[:, None] * components + own[None, :]
        logit = tl.load(logits + places, mask=there, other=float("-inf"))
        top, total = _log_add(top, total, logit)
        joint = logit + tl.load(log_shares + places, mask=there, other=0.0)
        joint_top, joint_total = _log_add(joint_top, joint_total, joint)
    whole = joint_top + tl.log(joint_total)
    constant = 0.9189385332046727 * tl.full((), dims, ACC)
    found = whole - (top + tl.log(total)) - constant
    tl.store(likelihood + first + rows, found, mask=rows < count - first)
    for start in range(0, components, BK):
        own = start + tl.arange(0, BK)
        there = (rows < count - first)[:, None] & (own < components)[None, :]
        places = rows[:, None] * components + own[None, :]
        joint = tl.load(logits + places, mask=there, other=0.0) + tl.load(log_shares + places, mask=there, other=0.0)
        tl.store(log_shares + places, joint - whole[:, None], mask=there)


@triton.jit
def linear_gmm_gradients_kernel(
    grad, y, means, raws, b_mean, b_std, log_shares, grad_mean, grad_raw, grad_y, sums,
    count, parts, dims, components, width, each, min_std: tl.float64,
    BT: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Gradients of the means and raw deviations of some rows and dimensions, of ``each`` components of a block.

    They may be written over the means and raw deviations. ``sums`` (2, programs of rows, width) gets their sums over
    the rows of a program. What the components give to the gradient of y is added to it; ``each`` is then all of them.
    """
    first = tl.program_id(0) * BT
    rows, columns = tl.arange(0, BT), tl.program_id(1) * BD + tl.arange(0, BD)
    inside = columns < dims
    mask = (rows < count - first)[:, None] & inside[None, :]
    least = tl.full((), min_std, ACC)
    given = tl.load(grad + first + rows, mask=rows < count - first, other=0.0)
    point = tl.load(at(y, first, dims) + (rows[:, None] * dims + columns[None, :]), mask=mask, other=0.0)
    means, raws, log_shares = at(means, first, width), at(raws, first, width), at(log_shares, first, components)
    grad_mean, grad_raw = at(grad_mean, first, width), at(grad_raw, first, width)
    pull = tl.zeros([BT, BD], ACC)
    start = tl.program_id(2) * each
    for own in range(start, tl.minimum(start + each, parts)):
        outputs = own * dims + columns
        places = rows[:, None] * width + outputs[None, :]
        mean = tl.load(means + places, mask=mask, other=0.0)
        raw = tl.load(raws + places, mask=mask, other=0.0)
        if b_mean is not None:
            mean += tl.load(b_mean + outputs, mask=inside, other=0.0)[None, :]
        if b_std is not None:
            raw += tl.load(b_std + outputs, mask=inside, other=0.0)[None, :]
        log_share = tl.load(log_shares + (rows * components + own), mask=rows < count - first, other=float("-inf"))
        inverse = _inverse(_softplus(raw, FAST) + least, FAST)
        gap = (point - mean) * inverse
        slope = (given * tl.exp(log_share))[:, None] * inverse
        pulled = slope * gap
        spread = slope * (gap * gap - 1.0) * _inverse(1.0 + tl.exp2(-raw * LOG2E), FAST)
        tl.store(grad_mean + places, pulled.to(grad_mean.dtype.element_ty), mask=mask)
        tl.store(grad_raw + places, spread.to(grad_raw.dtype.element_ty), mask=mask)
        if sums is not None:
            line = at(sums, tl.program_id(0), width) + outputs
            tl.store(line, tl.sum(pulled, 0), mask=inside)
            tl.store(at(line, tl.num_programs(0), width), tl.sum(spread, 0), mask=inside)
        if grad_y is not None:
            pull += pulled
    if grad_y is not None:
        line = at(grad_y, first, dims) + (rows[:, None] * dims + columns[None, :])
        tl.store(line, tl.load(line, mask=mask, other=0.0) - pull, mask=mask)
