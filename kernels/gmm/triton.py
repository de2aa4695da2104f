"""Mixture log-likelihood in Triton: means and deviations are read once, and nothing of their size is written.

Forward walks over the components with two running log-sums of exponentials, that of the logits and that of the logits
plus the log-densities. Backward reads everything once more, except that an isotropic deviation in more dimensions than
a tile has gets a kernel of its own.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import accumulator, ceil_div, compute_type, launch, power_of_two

# Numbers in a tile: 32 a thread with 4 warps. And the widest tile of one row and one component.
TILE, WIDEST = 4096, 2048


@triton.jit
def _points(pointer, rows, count, columns, dims, row_stride, step, ACC: tl.constexpr):
    """Rows of y (BT, 1, BD), zeros outside."""
    mask = (rows < count)[:, None, None] & (columns < dims)[None, None, :]
    at = rows.to(tl.int64)[:, None, None] * row_stride + columns.to(tl.int64)[None, None, :] * step
    return tl.load(pointer + at, mask=mask, other=0.0).to(ACC)


@triton.jit
def _means(
    pointer, rows, parts, columns, count, components, dims, t_stride, k_stride, d_stride, FILL: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """A tile (BT, BK, BD) of the means or deviations, FILL outside."""
    mask = (rows < count)[:, None, None] & (parts < components)[None, :, None] & (columns < dims)[None, None, :]
    at = rows.to(tl.int64)[:, None, None] * t_stride + parts.to(tl.int64)[None, :, None] * k_stride
    return tl.load(pointer + at + columns.to(tl.int64)[None, None, :] * d_stride, mask=mask, other=FILL).to(ACC)


@triton.jit
def _log_add(top, total, values):
    """Running maximum and sum of exponentials relative to it, with the values (BT, BK) added."""
    highest = tl.maximum(top, tl.max(values, 1))
    # Where all are -inf so far, the difference would not be a number.
    shift = tl.where(highest == float("-inf"), 0.0, highest)
    total = total * tl.exp(top - shift) + tl.sum(tl.exp(values - shift[:, None]), 1)
    return highest, total


@triton.jit
def gmm_forward_kernel(
    y, logits, mean, std, likelihood, log_shares, count, components, dims,
    y_t, y_d, l_t, l_k, m_t, m_k, m_d, s_t, s_k, s_d,
    ISOTROPIC: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A block of rows, over all components and dimensions."""
    rows = tl.program_id(0) * BT + tl.arange(0, BT)
    constant = 0.9189385332046727 * tl.full((), dims, ACC)
    lowest = tl.full([BT], float("-inf"), ACC)
    top, total, joint_top, joint_total = lowest, tl.zeros([BT], ACC), lowest, tl.zeros([BT], ACC)
    places = log_shares + rows.to(tl.int64)[:, None] * components
    for start in range(0, components, BK):
        parts = start + tl.arange(0, BK)
        there = (rows < count)[:, None] & (parts < components)[None, :]
        density = tl.zeros([BT, BK], ACC)
        for first in range(0, dims, BD):
            columns = first + tl.arange(0, BD)
            point = _points(y, rows, count, columns, dims, y_t, y_d, ACC)
            centre = _means(mean, rows, parts, columns, count, components, dims, m_t, m_k, m_d, 0.0, ACC)
            inside = (columns < dims)[None, None, :]
            if ISOTROPIC:
                width = _means(std, rows, parts, tl.arange(0, 1), count, components, 1, s_t, s_k, 0, 1.0, ACC)
                gap = (point - centre) / width
                density += tl.sum(tl.where(inside, 0.5 * gap * gap, 0.0), 2)
            else:
                width = _means(std, rows, parts, columns, count, components, dims, s_t, s_k, s_d, 1.0, ACC)
                gap = (point - centre) / width
                density += tl.sum(tl.where(inside, 0.5 * gap * gap + tl.log(width), 0.0), 2)
        if ISOTROPIC:
            width = _means(std, rows, parts, tl.arange(0, 1), count, components, 1, s_t, s_k, 0, 1.0, ACC)
            density += tl.sum(tl.log(width), 2) * tl.full((), dims, ACC)
        logit = tl.load(
            logits + rows.to(tl.int64)[:, None] * l_t + parts.to(tl.int64)[None, :] * l_k,
            mask=there,
            other=float("-inf"),
        ).to(ACC)
        joint = logit - density
        tl.store(places + parts[None, :], joint, mask=there)
        top, total = _log_add(top, total, logit)
        joint_top, joint_total = _log_add(joint_top, joint_total, joint)
    joint_sum = joint_top + tl.log(joint_total)
    tl.store(likelihood + rows, joint_sum - (top + tl.log(total)) - constant, mask=rows < count)
    # What other threads of this program have written is read below.
    tl.debug_barrier()
    for start in range(0, components, BK):
        parts = start + tl.arange(0, BK)
        there = (rows < count)[:, None] & (parts < components)[None, :]
        joint = tl.load(places + parts[None, :], mask=there, other=0.0)
        tl.store(places + parts[None, :], joint - joint_sum[:, None], mask=there)


