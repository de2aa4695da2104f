"""A pytest plugin: Triton's interpreter rounds as a GPU does (``-p gpu_rounding``, with TRITON_INTERPRET=1).

The interpreter multiplies and exponentiates as numpy does. A GPU is coarser, and a kernel or a tolerance that holds
only for numpy's rounding would show on a GPU first. Modelled is what an H100 may do at worst:

- float32 products under "tf32" read 10 bits of each mantissa; under "tf32x3" three products of the rounded high parts
  and the rounded rests are added;
- the tensor cores add the products of one instruction (8 float32, 16 half-precision numbers) to the accumulator
  exactly, then cut the sum off, towards zero;
- exp, exp2, log, log2, rsqrt, sqrt and division are off by up to 2^-22 of their result.
"""

from collections import Counter

import numpy as np
from triton.language import float32
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

ERROR = 2.0**-22
# What was rounded, and how often: a test can tell from it that this file did something.
used = Counter()


def nearest_tf32(x):
    """As cvt.rna.tf32 rounds: 10 bits of mantissa, ties away from zero."""
    bits = x.view(np.uint32) + np.uint32(0x1000)
    return np.where(np.isfinite(x), (bits & np.uint32(0xFFFFE000)).view(np.float32), x)


def cut_tf32(x):
    """As the tensor cores read a float32 number."""
    return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def towards_zero(x):
    """float64 to float32: without the 29 bits of mantissa that float32 does not have, nothing is left to be rounded."""
    return (x.view(np.uint64) & np.uint64(0xFFFFFFFFE0000000)).view(np.float64).astype(np.float32)


def accumulated(a, b, sums, step):
    """The sums and the product of two matrices; ``step`` terms are added at a time."""
    blocks = a.shape[-1] // step
    left = a.astype(np.float64).reshape(*a.shape[:-1], blocks, step).swapaxes(-3, -2)
    right = b.astype(np.float64).reshape(*b.shape[:-2], blocks, step, b.shape[-1])
    parts = np.matmul(left, right)
    for k in range(blocks):
        sums = towards_zero(sums.astype(np.float64) + parts[..., k, :, :])
    return sums


def product(a, b, sums, precision):
    """``sums`` and the product of two matrices in float32, or in half precision kept in any dtype."""
    if "TF32x3" in precision and a.dtype == np.float32:
        high_a, high_b = nearest_tf32(a), nearest_tf32(b)
        rest_a, rest_b = nearest_tf32(a - high_a), nearest_tf32(b - high_b)
        small = accumulated(high_a, rest_b, accumulated(rest_a, high_b, np.zeros_like(sums), 8), 8)
        # Infinities have no rest; Triton drops the not-a-numbers that come of it.
        small = np.where(np.isnan(small), np.float32(0), small)
        return accumulated(high_a, high_b, towards_zero(small.astype(np.float64) + sums), 8)
    if a.dtype == np.float32:
        a, b = cut_tf32(a), cut_tf32(b)
    return accumulated(a, b, sums, 8 if a.dtype == np.float32 else 16)


def noise(x):
    """The same number from -1 to 1 for the same x."""
    bits = np.ascontiguousarray(x).view(np.uint32) * np.uint32(2654435761)
    return (bits >> np.uint32(8)).astype(np.float64) / 2.0**23 - 1


def with_error(name):
    """Makes a method of the interpreter err by up to ``ERROR``, relatively, for float32."""
    exact = getattr(InterpreterBuilder, name)

    def coarse(self, *arguments):
        found = exact(self, *arguments)
        if found.data.dtype != np.float32:
            return found
        used[name] += 1
        with np.errstate(all="ignore"):
            data = (found.data * (1 + ERROR * noise(found.data))).astype(np.float32)
        # What a GPU gets exactly: exp2(0) is 1, log(1) is 0, and infinities and zeros stay.
        kept = ~np.isfinite(found.data) | (found.data == 0) | (found.data == 1)
        return TensorHandle(np.where(kept, found.data, data), found.dtype)

    setattr(InterpreterBuilder, name, coarse)


exact_dot = InterpreterBuilder.create_dot


def coarse_dot(self, a, b, d, precision, imprecise):
    if d.dtype.scalar != float32 or ("IEEE" in str(precision) and a.data.dtype == np.float32):
        return exact_dot(self, a, b, d, precision, imprecise)
    used[f"dot {precision}"] += 1
    with np.errstate(all="ignore"):
        return TensorHandle(product(a.data, b.data, d.data, str(precision)).astype(np.float32), float32)


def pytest_configure(config):
    InterpreterBuilder.create_dot = coarse_dot
    for name in ("exp", "exp2", "log", "log2", "rsqrt", "fdiv", "sqrt"):
        with_error(f"create_{name}")


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"rounded as on a GPU: {dict(sorted(used.items()))}")
