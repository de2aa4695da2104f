"""The public ``memory_read``: checks its arguments, then hands them to a backend."""

import math
from functools import partial

import torch

from .. import _extension, _triton
from .._autograd import autocasts, differentiable_gradients, exporting, wants_second_derivatives, without_autocast
from .._backends import Backends
from .._checks import check_positive, check_same_device, check_tensor, is_number
from .reference import memory_read_torch

# The third result is the softmax (T, N) if `save`, else empty; given back to the backward pass it saves that a matrix
# product.
FORWARD = (
    "memory_read_forward(Tensor z, Tensor items, float threshold, float eps, bool save) -> (Tensor, Tensor, Tensor)"
)
BACKWARD = (
    "memory_read_backward(Tensor grad_output, Tensor grad_entropy, Tensor z, Tensor items, Tensor softmax,"
    " float threshold, float eps, bool need_z, bool need_items) -> (Tensor, Tensor)"
)

# Up to this many weights (T times N) the softmax is kept for the backward pass; beyond, memory does not grow with T N.
KEPT_WEIGHTS = 1 << 24


SMALLEST = torch.finfo(torch.float32).tiny


def _fake_forward(z, items, threshold, eps, save):
    if z.device.type == "cuda":
        return _fake_triton(z, items, threshold, eps, save)
    kept = (z.shape[0], items.shape[0]) if save else (0, 0)
    return z.new_empty(z.shape), z.new_empty(z.shape[:1]), z.new_empty(kept)


def _fake_backward(grad_output, grad_entropy, z, items, softmax, threshold, eps, need_z, need_items):
    return z.new_empty(z.shape if need_z else (0, 0)), items.new_empty(items.shape if need_items else (0, 0))


def _fake_triton(z, items, threshold, eps, save):
    dtype = _triton.compute_type(z.dtype)
    return tuple(z.new_empty(shape, dtype=dtype) for shape in (z.shape, z.shape[:1], (2, z.shape[0])))


_extension.define(FORWARD, _fake_forward)
_extension.define(BACKWARD, _fake_backward)

BACKENDS = {
    "memory_read": Backends(
        "memory_read",
        [
            ("triton", "cuda", _triton.why_not("cuda")),
            ("cpp", "cpu", _extension.why_not("memory_read_backward", "CPU")),
            ("eager", None, None),
            ("triton", "cpu", _triton.why_not("cpu")),
        ],
    ),
}

_forward = torch.ops.vitlite.memory_read_forward.default
_backward = torch.ops.vitlite.memory_read_backward.default
# Beside the rest these take half precision as it is, and keep two numbers a query instead of the softmax.
_triton_forward, _triton_backward = _triton.serve(((FORWARD, _fake_triton), (BACKWARD, _fake_backward)), __package__)


class _MemoryRead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, items, threshold, eps, triton):
        save = not exporting() and z.shape[0] * items.shape[0] <= KEPT_WEIGHTS
        output, entropy, softmax = (_triton_forward if triton else _forward)(z, items, threshold, eps, save)
        ctx.backward_operator = _triton_backward if triton else _backward
        ctx.save_for_backward(z, items, softmax)
        ctx.options = (threshold, eps)
        return output, entropy

    @staticmethod
    def backward(ctx, grad_output, grad_entropy):
        needs = ctx.needs_input_grad[:2]
        if wants_second_derivatives():
            inputs, grads = ctx.saved_tensors[:2], (grad_output, grad_entropy)
            eager = partial(memory_read_torch, threshold=ctx.options[0], eps=ctx.options[1])
            return *differentiable_gradients(eager, inputs, needs, grads), None, None, None
        grads = ctx.backward_operator(grad_output, grad_entropy, *ctx.saved_tensors, *ctx.options, *needs)
        return *(grad if need else None for grad, need in zip(grads, needs)), None, None, None


def memory_read(z, items, *, threshold=None, eps=1e-12, backend="auto"):
    """What a memory of items remembers of each query (MemAE, Gong et al. 2019, equations 3 to 7 and 9).

    w = softmax(cos(z, items)); w = relu(w - t) w / (|w - t| + eps); w = w / sum(w); output w items, entropy
    -sum(w log w). The cosine counts a vector shorter than 1e-8 as that long, as torch's does: an all-zero query or item
    has cosine 0. A row whose weights are all shrunk away has output, entropy and gradients 0.

    Args:
        z: queries (T, C), float32, float64, float16 or bfloat16, of any strides.
        items: memory (N, C); another floating dtype is brought to the wider of the two.
        threshold: t, at least 0; None is 1 / N.
        eps: above 0, in the shrinkage and as the least sum of weights to divide by.
        backend: "auto", "cpp" (compiled, CPU; holds a block of the (T, N) weights, and where a gradient is wanted and
            T N is at most 2^24 all of them), "triton" (CUDA; holds 2^23 of them at most, or those of 16 queries) or
            "eager" (holds several (T, N) matrices).

    Returns:
        output (T, C) and entropy (T,), the entropy between 0 and log N, in the wider dtype of the arguments; computed
        in float32 for half precision and returned so under autocast. Differentiable in z and items.

    Raises:
        ValueError: a wrong shape, dtype, device, option or backend; the message names the argument.
    """
    _check_arguments(z, items, threshold, eps)
    chosen = BACKENDS["memory_read"].pick(backend, z.device.type)
    dtype = z.dtype
    if items.dtype != dtype:
        dtype = torch.promote_types(dtype, items.dtype)
    triton = chosen == "triton"
    compute = dtype if triton else torch.float64 if dtype == torch.float64 else torch.float32
    # Not Tensor.to for nothing: on a small call even that costs.
    z = z if z.dtype == compute else z.to(compute)
    items = items if items.dtype == compute else items.to(compute)
    threshold = 1 / items.shape[0] if threshold is None else float(threshold)
    if chosen == "eager":
        with without_autocast(z.device.type):
            output, entropy = memory_read_torch(z, items, threshold, eps)
    elif torch.is_grad_enabled() and (z.requires_grad or items.requires_grad):
        output, entropy = _MemoryRead.apply(z, items, threshold, eps, triton)
    else:
        output, entropy, _ = (_triton_forward if triton else _forward)(z, items, threshold, eps, False)
    if output.dtype != dtype and not autocasts(z.device.type):
        output, entropy = output.to(dtype), entropy.to(dtype)
    return output, entropy


def _check_arguments(z, items, threshold, eps):
    check_tensor("z", z, "(T, C)")
    check_tensor("items", items, "(N, C)")
    if items.shape[1] != z.shape[1]:
        raise ValueError(f"items: shape {tuple(items.shape)} does not go with z of {tuple(z.shape)}; C must be equal")
    if items.shape[0] == 0 or items.shape[1] == 0:
        raise ValueError(f"items: shape {tuple(items.shape)} holds nothing to read")
    check_same_device("items", items, "z", z)
    check_positive("eps", eps)
    if eps < SMALLEST and z.dtype != torch.float64 and items.dtype != torch.float64:
        raise ValueError(f"eps: {eps!r} is 0 in float32; give at least {SMALLEST:.4g}")
    if threshold is not None and not (is_number(threshold) and 0 <= threshold < math.inf):
        raise ValueError(f"threshold: expected a finite number of at least 0, got {threshold!r}")
