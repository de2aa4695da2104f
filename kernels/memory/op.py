"""The public ``memory_read``: checks its arguments, then hands them to a backend."""

import math
from typing import Any

import torch
from torch import Tensor

from .._checks import check_positive, check_same_device, check_tensor, is_number
from .._operator import Operator, exporting
from .._triton import compute_type
from .reference import memory_read_torch

# Up to this many weights (T times N) the softmax is kept for the backward pass; beyond, memory does not grow with T N.
KEPT_WEIGHTS = 1 << 24

SMALLEST = torch.finfo(torch.float32).tiny


def _fake_forward(z: Tensor, items: Tensor, threshold: float, eps: float, save: bool) -> Any:
    rows, kept = z.shape[0], (z.shape[0], items.shape[0]) if save else (0,)
    return tuple(z.new_empty(shape, dtype=compute_type(z.dtype)) for shape in (z.shape, (rows,), (2, rows), kept))


# The third and fourth result are for the backward pass: of each query the inverse sum of its exponentials and the sum
# of its weights after the shrinkage, (2, T), and if `save` the softmax (T, N), which saves a matrix product.
OPERATOR = Operator(
    "memory_read",
    forward="(Tensor z, Tensor items, float threshold, float eps, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
    backward="(Tensor grad_output, Tensor grad_entropy, Tensor z, Tensor items, Tensor sums, Tensor softmax,"
    " float threshold, float eps, bool need_z, bool need_items) -> (Tensor, Tensor)",
    fake_forward=_fake_forward,
    eager=memory_read_torch,
    package=__package__,
    half=("triton",),
    shapes=lambda T=6, N=7, C=4: ((T, C), (N, C)),
)


def memory_read(
    z: Tensor, items: Tensor, *, threshold: float | None = None, eps: float = 1e-12, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """What a memory of items remembers of each query (MemAE, Gong et al. 2019, equations 3 to 7 and 9).

    w = softmax(cos(z, items)); w = relu(w - t) w / (|w - t| + eps); w = w / sum(w); output w items, entropy
    -sum(w log w). The cosine counts a vector shorter than 1e-8 as that long, as torch's does: an all-zero query or item
    has cosine 0. A row whose weights are all shrunk away has output, entropy and gradients 0.

    Args:
        z: queries (T, C), float32, float64, float16 or bfloat16, of any strides.
        items: memory (N, C); another floating dtype is brought to the wider of the two.
        threshold: t, at least 0; None is 1 / N.
        eps: above 0, in the shrinkage and as the least sum of weights to divide by.
        backend: "auto", "cpp" (compiled, CPU; holds a block of the (T, N) weights, or all of them if a gradient is
            wanted and T N is at most 2^24), "triton" (CUDA; holds at most 2^23 of them, or those of 16 queries) or
            "eager" (holds several (T, N) matrices).

    Returns:
        output (T, C) and entropy (T,), the entropy between 0 and log N, in the wider dtype of the arguments; computed
        in float32 for half precision and returned so under autocast. Differentiable in z and items.

    Raises:
        ValueError: a wrong shape, dtype, device, option or backend; the message names the argument.
    """
    rows, count = _checked_sizes(z, items, threshold, eps)
    chosen = OPERATOR.backends.pick(backend, z.device.type)
    threshold = 1 / count if threshold is None else float(threshold)
    save = chosen == "cpp" and not exporting() and rows * count <= KEPT_WEIGHTS
    return OPERATOR(chosen, (z, items), threshold, eps, save)


def _checked_sizes(z: Tensor, items: Tensor, threshold: float | None, eps: float) -> tuple[int, int]:
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
    check_positive("eps", eps)
    if eps < SMALLEST and z.dtype != torch.float64 and items.dtype != torch.float64:
        raise ValueError(f"eps: {eps!r} is 0 in float32; give at least {SMALLEST:.4g}")
    if threshold is not None and not (is_number(threshold) and 0 <= threshold < math.inf):
        raise ValueError(f"threshold: expected a finite number of at least 0, got {threshold!r}")
    return rows, count
