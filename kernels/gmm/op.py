"""The public ``gmm_log_likelihood``: checks its arguments, then hands them to a backend.

``linear_gmm_log_likelihood`` is beside it in linear.py.
"""

import torch

from .. import _extension, _triton
from .._autograd import autocasts, differentiable_gradients, exporting, wants_second_derivatives, without_autocast
from .._backends import Backends
from .._checks import check_same_device, check_tensor
from . import linear
from .linear import linear_gmm_log_likelihood
from .reference import gmm_log_likelihood_torch

__all__ = ["BACKENDS", "gmm_log_likelihood", "linear_gmm_log_likelihood"]

# The second result is the logarithm of each component's share of the likelihood (T, K), for the backward pass.
FORWARD = "gmm_log_likelihood_forward(Tensor y, Tensor logits, Tensor mean, Tensor std) -> (Tensor, Tensor)"
BACKWARD = (
    "gmm_log_likelihood_backward(Tensor grad, Tensor y, Tensor logits, Tensor mean, Tensor std, Tensor log_shares,"
    " bool need_y, bool need_logits, bool need_mean, bool need_std) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _fake_forward(y, logits, mean, std):
    dtype = torch.float64 if y.dtype == torch.float64 else torch.float32
    return y.new_empty(y.shape[:1], dtype=dtype), y.new_empty(logits.shape, dtype=dtype)


def _fake_backward(grad, y, logits, mean, std, log_shares, *needs):
    return tuple(a.new_empty(a.shape if need else (0,)) for a, need in zip((y, logits, mean, std), needs))


# With so few dimensions a point has less work than a kernel's call for it, and the means are as small as the logits:
# "auto" then takes eager torch on a CPU.
FEW_DIMS = 2

_extension.define(FORWARD, _fake_forward)
_extension.define(BACKWARD, _fake_backward)

BACKENDS = {
    "gmm_log_likelihood": Backends(
        "gmm_log_likelihood",
        [
            ("cuda", "cuda", _extension.why_not("gmm_log_likelihood_backward", "CUDA")),
            ("triton", "cuda", _triton.why_not("cuda")),
            ("cpp", "cpu", _extension.why_not("gmm_log_likelihood_backward", "CPU")),
            ("eager", None, None),
            ("triton", "cpu", _triton.why_not("cpu")),
        ],
    ),
    "linear_gmm_log_likelihood": linear.BACKENDS,
}

_forward = torch.ops.vitlite.gmm_log_likelihood_forward.default
_backward = torch.ops.vitlite.gmm_log_likelihood_backward.default
_triton_forward, _triton_backward = _triton.serve(((FORWARD, _fake_forward), (BACKWARD, _fake_backward)), __package__)


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, logits, mean, std, triton):
        likelihood, log_shares = (_triton_forward if triton else _forward)(y, logits, mean, std)
        ctx.backward_operator = _triton_backward if triton else _backward
        ctx.save_for_backward(y, logits, mean, std, log_shares)
        return likelihood

    @staticmethod
    def backward(ctx, grad):
        needs = ctx.needs_input_grad[:4]
        if wants_second_derivatives():
            return *differentiable_gradients(_eager, ctx.saved_tensors[:4], needs, grad), None
        grads = ctx.backward_operator(grad, *ctx.saved_tensors, *needs)
        return *(g if need else None for g, need in zip(grads, needs)), None


def gmm_log_likelihood(y, logits, mean, std, *, backend="auto"):
    """Log-likelihood of each row of y under a Gaussian mixture of its own, with diagonal covariance (Bishop 1994).

    logsumexp_k (log softmax(logits)_k - sum_d ((y_d - mean_kd) / std_kd)^2 / 2 - sum_d log std_kd - D/2 log 2 pi).

    Args:
        y: points (T, D), float32, float64, float16 or bfloat16. All arguments may have any strides; other floating
            dtypes are brought to the widest of them.
        logits: unnormalised log weights (T, K).
        mean: means (T, K, D). One mixture for all rows, ``mean.expand(T, K, D)``, is not copied; nor is its std.
        std: standard deviations (T, K, D), or (T, K, 1) for isotropic components; above 0, which is not checked.
        backend: "auto", "cpp" (compiled, CPU), "cuda" (compiled), "triton" (CUDA) or "eager" (holds a few (T, K, D)
            tensors).

    Returns:
        (T,) in the widest dtype of the arguments; computed in float32 for half precision and returned so under
        autocast. Differentiable in all four tensors.

    Raises:
        ValueError: a wrong shape, dtype, device or backend; the message names the argument.
    """
    _check_arguments(y, logits, mean, std)
    chosen = BACKENDS["gmm_log_likelihood"].pick(backend, y.device.type)
    if chosen == "cpp" and backend == "auto" and not exporting() and y.shape[1] <= FEW_DIMS:
        chosen = "eager"
    dtype = y.dtype
    if logits.dtype != dtype or mean.dtype != dtype or std.dtype != dtype:
        for other in (logits, mean, std):
            dtype = torch.promote_types(dtype, other.dtype)
        y, logits, mean, std = y.to(dtype), logits.to(dtype), mean.to(dtype), std.to(dtype)
    if chosen == "eager":
        result = _eager(y, logits, mean, std)
    elif torch.is_grad_enabled() and (
        y.requires_grad or logits.requires_grad or mean.requires_grad or std.requires_grad
    ):
        result = _Likelihood.apply(y, logits, mean, std, chosen == "triton")
    else:
        result = (_triton_forward if chosen == "triton" else _forward)(y, logits, mean, std)[0]
    if result.dtype != dtype and not autocasts(y.device.type):
        result = result.to(dtype)
    return result


def _eager(y, logits, mean, std):
    if y.dtype in (torch.float16, torch.bfloat16):
        y, logits, mean, std = y.float(), logits.float(), mean.float(), std.float()
    with without_autocast(y.device.type):
        return gmm_log_likelihood_torch(y, logits, mean, std)


def _check_arguments(y, logits, mean, std):
    check_tensor("y", y, "(T, D)")
    check_tensor("logits", logits, "(T, K)")
    check_tensor("mean", mean, "(T, K, D)")
    check_tensor("std", std, "(T, K, D)")
    rows, dims = y.shape
    components = logits.shape[1]
    if dims == 0:
        raise ValueError(f"y: shape {tuple(y.shape)} holds points without dimensions")
    if logits.shape[0] != rows or components == 0:
        raise ValueError(f"logits: shape {tuple(logits.shape)} does not go with y of {tuple(y.shape)}; expected (T, K)")
    if mean.shape != (rows, components, dims):
        raise ValueError(f"mean: shape {tuple(mean.shape)} is not (T, K, D) = {(rows, components, dims)}")
    if std.shape[:2] != mean.shape[:2] or std.shape[2] not in (1, dims):
        raise ValueError(
            f"std: shape {tuple(std.shape)} is neither (T, K, D) = {(rows, components, dims)} nor (T, K, 1)"
        )
    check_same_device("logits", logits, "y", y)
    check_same_device("mean", mean, "y", y)
    check_same_device("std", std, "y", y)
