"""Functions that Triton kernels of several operators call. Importing this file imports Triton."""

import triton
import triton.language as tl
from torch import Tensor

from ._triton import accumulator, ceil_div, compute_type, interpreted, launch, power_of_two

# The exponentials are powers of two, which is what the hardware computes.
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)

INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b in the type of acc."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        # The interpreter keeps bfloat16 as bits and would multiply those.
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def fast_inverse(x):
    """1 / x to an ulp in float32: the hardware's instruction alone. A subnormal x counts as 0."""
    if INTERPRETED or x.dtype != tl.float32:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def fast_log2(x):
    """log2 of x in float32 to 2^-22 by the hardware's instruction alone, a fifth of what tl.log2 takes."""
    if INTERPRETED or x.dtype != tl.float32:
        return tl.log2(x)
    else:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def tile(base, rows, count, columns, width, TYPE: tl.constexpr):
    """Elements (rows, columns) of a contiguous matrix of so many rows and columns, zeros outside."""
    mask = (rows < count)[:, None] & (columns < width)[None, :]
    return tl.load(base + (rows[:, None] * width + columns[None, :]), mask=mask, other=0.0).to(TYPE)


@triton.jit
def at(pointer, first, width):
    """Address of a row of a contiguous matrix, in 64 bits; what a tile adds to it fits in 32."""
    return pointer + tl.cast(first, tl.int64) * width


@triton.jit
def row_norms_kernel(
    matrix, norms, count, channels, HALF_SQUARES: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr
):
    """Euclidean norm of each row, or half of its square."""
    first = tl.program_id(0) * BR
    rows = tl.arange(0, BR)
    base = at(matrix, first, channels)
    squares = tl.zeros([BR, BK], ACC)
    for start in range(0, channels, BK):
        values = tile(base, rows, count - first, start + tl.arange(0, BK), channels, ACC)
        squares += values * values
    sums = tl.sum(squares, 1)
    tl.store(norms + first + rows, sums / 2 if HALF_SQUARES else tl.sqrt(sums), mask=rows < count - first)


def row_norms(matrix: Tensor, half_squares: bool = False) -> Tensor:
    """Euclidean norm (N,) of each row of a contiguous matrix (N, C), or half of its square, as computed with."""
    count, channels = matrix.shape
    norms = matrix.new_empty((count,), dtype=compute_type(matrix.dtype))
    columns = power_of_two(channels, 16, 1024)
    rows = min(max(1, 4096 // columns), 16)
    arguments = {"matrix": matrix, "norms": norms, "count": count, "channels": channels}
    shapes = {"BR": rows, "BK": columns, "ACC": accumulator(matrix.dtype)}
    launch(row_norms_kernel, (ceil_div(count, rows),), arguments, HALF_SQUARES=half_squares, **shapes)
    return norms
