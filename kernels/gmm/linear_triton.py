"""A mixture density head and its likelihood in Triton: a tile of means and deviations lives and dies in registers.

Forward: a program takes some rows and one component, multiplies the features with both weight matrices at once, and
leaves one number a row. Backward multiplies again, a chunk of components at a time, and writes the gradients of that
chunk's means and of its deviations before the softplus; the plain products with these are torch's.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import accumulator, ceil_div, compute_type, launch, power_of_two, product_precision
from .._triton_math import LN2, LOG2E, dot, fast_inverse, fast_log2

# Gradients of means in a chunk of components if the caller does not say how many.
CHUNK = 1 << 24


@triton.jit
def _products(
    x, w_mean, w_std, b_mean, b_std, count, features, dims, offset,
    BT: tl.constexpr, BD: tl.constexpr, BF: tl.constexpr, WORK: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Means and raw deviations (BT, BD) of rows from x on and of the ``dims`` outputs from ``offset`` on."""
    rows, outputs = tl.arange(0, BT), tl.arange(0, BD)
    mean = tl.zeros([BT, BD], ACC)
    raw = tl.zeros([BT, BD], ACC)
    inside = outputs < dims
    # The weights of an output are a row of features; 64 bits for the first, 32 for what a tile adds.
    w_mean += offset * features
    w_std += offset * features
    for start in range(0, features, BF):
        columns = start + tl.arange(0, BF)
        there = (columns < features)[None, :]
        feature = tl.load(
            x + (rows[:, None] * features + columns[None, :]), mask=(rows < count)[:, None] & there, other=0.0
        ).to(WORK)
        at = outputs[:, None] * features + columns[None, :]
        weight = tl.load(w_mean + at, mask=inside[:, None] & there, other=0.0).to(WORK)
        mean = dot(feature, tl.trans(weight), mean, PRECISION)
        weight = tl.load(w_std + at, mask=inside[:, None] & there, other=0.0).to(WORK)
        raw = dot(feature, tl.trans(weight), raw, PRECISION)
    if b_mean is not None:
        mean += tl.load(b_mean + offset + outputs, mask=inside, other=0.0).to(ACC)[None, :]
    if b_std is not None:
        raw += tl.load(b_std + offset + outputs, mask=inside, other=0.0).to(ACC)[None, :]
    return mean, raw


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
    x, y, w_mean, w_std, b_mean, b_std, densities, count, features, dims, components, min_std: tl.float64,
    BT: tl.constexpr, BD: tl.constexpr, BF: tl.constexpr, WORK: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Log-density of a block of rows under one component, but for the constant. Neighbours share a component, whose
    weights are then read once."""
    blocks = tl.cdiv(count, BT)
    first = (tl.program_id(0) % blocks).to(tl.int64) * BT
    component = (tl.program_id(0) // blocks).to(tl.int64)
    rows, outputs = tl.arange(0, BT), tl.arange(0, BD)
    least = tl.full((), min_std, ACC)
    left = count - first
    x += first * features
    y += first * dims
    density = tl.zeros([BT], ACC)
    for start in range(0, dims, BD):
        mean, raw = _products(
            x, w_mean, w_std, b_mean, b_std, left, features, dims - start, component * dims + start,
            BT, BD, BF, WORK, PRECISION, ACC,
        )  # fmt: skip
        mask = (rows < left)[:, None] & (outputs < dims - start)[None, :]
        point = tl.load(y + (rows[:, None] * dims + start + outputs[None, :]), mask=mask, other=0.0).to(ACC)
        std = _softplus(raw, FAST) + least
        gap = (point - mean) * _inverse(std, FAST)
        density -= tl.sum(tl.where(mask, 0.5 * gap * gap + _log(std, FAST), 0.0), 1)
    tl.store(densities + (first + rows) * components + component, density, mask=rows < left)


@triton.jit
def linear_gmm_gradients_kernel(
    x, y, w_mean, w_std, b_mean, b_std, shares, grad_mean, grad_raw, count, features, dims, components, skipped,
    min_std: tl.float64,
    BT: tl.constexpr, BD: tl.constexpr, BF: tl.constexpr, WORK: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Gradients of means and raw deviations (T, chunk, D) of a block of rows and of outputs of one component."""
    blocks = tl.cdiv(count, BT)
    first = (tl.program_id(0) % blocks).to(tl.int64) * BT
    place = (tl.program_id(0) // blocks).to(tl.int64)
    component = place + skipped
    start = tl.program_id(1) * BD
    rows, outputs = tl.arange(0, BT), tl.arange(0, BD)
    left = count - first
    mean, raw = _products(
        x + first * features, w_mean, w_std, b_mean, b_std, left, features, dims - start, component * dims + start,
        BT, BD, BF, WORK, PRECISION, ACC,
    )  # fmt: skip
    mask = (rows < left)[:, None] & (outputs < dims - start)[None, :]
    point = tl.load(y + first * dims + (rows[:, None] * dims + start + outputs[None, :]), mask=mask, other=0.0)
    inverse = _inverse(_softplus(raw, FAST) + tl.full((), min_std, ACC), FAST)
    gap = (point.to(ACC) - mean) * inverse
    share = tl.load(shares + (first + rows) * components + component, mask=rows < left, other=0.0)
    slope = share[:, None] * inverse
    chunk = (tl.num_programs(0) // blocks).to(tl.int64) * dims
    at = (first + rows)[:, None] * chunk + (place * dims + start + outputs)[None, :]
    tl.store(grad_mean + at, (slope * gap).to(grad_mean.dtype.element_ty), mask=mask)
    spread = slope * (gap * gap - 1.0) * _inverse(1.0 + tl.exp2(-raw * LOG2E), FAST)
    tl.store(grad_raw + at, spread.to(grad_raw.dtype.element_ty), mask=mask)


def linear_gmm_log_likelihood_forward(
    x: Tensor, y: Tensor, w_logits: Tensor, w_mean: Tensor, w_std: Tensor,
    b_logits: Tensor | None, b_mean: Tensor | None, b_std: Tensor | None, min_std: float, chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Log-likelihood (T,), the logarithm of each component's share of it and the logits, both (T, K), in the type of
    the computation. Nothing is chunked here: a program holds one tile."""
    x, y, w_mean, w_std = x.contiguous(), y.contiguous(), w_mean.contiguous(), w_std.contiguous()
    (count, dims), components = y.shape, w_logits.shape[0]
    logits = _linear(x.to(compute_type(x.dtype)), w_logits, b_logits)
    densities = torch.empty_like(logits)
    shapes, options = tiles(count, dims, x, w_mean)
    tensors = _tensors(x, y, w_mean, w_std, b_mean, b_std, min_std)
    arguments = {**tensors, "densities": densities, "components": components}
    grid = (ceil_div(count, shapes["BT"]) * components,)
    launch(linear_gmm_densities_kernel, grid, arguments, **shapes, **options)
    joint = logits + densities
    whole = torch.logsumexp(joint, 1)
    likelihood = whole - torch.logsumexp(logits, 1) - 0.5 * math.log(2 * math.pi) * dims
    return likelihood, joint - whole[:, None], logits


def linear_gmm_log_likelihood_backward(
    grad: Tensor, x: Tensor, y: Tensor, w_logits: Tensor, w_mean: Tensor, w_std: Tensor,
    b_logits: Tensor | None, b_mean: Tensor | None, b_std: Tensor | None, log_shares: Tensor, logits: Tensor,
    min_std: float, chunk: int,
    need_x: bool, need_y: bool, need_w_logits: bool, need_w_mean: bool, need_w_std: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients for x, y, the weights and the biases; an empty tensor if one is not wanted or there is no bias."""
    x, y, w_mean, w_std = x.contiguous(), y.contiguous(), w_mean.contiguous(), w_std.contiguous()
    (count, dims), components = y.shape, w_logits.shape[0]
    wide = x.to(logits.dtype)
    shares = grad[:, None] * torch.exp(log_shares)
    grad_logits = shares - grad[:, None] * torch.softmax(logits, 1)
    grad_x = grad_logits @ w_logits if need_x else x.new_empty((0,))
    grad_y = torch.zeros_like(y) if need_y else y.new_empty((0,))
    grad_w = [
        torch.empty_like(w) if need else w.new_empty((0,)) for w, need in ((w_mean, need_w_mean), (w_std, need_w_std))
    ]
    grad_b = [x.new_empty((0,)) if b is None else torch.empty_like(b) for b in (b_mean, b_std)]
    work = torch.bfloat16 if x.dtype == w_mean.dtype == torch.bfloat16 else logits.dtype
    features = x.to(work)
    step = chunk or max(1, CHUNK // max(1, count * dims))
    shapes, options = tiles(count, dims, x, w_mean)
    tensors = _tensors(x, y, w_mean, w_std, b_mean, b_std, min_std)
    for start in range(0, components, step):
        parts = min(step, components - start)
        # In float16 a gradient may be too large or too small; float32 it is then.
        slopes = [x.new_empty((count, parts * dims), dtype=work) for _ in range(2)]
        arguments = {**tensors, "shares": shares, "grad_mean": slopes[0], "grad_raw": slopes[1]}
        arguments |= {"components": components, "skipped": start}
        grid = (ceil_div(count, shapes["BT"]) * parts, ceil_div(dims, shapes["BD"]))
        launch(linear_gmm_gradients_kernel, grid, arguments, **shapes, **options)
        these = slice(start * dims, (start + parts) * dims)
        for slope, weight, found, bias in zip(slopes, (w_mean, w_std), grad_w, grad_b):
            if need_x:
                grad_x += slope @ weight[these].to(work)
            if found.shape[0]:
                found[these] = slope.t() @ features
            if bias.shape[0]:
                bias[these] = slope.sum(0, dtype=logits.dtype)
        if need_y:
            grad_y -= slopes[0].view(count, parts, dims).sum(1, dtype=logits.dtype)
        del slopes, slope  # before the next chunk's are made
    return (
        grad_x.to(x.dtype),
        grad_y,
        grad_logits.t() @ wide if need_w_logits else w_logits.new_empty((0,)),
        *grad_w,
        x.new_empty((0,)) if b_logits is None else grad_logits.sum(0),
        *grad_b,
    )


def tiles(count: int, dims: int, x: Tensor, w_mean: Tensor) -> tuple[dict[str, Any], dict[str, int]]:
    """Rows, outputs and features at a time, the types of the products, and the launch options.

    Two accumulators of 128 rows and 64 outputs are 64 registers for each of 256 threads, and together as large a tile
    as a plain product would have. Products that are three in tf32 leave room for half of that.
    """
    dtype = x.dtype if x.dtype == w_mean.dtype else compute_type(x.dtype)
    rows, outputs, features = {2: (128, 64, 64), 4: (128, 32, 32), 8: (16, 16, 16)}[dtype.itemsize]
    work = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}.get(dtype, accumulator(dtype))
    shapes = {
        "BT": power_of_two(count, 16, rows),
        "BD": power_of_two(dims, 16, outputs),
        "BF": power_of_two(x.shape[1], 16, features),
        "WORK": work,
        "PRECISION": product_precision(dtype),
        "ACC": accumulator(dtype),
        # Where products are rounded to tf32 or less, the instructions that are good to 1e-6 lose nothing.
        "FAST": dtype.itemsize == 2 or product_precision(dtype) == "tf32",
    }
    return shapes, {"num_warps": 8 if shapes["BT"] * shapes["BD"] >= 1024 else 4, "num_stages": 2}


def _tensors(
    x: Tensor, y: Tensor, w_mean: Tensor, w_std: Tensor, b_mean: Tensor | None, b_std: Tensor | None, min_std: float
) -> dict[str, Any]:
    named = {"x": x, "y": y, "w_mean": w_mean, "w_std": w_std, "b_mean": b_mean, "b_std": b_std, "min_std": min_std}
    named |= {name: b.contiguous() for name, b in (("b_mean", b_mean), ("b_std", b_std)) if b is not None}
    return {**named, "count": x.shape[0], "features": x.shape[1], "dims": y.shape[1]}


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)
