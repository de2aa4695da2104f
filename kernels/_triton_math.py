"""Functions that Triton kernels of several operators call. Importing this file imports Triton."""

import triton
import triton.language as tl

from ._triton import interpreted

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
