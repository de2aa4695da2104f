"""The public ``gmm_log_likelihood``: checks its arguments, then hands them to a backend.

``linear_gmm_log_likelihood`` is beside it in linear.py.
"""

from typing import Any

from torch import Tensor

from .._checks import check_same_device, check_tensor
from .._operator import Operator, exporting
from .._triton import compute_type
from .linear import linear_gmm_log_likelihood
from .reference import gmm_log_likelihood_torch

__all__ = ["OPERATOR", "gmm_log_likelihood", "linear_gmm_log_likelihood"]


def _fake_forward(y: Tensor, logits: Tensor, mean: Tensor, std: Tensor) -> Any:
    dtype = compute_type(y.dtype)
    return y.new_empty(y.shape[:1], dtype=dtype), y.new_empty(logits.shape, dtype=dtype)


# The second result is the logarithm of each component's share of the likelihood (T, K), for the backward pass.
OPERATOR = Operator(
    "gmm_log_likelihood",
    forward="(Tensor y, Tensor logits, Tensor mean, Tensor std) -> (Tensor, Tensor)",
    backward="(Tensor grad, Tensor y, Tensor logits, Tensor mean, Tensor std, Tensor log_shares,"
    " bool need_y, bool need_logits, bool need_mean, bool need_std) -> (Tensor, Tensor, Tensor, Tensor)",
    fake_forward=_fake_forward,
    eager=gmm_log_likelihood_torch,
    package=__package__,
    compiled=("CPU", "CUDA"),
    shapes=lambda T=5, K=4, D=3: ((T, D), (T, K), (T, K, D), (T, K, D)),
)

# With so few dimensions a point has less work than the call of a kernel, and the means are as small as the logits:
# "auto" then takes eager torch on a CPU.
FEW_DIMS = 2


def gmm_log_likelihood(y: Tensor, logits: Tensor, mean: Tensor, std: Tensor, *, backend: str = "auto") -> Tensor:
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
    chosen = OPERATOR.backends.pick(backend, y.device.type)
    if chosen == "cpp" and backend == "auto" and not exporting() and y.shape[1] <= FEW_DIMS:
        chosen = "eager"
    return OPERATOR(chosen, (y, logits, mean, std))


def _check_arguments(y: Tensor, logits: Tensor, mean: Tensor, std: Tensor) -> None:
    check_tensor("y", y, "T", "D")
    check_tensor("logits", logits, "T", "K")
    check_tensor("mean", mean, "T", "K", "D")
    check_tensor("std", std, "T", "K", "D")
    # Each looked at once: on a small call every look at a shape counts.
    (rows, dims), (others, components) = y.shape, logits.shape
    whole, deviations = (rows, components, dims), std.shape
    if dims == 0:
        raise ValueError(f"y: shape {tuple(y.shape)} holds points without dimensions")
    if others != rows or components == 0:
        raise ValueError(f"logits: shape {tuple(logits.shape)} does not go with y of {tuple(y.shape)}; expected (T, K)")
    if mean.shape != whole:
        raise ValueError(f"mean: shape {tuple(mean.shape)} is not (T, K, D) = {whole}")
    if deviations != whole and deviations != (rows, components, 1):
        raise ValueError(f"std: shape {tuple(deviations)} is neither (T, K, D) = {whole} nor (T, K, 1)")
    check_same_device("logits", logits, "y", y)
    check_same_device("mean", mean, "y", y)
    check_same_device("std", std, "y", y)
