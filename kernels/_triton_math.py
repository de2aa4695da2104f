"""Functions that Triton kernels of several operators call. Importing this file imports Triton."""

import triton
import triton.language as tl

from ._triton import interpreted

# The exponentials are powers of two, which is what the hardware computes.
LOG2E = tl.constexpr(1.4426950408889634)

INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b in the type of acc."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        # The interpreter keeps bfloat16 as bits and would multiply those.
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)
