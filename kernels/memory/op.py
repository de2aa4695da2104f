"""The public ``memory_read``: checks its arguments, then hands them to a backend."""

import math
from typing import Any

from torch import Tensor

from .._checks import check_positive, check_same_device, check_tensor, is_number
from .._operator import Operator, exporting
from .._triton import compute_type
from .reference import memory_read_torch

# Up to this many weights (T times N) the softmax is kept for the backward pass; beyond, memory does not grow with T N.
KEPT_WEIGHTS = 1 << 24


def _fake_forward(z: Tensor, items: Tensor, threshold: float | None, temperature: float, save: bool) -> Any:
    rows, kept = z.shape[0], (z.shape[0], items.shape[0]) if save else (0,)
    return tuple(z.new_empty(shape, dtype=compute_type(z.dtype)) for shape in (z.shape, (rows,), (3, rows), kept))


# The third and fourth result are for the backward pass: of each query its largest score over log 2, the inverse
# sum of its exponentials and the sum of its weights after the shrinkage, (3, T), and if `save` the normalised weights
# (T, N), which saves a matrix product.
OPERATOR = Operator(
    "memory_read",
    forward="(Tensor z, Tensor items, float? threshold, float temperature, bool save)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    backward="(Tensor grad_output, Tensor grad_entropy, Tensor z, Tensor items, Tensor sums, Tensor weights,"
    " float? threshold, float temperature, bool need_z, bool need_items) -> (Tensor, Tensor)",
    fake_forward=_fake_forward,
    eager=memory_read_torch,
    package=__package__,
    half=("triton",),
    shapes=lambda T=6, N=7, C=4: ((T, C), (N, C)),
)


def memory_read(
    z: Tensor, items: Tensor, *, threshold: float | None = None, temperature: float = 1.0, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """What a memory of items remembers of each query (MemAE, Gong et al. 2019, equations 3 to 7 and 9).

    w = softmax(temperature cos(z, items)); a weight at or below t becomes 0, one above it stays; w = w / sum(w); output
    w items, entropy -sum(w log w). This is the papers' relu(w - t) w / (|w - t| + eps) for a vanishing eps. A weight
    counts as at t up to 8 units of rounding above it: of N equal ones none is above 1 / N. The cosine counts a vector
    shorter than 1e-8 as that long, as torch's does: an all-zero query or item has cosine 0. A row whose weights are all
    shrunk away has output, entropy and gradients 0.

    Args:
        z: queries (T, C), float32, float64, float16 or bfloat16, of any strides.
        items: memory (N, C); another floating dtype is brought to the wider of the two.
        threshold: t, at least 0; None is 1 / N.
        temperature: above 0, what the cosines are multiplied by; 1 in the papers.
        backend: "auto", "cpp" (compiled, CPU; holds a block of the (T, N) weights), "triton" (CUDA; holds 2^23 of them
            at most, or those of 16 queries) or "eager" (holds several (T, N) matrices). If a gradient is wanted and T N
            is at most 2^24, the first two keep all of them.

    Returns:
        output (T, C) and entropy (T,), the entropy between 0 and log N, in the wider dtype of the arguments; computed
        in float32 for half precision and returned so under autocast. Differentiable in z and items.

    Raises:
        ValueError: a wrong shape, dtype, device, option or backend; the message names the argument.
    """
    rows, count = _checked_sizes(z, items, threshold, temperature)
    chosen = OPERATOR.backends.pick(backend, z.device.type)
    # None goes on as it is: 1 / N as a number would make torch.export take N to be fixed.
    threshold = None if threshold is None else float(threshold)
    save = chosen in ("cpp", "triton") and not exporting() and rows * count <= KEPT_WEIGHTS
    return OPERATOR(chosen, (z, items), threshold, float(temperature), save)


def _checked_sizes(z: Tensor, items: Tensor, threshold: float | None, temperature: float) -> tuple[int, int]:
    """T and N of arguments in which nothing is wrong."""
    check_tensor("z", z, "T", "C")
    check_tensor("items", items, "N", "C")
    # Unpacked once: on a small call every look at a shape counts.
    (rows, channels), (count, width) = z.shape, items.shape
    if width != channels:
        raise ValueError(f"items: shape {tuple(items.shape)} does not go with z of {tuple(z.shape)}; C must be equal")
    if count == 0 or width == 0:
        raise ValueError(f"items: shape {tuple(items.shape)} holds nothing to read")
    check_same_device("items", items, "z", z)
    check_positive("temperature", temperature)
    if threshold is not None and not (is_number(threshold) and 0 <= threshold < math.inf):
        raise ValueError(f"threshold: expected a finite number of at least 0, got {threshold!r}")
    return rows, count
