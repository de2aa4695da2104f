"""SSIM in Triton: a program walks down a strip of the images, a column to a thread, and never stores a moment.

At each row it adds up the five moments (means of x, y, x x, y y and x y) along the row, and adds the result, times the
window's weight for that row, to each of the window_size results under way: the separable window costs two lines of it
and not its area. Neighbouring columns come from the first-level cache.

Backward walks twice: the first walk computes the moments again and writes what the result's gradient is for each of
them, the second brings those under the window, which is symmetric, back to the pixels.
"""

import math
from typing import Any

# ruff: noqa: RUF005 (older compilers of kernels cannot unpack a tuple into another)
import triton
import triton.language as tl
from torch import Tensor

from .._triton import accumulator, ceil_div, compute_type, launch, power_of_two, reachable
from .reference import K1, K2, window_weights

MAP, SUM, SLOPES = 0, 1, 2
STORE_MAP, STORE_SUM = tl.constexpr(MAP), tl.constexpr(SUM)

# Programs that keep the largest chips busy; strips get shorter, and overlap more, to have as many.
PROGRAMS = 1024


@triton.jit
def _walk(strips, blocks, ROWS: tl.constexpr, BW: tl.constexpr):
    """Plane, first row and columns of this program."""
    place = tl.program_id(0)
    plane = (place // (strips * blocks)).to(tl.int64)
    return plane, (place // blocks % strips) * ROWS, (place % blocks) * BW + tl.arange(0, BW)


@triton.jit
def _within(row, first, height, width):
    """How many columns there are of a row: none if the row, ``first`` further down, is outside or negative."""
    return tl.where(row < 0, 0, tl.where(first + row < height, width, 0))


@triton.jit
def _line(pointer, columns, step, width, ACC: tl.constexpr):
    """Pixels of a row, zeros outside."""
    return tl.load(pointer + columns * step, mask=(columns >= 0) & (columns < width), other=0.0).to(ACC)


@triton.jit
def _push(sums, values, WINDOW: tl.constexpr, WEIGHTS: tl.constexpr, COUNT: tl.constexpr):
    """Adds the values of a row, times the window's weights, to the results under way; the first COUNT are finished."""
    fresh = ()
    for late in tl.static_range(WINDOW):
        weight = tl.full((), WEIGHTS[WINDOW - 1 - late], values[0].dtype)
        for i in tl.static_range(COUNT):
            fresh = fresh + (sums[COUNT * late + i] + values[i] * weight,)  # type: ignore[assignment]
    return fresh


@triton.jit
def ssim_moments_kernel(
    x, y, out, grad, c1: tl.float64, c2: tl.float64, share: tl.float64,
    channels, height, width, out_height, out_width, strips, blocks,
    x_b, x_c, x_h, x_w, y_b, y_c, y_h, y_w,
    WINDOW: tl.constexpr, WEIGHTS: tl.constexpr, PAD: tl.constexpr, ROWS: tl.constexpr, BW: tl.constexpr,
    MODE: tl.constexpr, WHOLE: tl.constexpr, NEED_X: tl.constexpr, NEED_Y: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Writes the map, the sum of each program, or the slopes of the moments: (4, planes, out_height, out_width)."""
    plane, first, columns = _walk(strips, blocks, ROWS, BW)
    k1, k2 = tl.full((), c1, ACC), tl.full((), c2, ACC)
    batch, channel = plane // channels, plane % channels
    x += batch * x_b + channel * x_c
    y += batch * y_b + channel * y_c
    size = tl.cast(out_height, tl.int64) * out_width
    planes = tl.num_programs(0) // (strips * blocks)
    total = tl.zeros([BW], ACC)
    zero = tl.zeros([BW], ACC)
    sums = (zero,) * (5 * WINDOW)
    for step in range(ROWS + WINDOW - 1):
        row = first + step - PAD
        # A row outside the image has no pixel that may be read.
        seen = _within(row, 0, height, width)
        x_row, y_row = x + tl.cast(row, tl.int64) * x_h, y + tl.cast(row, tl.int64) * y_h
        mean_x, mean_y, xx, yy, xy = zero, zero, zero, zero, zero
        for tap in tl.static_range(WINDOW):
            a = _line(x_row, columns + (tap - PAD), x_w, seen, ACC)
            b = _line(y_row, columns + (tap - PAD), y_w, seen, ACC)
            weight = tl.full((), WEIGHTS[tap], ACC)
            wa, wb = a * weight, b * weight
            mean_x += wa
            mean_y += wb
            xx += wa * a
            yy += wb * b
            xy += wa * b
        fresh = _push(sums, (mean_x, mean_y, xx, yy, xy), WINDOW, WEIGHTS, 5)
        mean_x, mean_y, xx, yy, xy = fresh[0], fresh[1], fresh[2], fresh[3], fresh[4]
        sums = fresh[5:] + (zero, zero, zero, zero, zero)

        line = step - (WINDOW - 1)
        there = columns < _within(line, first, out_height, out_width)
        at = tl.cast(first + line, tl.int64) * out_width + columns
        below_l = mean_x * mean_x + mean_y * mean_y + k1
        below_c = (xx - mean_x * mean_x) + (yy - mean_y * mean_y) + k2
        luminance = (2.0 * mean_x * mean_y + k1) / below_l
        contrast = (2.0 * (xy - mean_x * mean_y) + k2) / below_c
        # Of nearly equal images rounding may give more than 1. What is not a number stays.
        value = luminance * contrast
        value = tl.where(value > 1.0, 1.0, tl.where(value < -1.0, -1.0, value))
        if MODE == STORE_MAP:
            tl.store(out + plane * size + at, value, mask=there)
        elif MODE == STORE_SUM:
            total += tl.where(there, value, 0.0)
        else:
            if WHOLE:
                given = tl.load(grad).to(ACC) * tl.full((), share, ACC)
            else:
                given = tl.load(grad + plane * size + at, mask=there, other=0.0).to(ACC)
            # Slopes of the similarity's logarithm by the two denominators, times the similarity.
            by_l = given * contrast / below_l
            by_c = given * luminance / below_c
            place = out + plane * size + at
            if NEED_X:
                slope = 2.0 * (by_l * (mean_y - mean_x * luminance) - by_c * (mean_y - mean_x * contrast))
                tl.store(place, slope, mask=there)
            if NEED_Y:
                slope = 2.0 * (by_l * (mean_x - mean_y * luminance) - by_c * (mean_x - mean_y * contrast))
                tl.store(place + planes * size, slope, mask=there)
            tl.store(place + 2 * planes * size, -by_c * contrast, mask=there)
            tl.store(place + 3 * planes * size, 2.0 * by_c, mask=there)
    if MODE == STORE_SUM:
        tl.store(out + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def ssim_pixels_kernel(
    x, y, slopes, grad_x, grad_y, channels, height, width, out_height, out_width, strips, blocks,
    x_b, x_c, x_h, x_w, y_b, y_c, y_h, y_w,
    WINDOW: tl.constexpr, WEIGHTS: tl.constexpr, PAD: tl.constexpr, ROWS: tl.constexpr, BW: tl.constexpr,
    NEED_X: tl.constexpr, NEED_Y: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of the pixels from the slopes of the moments of every window that a pixel is in."""
    plane, first, columns = _walk(strips, blocks, ROWS, BW)
    size = tl.cast(out_height, tl.int64) * out_width
    planes = tl.num_programs(0) // (strips * blocks)
    slopes += plane * size
    x += plane // channels * x_b + plane % channels * x_c
    y += plane // channels * y_b + plane % channels * y_c
    zero = tl.zeros([BW], ACC)
    sums = (zero,) * (4 * WINDOW)
    for step in range(ROWS + WINDOW - 1):
        row = first + step - (WINDOW - 1 - PAD)
        seen = _within(row, 0, out_height, out_width)
        source = slopes + tl.cast(row, tl.int64) * out_width
        of_x, of_y, of_square, of_product = zero, zero, zero, zero
        for tap in tl.static_range(WINDOW):
            near = columns + (tap - (WINDOW - 1 - PAD))
            weight = tl.full((), WEIGHTS[tap], ACC)
            if NEED_X:
                of_x += _line(source, near, 1, seen, ACC) * weight
            if NEED_Y:
                of_y += _line(source + planes * size, near, 1, seen, ACC) * weight
            of_square += _line(source + 2 * planes * size, near, 1, seen, ACC) * weight
            of_product += _line(source + 3 * planes * size, near, 1, seen, ACC) * weight
        fresh = _push(sums, (of_x, of_y, of_square, of_product), WINDOW, WEIGHTS, 4)
        of_x, of_y, of_square, of_product = fresh[0], fresh[1], fresh[2], fresh[3]
        sums = fresh[4:] + (zero, zero, zero, zero)

        line = step - (WINDOW - 1)
        seen = _within(line, first, height, width)
        there = columns < seen
        down = tl.cast(first + line, tl.int64)
        a = _line(x + down * x_h, columns, x_w, seen, ACC)
        b = _line(y + down * y_h, columns, y_w, seen, ACC)
        at = (plane * height + down) * width + columns
        if NEED_X:
            value = of_x + 2.0 * a * of_square + b * of_product
            tl.store(grad_x + at, value.to(grad_x.dtype.element_ty), mask=there)
        if NEED_Y:
            value = of_y + 2.0 * b * of_square + a * of_product
            tl.store(grad_y + at, value.to(grad_y.dtype.element_ty), mask=there)


def ssim_forward(
    x: Tensor, y: Tensor, window_size: int, sigma: float, data_range: float, same: bool, reduction: int
) -> Tensor:
    """The map (reduction 0), its mean (1) or its sum (2), in the type of the computation."""
    walks = _Walks(x, y, window_size, sigma, data_range, same)
    out = x.new_empty((walks.programs,) if reduction else walks.shape, dtype=compute_type(x.dtype))
    walks.moments(out, out, 1.0, MODE=SUM if reduction else MAP, WHOLE=True, NEED_X=False, NEED_Y=False)
    if not reduction:
        return out
    # The mean of nothing is NaN, as in torch.
    return out.sum() if reduction == 2 else out.sum() / math.prod(walks.shape)


def ssim_backward(
    grad: Tensor, x: Tensor, y: Tensor, window_size: int, sigma: float, data_range: float, same: bool, reduction: int,
    need_x: bool, need_y: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients for x and y in their dtype; an empty tensor if one is not wanted."""
    walks, needs = _Walks(x, y, window_size, sigma, data_range, same), {"NEED_X": need_x, "NEED_Y": need_y}
    slopes = x.new_empty((4, *walks.shape), dtype=compute_type(x.dtype))
    share = 1 / max(1, slopes[0].numel()) if reduction == 1 else 1.0
    walks.moments(slopes, grad.contiguous(), share, MODE=SLOPES, WHOLE=reduction != 0, **needs)
    grads = [a.new_empty(a.shape if need else (0,)) for a, need in ((x, need_x), (y, need_y))]
    walks.over(x.shape)
    found = {"slopes": slopes, "grad_x": grads[0] if need_x else x, "grad_y": grads[1] if need_y else y}
    walks.launch(ssim_pixels_kernel, found, **needs)
    return tuple(grads)


class _Walks:
    """What the launches of one call have in common: constants of the kernels, sizes, strides, and how many programs."""

    def __init__(self, x: Tensor, y: Tensor, window_size: int, sigma: float, data_range: float, same: bool) -> None:
        x, y = (reachable(a, 3, a.shape[3]) for a in (x, y))
        batch, channels, height, width = x.shape
        cut = 0 if same else window_size - 1
        out_height, out_width = height - cut, width - cut
        self.shape = (batch, channels, out_height, out_width)
        self.data_range = data_range
        weights, pad = window_weights(window_size, sigma), window_size // 2 if same else 0
        self.constants = {"WINDOW": window_size, "WEIGHTS": weights, "PAD": pad, "ACC": accumulator(x.dtype)}
        sizes = {"channels": channels, "height": height, "width": width}
        sizes |= {"out_height": out_height, "out_width": out_width}
        strides = {f"{name}_{axis}": s for name, a in (("x", x), ("y", y)) for axis, s in zip("bchw", a.stride())}
        self.arguments = {"x": x, "y": y, **sizes, **strides}
        self.over(self.shape)

    def over(self, shape: tuple[int, ...]) -> None:
        """Cuts results of this shape into strips and blocks of columns."""
        batch, channels, height, width = shape
        columns = power_of_two(width, 32, 128)
        across = ceil_div(width, columns)
        rows = power_of_two(height, 2, 64)
        while rows > 16 and batch * channels * across * ceil_div(height, rows) < PROGRAMS:
            rows //= 2
        strips = ceil_div(height, rows)
        self.programs = batch * channels * strips * across
        self.cut = {"strips": strips, "blocks": across}
        self.options = {"ROWS": rows, "BW": columns, "num_warps": columns // 32, "num_stages": 1}

    def moments(self, out: Tensor, grad: Tensor, share: float, **modes: Any) -> None:
        c1, c2 = (K1 * self.data_range) ** 2, (K2 * self.data_range) ** 2
        self.launch(ssim_moments_kernel, {"out": out, "grad": grad, "c1": c1, "c2": c2, "share": share}, **modes)

    def launch(self, kernel: Any, arguments: dict[str, Any], **modes: Any) -> None:
        arguments = {**self.arguments, **self.cut, **arguments}
        launch(kernel, (self.programs,), arguments, **self.constants, **modes, **self.options)