@triton.jit
def gmm_logits_kernel(
    grad, logits, log_shares, grad_logits, count, components, l_t, l_k, BT: tl.constexpr, BK: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Gradient of the logits: share less prior, of a block of rows."""
    rows = tl.program_id(0) * BT + tl.arange(0, BT)
    places = logits + rows.to(tl.int64)[:, None] * l_t
    top, total = tl.full([BT], float("-inf"), ACC), tl.zeros([BT], ACC)
    for start in range(0, components, BK):
        parts = start + tl.arange(0, BK)
        there = (rows < count)[:, None] & (parts < components)[None, :]
        logit = tl.load(places + parts.to(tl.int64)[None, :] * l_k, mask=there, other=float("-inf")).to(ACC)
        top, total = _log_add(top, total, logit)
    given = tl.load(grad + rows, mask=rows < count, other=0.0).to(ACC)
    whole = top + tl.log(total)
    for start in range(0, components, BK):
        parts = start + tl.arange(0, BK)
        there = (rows < count)[:, None] & (parts < components)[None, :]
        logit = tl.load(places + parts.to(tl.int64)[None, :] * l_k, mask=there, other=float("-inf")).to(ACC)
        at = rows.to(tl.int64)[:, None] * components + parts[None, :]
        share = tl.exp(tl.load(log_shares + at, mask=there, other=float("-inf")))
        value = given[:, None] * (share - tl.exp(logit - whole[:, None]))
        tl.store(grad_logits + at, value.to(grad_logits.dtype.element_ty), mask=there)


@triton.jit
def gmm_backward_kernel(
    grad, y, mean, std, log_shares, grad_y, grad_mean, grad_std, count, components, dims,
    y_t, y_d, m_t, m_k, m_d, s_t, s_k, s_d,
    ISOTROPIC: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr,
    NEED_Y: tl.constexpr, NEED_MEAN: tl.constexpr, NEED_STD: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Some dimensions of a block of rows, over all components. NEED_STD with ISOTROPIC only if BD covers them."""
    rows = tl.program_id(0) * BT + tl.arange(0, BT)
    columns = tl.program_id(1) * BD + tl.arange(0, BD)
    point = _points(y, rows, count, columns, dims, y_t, y_d, ACC)
    given = tl.load(grad + rows, mask=rows < count, other=0.0).to(ACC)
    pull = tl.zeros([BT, BD], ACC)
    for start in range(0, components, BK):
        parts = start + tl.arange(0, BK)
        there = (rows < count)[:, None] & (parts < components)[None, :]
        at = rows.to(tl.int64)[:, None] * components + parts[None, :]
        share = given[:, None] * tl.exp(tl.load(log_shares + at, mask=there, other=float("-inf")))
        centre = _means(mean, rows, parts, columns, count, components, dims, m_t, m_k, m_d, 0.0, ACC)
        if ISOTROPIC:
            width = _means(std, rows, parts, tl.arange(0, 1), count, components, 1, s_t, s_k, 0, 1.0, ACC)
        else:
            width = _means(std, rows, parts, columns, count, components, dims, s_t, s_k, s_d, 1.0, ACC)
        gap = (point - centre) / width
        slope = share[:, :, None] * gap / width
        wide = at[:, :, None] * dims + columns[None, None, :]
        mask = there[:, :, None] & (columns < dims)[None, None, :]
        if NEED_MEAN:
            tl.store(grad_mean + wide, slope.to(grad_mean.dtype.element_ty), mask=mask)
        if NEED_STD:
            spread = share[:, :, None] * (gap * gap - 1.0) / width
            if ISOTROPIC:
                spread = tl.sum(tl.where(mask, spread, 0.0), 2)
                tl.store(grad_std + at, spread.to(grad_std.dtype.element_ty), mask=there)
            else:
                tl.store(grad_std + wide, spread.to(grad_std.dtype.element_ty), mask=mask)
        if NEED_Y:
            pull += tl.sum(tl.where(mask, slope, 0.0), 1)
    if NEED_Y:
        mask = (rows < count)[:, None] & (columns < dims)[None, :]
        at = rows.to(tl.int64)[:, None] * dims + columns[None, :]
        tl.store(grad_y + at, (-pull).to(grad_y.dtype.element_ty), mask=mask)


@triton.jit
def gmm_isotropic_kernel(
    grad, y, mean, std, log_shares, grad_std, count, components, dims,
    y_t, y_d, m_t, m_k, m_d, s_t, s_k,
    BT: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradient of the deviations of a block of components of a block of rows, over all dimensions."""
    rows = tl.program_id(0) * BT + tl.arange(0, BT)
    parts = tl.program_id(1) * BK + tl.arange(0, BK)
    there = (rows < count)[:, None] & (parts < components)[None, :]
    one = tl.arange(0, 1)
    width = _means(std, rows, parts, one, count, components, 1, s_t, s_k, 0, 1.0, ACC)
    squares = tl.zeros([BT, BK], ACC)
    for first in range(0, dims, BD):
        columns = first + tl.arange(0, BD)
        point = _points(y, rows, count, columns, dims, y_t, y_d, ACC)
        centre = _means(mean, rows, parts, columns, count, components, dims, m_t, m_k, m_d, 0.0, ACC)
        gap = tl.where((columns < dims)[None, None, :], (point - centre) / width, 0.0)
        squares += tl.sum(gap * gap, 2)
    at = rows.to(tl.int64)[:, None] * components + parts[None, :]
    given = tl.load(grad + rows, mask=rows < count, other=0.0).to(ACC)
    share = given[:, None] * tl.exp(tl.load(log_shares + at, mask=there, other=float("-inf")))
    value = share * (squares - tl.full((), dims, ACC)) / tl.sum(width, 2)
    tl.store(grad_std + at, value.to(grad_std.dtype.element_ty), mask=there)


def gmm_log_likelihood_forward(y: Tensor, logits: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Log-likelihood (T,) and the logarithm of each component's share of it (T, K), in the type of the computation."""
    (count, components, dims), compute = mean.shape, compute_type(y.dtype)
    likelihood = y.new_empty((count,), dtype=compute)
    log_shares = y.new_empty((count, components), dtype=compute)
    shapes = tiles(count, components, dims, y.dtype)
    tensors = {"y": y, "logits": logits, "mean": mean, "std": std, "likelihood": likelihood, "log_shares": log_shares}
    arguments = {**tensors, **_sizes(mean), **_strides(y=y, logits=logits, mean=mean, std=std)}
    launch(gmm_forward_kernel, (ceil_div(count, shapes["BT"]),), arguments, ISOTROPIC=std.shape[2] < dims, **shapes)
    return likelihood, log_shares


def gmm_log_likelihood_backward(
    grad: Tensor, y: Tensor, logits: Tensor, mean: Tensor, std: Tensor, log_shares: Tensor,
    need_y: bool, need_logits: bool, need_mean: bool, need_std: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients for y, logits, mean and std in their dtype; an empty tensor if one is not wanted."""
    count, components, dims = mean.shape
    isotropic = std.shape[2] < dims
    inputs, needs = (y, logits, mean, std), (need_y, need_logits, need_mean, need_std)
    grads = [a.new_empty(a.shape if need else (0,)) for a, need in zip(inputs, needs)]
    tensors = {"grad": grad.contiguous(), "y": y, "mean": mean, "std": std, "log_shares": log_shares.contiguous()}
    shapes = tiles(count, components, dims, y.dtype)
    strides = _strides(y=y, mean=mean, std=std)
    programs = ceil_div(count, shapes["BT"])
    if need_logits:
        logit_gradients(tensors["grad"], logits, tensors["log_shares"], grads[1])
    # One program sees all dimensions of a component only if a tile covers them.
    apart = isotropic and need_std and dims > shapes["BD"]
    results = {"grad_y": grads[0], "grad_mean": grads[2], "grad_std": grads[3]}
    results = {name: a if a.numel() else y for name, a in results.items()}
    if need_y or need_mean or (need_std and not apart):
        grid, wanted = (programs, ceil_div(dims, shapes["BD"])), {"NEED_Y": need_y, "NEED_MEAN": need_mean}
        wanted |= {"NEED_STD": need_std and not apart, "ISOTROPIC": isotropic}
        launch(gmm_backward_kernel, grid, {**tensors, **results, **_sizes(mean), **strides}, **wanted, **shapes)
    if apart:
        strides.pop("s_d")
        grid = (programs, ceil_div(components, shapes["BK"]))
        arguments = {**tensors, "grad_std": grads[3], **_sizes(mean), **strides}
        launch(gmm_isotropic_kernel, grid, arguments, **shapes)
    return tuple(grads)


def logit_gradients(grad: Tensor, logits: Tensor, log_shares: Tensor, grad_logits: Tensor) -> None:
    """Fills the gradient of the logits (T, K); all but the logits are contiguous."""
    (count, components), kind = logits.shape, accumulator(log_shares.dtype)
    tensors = {"grad": grad, "log_shares": log_shares, "logits": logits, "grad_logits": grad_logits}
    arguments = {**tensors, "count": count, "components": components, **_strides(logits=logits)}
    columns = power_of_two(components, 16, 256)
    launch(gmm_logits_kernel, (ceil_div(count, 4),), arguments, BT=4, BK=columns, ACC=kind)


def tiles(count: int, components: int, dims: int, dtype: torch.dtype, tile: int = TILE) -> dict[str, Any]:
    """Rows, components and dimensions at a time: dimensions first, which lie together in memory."""
    # In float64 a number is two registers, and a logarithm many.
    tile = tile // 4 if dtype == torch.float64 else tile
    columns = power_of_two(dims, 1, min(WIDEST, tile))
    parts = power_of_two(components, 1, tile // columns)
    rows = power_of_two(count, 1, tile // (columns * parts))
    return {"BT": rows, "BK": parts, "BD": columns, "ACC": accumulator(dtype)}


def _sizes(mean: Tensor) -> dict[str, int]:
    return dict(zip(("count", "components", "dims"), mean.shape))


def _strides(**tensors: Tensor) -> dict[str, int]:
    axes = {"y": "td", "logits": "tk", "mean": "tkd", "std": "tkd"}
    return {f"{name[0]}_{axis}": step for name, a in tensors.items() for axis, step in zip(axes[name], a.stride())}
