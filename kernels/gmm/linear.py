"""The public ``linear_gmm_log_likelihood``: checks its arguments, then hands them to a backend."""

from typing import Any

import torch
from torch import Tensor

from .._checks import check_positive, check_same_device, check_tensor, is_count
from .._operator import Operator, Tensors, exporting
from .._triton import compute_type
from .reference import linear_gmm_log_likelihood_torch

# Up to so many dimensions and so many means (T K D) "auto" takes eager torch on a CPU, which is then faster.
FEW_DIMS, FEW_MEANS = 2, 1 << 22


def _fake_forward(x: Tensor, y: Tensor, w_logits: Tensor, *_: Any) -> Any:
    shape = (x.shape[0], w_logits.shape[0])
    return tuple(x.new_empty(size, dtype=compute_type(x.dtype)) for size in (shape[:1], shape, shape))


def _eager(*arguments: Any) -> Tensor:
    return linear_gmm_log_likelihood_torch(*arguments[:-1])  # without the chunk


def _prepare(tensors: Tensors, dtype: torch.dtype, backend: str) -> Tensors:
    """The tensors as the operators want them: in the dtype of the computation, but the two large matrices may keep half
    precision, and are brought to float32 a chunk at a time. Triton takes x in the half precision of the matrices, too.
    """
    compute = compute_type(dtype)
    if dtype == compute and all(a is None or a.dtype == dtype for a in tensors):
        return tensors
    w_mean, w_std = tensors[3:5]
    large = w_mean.dtype if w_mean.dtype == w_std.dtype and compute == torch.float32 else compute
    features = large if backend == "triton" and tensors[0].dtype == large else compute
    kinds = (features, compute, compute, large, large, compute, compute, compute)
    return tuple(a if a is None else a.to(kind) for a, kind in zip(tensors, kinds))


# w_mean and w_std may be half precision beside float32; the other tensors have the dtype of the computation. A chunk of
# 0 lets the operator choose. The backward pass wants the second and third result: the logarithm of each component's
# share of the likelihood (T, K), and the logits.
OPERATOR = Operator(
    "linear_gmm_log_likelihood",
    forward="(Tensor x, Tensor y, Tensor w_logits, Tensor w_mean, Tensor w_std,"
    " Tensor? b_logits, Tensor? b_mean, Tensor? b_std, float min_std, int chunk) -> (Tensor, Tensor, Tensor)",
    backward="(Tensor grad, Tensor x, Tensor y, Tensor w_logits, Tensor w_mean,"
    " Tensor w_std, Tensor? b_logits, Tensor? b_mean, Tensor? b_std, Tensor log_shares, Tensor logits,"
    " float min_std, int chunk, bool need_x, bool need_y, bool need_w_logits, bool need_w_mean, bool need_w_std)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    fake_forward=_fake_forward,
    eager=_eager,
    package=__package__,
    launchers="linear_triton",
    prepare=_prepare,
    shapes=lambda T=5, F=6, D=3, K=4: ((T, F), (T, D), (K, F), (K * D, F), (K * D, F), (K,), (K * D,), (K * D,)),
)


def linear_gmm_log_likelihood(
    x: Tensor,
    y: Tensor,
    w_logits: Tensor,
    w_mean: Tensor,
    w_std: Tensor,
    b_logits: Tensor | None = None,
    b_mean: Tensor | None = None,
    b_std: Tensor | None = None,
    *,
    min_std: float = 1e-3,
    chunk: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """A mixture density head (Bishop 1994) and the log-likelihood of y under its mixture, in one operator.

    ``gmm_log_likelihood(y, logits, mean, std)`` for logits = x w_logits^T + b_logits, mean = x w_mean^T + b_mean and
    std = softplus(x w_std^T + b_std) + min_std, without ever holding the means and deviations (T, K, D): beside (T, K)
    matrices there is one chunk of components, for at most 512 rows (4096 on a GPU), and perhaps a copy of its weights.
    The backward pass computes a chunk again. On a CPU it leaves out rows that have no share in it.

    Args:
        x: features (T, F), float32, float64, float16 or bfloat16, of any strides. Other floating dtypes among the
            tensors are brought to the widest of them.
        y: points (T, D).
        w_logits: (K, F).
        w_mean: (K * D, F), the D rows of a component one after the other.
        w_std: (K * D, F).
        b_logits: (K,) or None.
        b_mean: (K * D,) or None.
        b_std: (K * D,) or None.
        min_std: added to every deviation, above 0.
        chunk: components at a time; None chooses as many as make blocks of about a million means, or 2^23 on a GPU.
        backend: "auto", "cpp" (compiled, CPU), "triton" (CUDA; holds 2^23 means and as many deviations at most, or
            those of 16 rows of a chunk) or "eager" (holds all means and deviations and more).

    Returns:
        (T,) in the widest dtype of the tensors; computed in float32 for half precision and returned so under autocast.
        Differentiable in all tensors.

    Raises:
        ValueError: a wrong shape, dtype, device, option or backend; the message names the argument.
    """
    tensors = (x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std)
    _check_arguments(*tensors)
    check_positive("min_std", min_std)
    if chunk is not None and not is_count(chunk):
        raise ValueError(f"chunk: expected a number of components of at least 1, got {chunk!r}")
    chunk = 0 if chunk is None else chunk if isinstance(chunk, int) else int(chunk)
    chosen = OPERATOR.backends.pick(backend, x.device.type)
    if chosen == "cpp" and backend == "auto" and not exporting() and y.shape[1] <= FEW_DIMS:
        # As for the mixture itself, if the means of all rows are few.
        chosen = "eager" if x.shape[0] * w_mean.shape[0] <= FEW_MEANS else chosen
    return OPERATOR(chosen, tensors, float(min_std), chunk)


def _check_arguments(
    x: Tensor,
    y: Tensor,
    w_logits: Tensor,
    w_mean: Tensor,
    w_std: Tensor,
    b_logits: Tensor | None,
    b_mean: Tensor | None,
    b_std: Tensor | None,
) -> None:
    check_tensor("x", x, "T", "F")
    check_tensor("y", y, "T", "D")
    check_tensor("w_logits", w_logits, "K", "F")
    if x.shape[1] == 0:
        raise ValueError(f"x: shape {tuple(x.shape)} holds no features")
    if y.shape[0] != x.shape[0] or y.shape[1] == 0:
        raise ValueError(f"y: shape {tuple(y.shape)} does not go with x of {tuple(x.shape)}; expected (T, D)")
    if w_logits.shape[0] == 0 or w_logits.shape[1] != x.shape[1]:
        raise ValueError(f"w_logits: shape {tuple(w_logits.shape)} does not go with x of {tuple(x.shape)}")
    components, features = w_logits.shape
    outputs = components * y.shape[1]
    for name, weight in (("w_mean", w_mean), ("w_std", w_std)):
        check_tensor(name, weight, "K * D", "F")
        if weight.shape != (outputs, features):
            raise ValueError(f"{name}: shape {tuple(weight.shape)} is not (K * D, F) = {(outputs, features)}")
        check_same_device(name, weight, "x", x)
    for name, bias, axis, size in (
        ("b_logits", b_logits, "K", components),
        ("b_mean", b_mean, "K * D", outputs),
        ("b_std", b_std, "K * D", outputs),
    ):
        if bias is not None:
            check_tensor(name, bias, axis)
            if bias.shape != (size,):
                raise ValueError(f"{name}: shape {tuple(bias.shape)} is not ({axis},) = ({size},)")
            check_same_device(name, bias, "x", x)
    check_same_device("y", y, "x", x)
    check_same_device("w_logits", w_logits, "x", x)
