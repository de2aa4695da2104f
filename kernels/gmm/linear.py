"""The public ``linear_gmm_log_likelihood``: checks its arguments, then hands them to a backend."""

from functools import partial, reduce

import torch

from .. import _extension, _triton
from .._autograd import autocasts, differentiable_gradients, exporting, wants_second_derivatives, without_autocast
from .._backends import Backends
from .._checks import check_positive, check_same_device, check_tensor, is_count
from .reference import linear_gmm_log_likelihood_torch

# w_mean and w_std may be half precision beside float32; the other tensors have the dtype of the computation. A chunk of
# 0 lets the operator choose. The backward pass asks for the second and third result: the logarithm of each
# component's share of the likelihood (T, K), and the logits.
FORWARD = (
    "linear_gmm_log_likelihood_forward(Tensor x, Tensor y, Tensor w_logits, Tensor w_mean, Tensor w_std,"
    " Tensor? b_logits, Tensor? b_mean, Tensor? b_std, float min_std, int chunk) -> (Tensor, Tensor, Tensor)"
)
BACKWARD = (
    "linear_gmm_log_likelihood_backward(Tensor grad, Tensor x, Tensor y, Tensor w_logits, Tensor w_mean,"
    " Tensor w_std, Tensor? b_logits, Tensor? b_mean, Tensor? b_std, Tensor log_shares, Tensor logits,"
    " float min_std, int chunk, bool need_x, bool need_y, bool need_w_logits, bool need_w_mean, bool need_w_std)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _fake_forward(x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std, min_std, chunk):
    shape = (x.shape[0], w_logits.shape[0])
    return tuple(x.new_empty(size, dtype=_triton.compute_type(x.dtype)) for size in (shape[:1], shape, shape))


def _fake_backward(
    grad, x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std, log_shares, logits, min_std, chunk, *needs
):
    need_x, need_y, need_w_logits, need_w_mean, need_w_std = needs
    few = [a.new_empty(a.shape if need else (0,)) for a, need in ((x, need_x), (y, need_y), (w_logits, need_w_logits))]
    large = [
        a.new_empty(a.shape if need else (0, a.shape[1])) for a, need in ((w_mean, need_w_mean), (w_std, need_w_std))
    ]
    biases = [x.new_empty((0,)) if b is None else b.new_empty(b.shape) for b in (b_logits, b_mean, b_std)]
    return (*few, *large, *biases)


_extension.define(FORWARD, _fake_forward)
_extension.define(BACKWARD, _fake_backward)

# Up to so many dimensions and so many means (T K D) "auto" takes eager torch on a CPU, which is then faster.
FEW_DIMS, FEW_MEANS = 2, 1 << 22

BACKENDS = Backends(
    "linear_gmm_log_likelihood",
    [
        ("triton", "cuda", _triton.why_not("cuda")),
        ("cpp", "cpu", _extension.why_not("linear_gmm_log_likelihood_backward", "CPU")),
        ("eager", None, None),
        ("triton", "cpu", _triton.why_not("cpu")),
    ],
)

_forward = torch.ops.vitlite.linear_gmm_log_likelihood_forward.default
_backward = torch.ops.vitlite.linear_gmm_log_likelihood_backward.default
# These take x in the half precision of the weights too.
_triton_forward, _triton_backward = _triton.serve(
    ((FORWARD, _fake_forward), (BACKWARD, _fake_backward)), __package__, "linear_triton"
)


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std, min_std, chunk, triton):
        tensors = (x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std)
        results = (_triton_forward if triton else _forward)(*tensors, min_std, chunk)
        ctx.backward_operator = _triton_backward if triton else _backward
        ctx.save_for_backward(*tensors, *results[1:])
        ctx.options = (min_std, chunk)
        return results[0]

    @staticmethod
    def backward(ctx, grad):
        needs = ctx.needs_input_grad[:8]
        if wants_second_derivatives():
            eager = partial(_eager, min_std=ctx.options[0])
            return *differentiable_gradients(eager, ctx.saved_tensors[:8], needs, grad), None, None, None
        grads = ctx.backward_operator(grad, *ctx.saved_tensors, *ctx.options, *needs[:5])
        return *(g if need else None for g, need in zip(grads, needs)), None, None, None


def linear_gmm_log_likelihood(
    x,
    y,
    w_logits,
    w_mean,
    w_std,
    b_logits=None,
    b_mean=None,
    b_std=None,
    *,
    min_std=1e-3,
    chunk=None,
    backend="auto",
):
    """A mixture density head (Bishop 1994) and the log-likelihood of y under its mixture, in one operator.

    ``gmm_log_likelihood(y, logits, mean, std)`` for logits = x w_logits^T + b_logits, mean = x w_mean^T + b_mean and
    std = softplus(x w_std^T + b_std) + min_std, without ever holding the means and deviations (T, K, D): beside (T, K)
    matrices there is one chunk of components, for at most 512 rows, and a copy of its weights. The backward pass
    computes a chunk again, and leaves out rows that have no share in it.

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
        chunk: components at a time; None chooses as many as make blocks of about a million means.
        backend: "auto", "cpp" (compiled, CPU), "triton" (CUDA; forward holds no chunk at all) or "eager" (holds the
            means and deviations and more).

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
    chosen = BACKENDS.pick(backend, x.device.type)
    if chosen == "cpp" and backend == "auto" and not exporting() and y.shape[1] <= FEW_DIMS:
        # As for the mixture itself, where the means of all rows are no matter.
        chosen = "eager" if x.shape[0] * w_mean.shape[0] <= FEW_MEANS else chosen
    triton = chosen == "triton"
    dtype, tensors = _one_dtype(tensors, triton)
    if chosen == "eager":
        result = _eager(*tensors, min_std=min_std)
    elif torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in tensors):
        result = _Likelihood.apply(*tensors, float(min_std), chunk, triton)
    else:
        result = (_triton_forward if triton else _forward)(*tensors, float(min_std), chunk)[0]
    if result.dtype != dtype and not autocasts(x.device.type):
        result = result.to(dtype)
    return result


def _one_dtype(tensors, keep_features=False):
    """The widest dtype, and the tensors as the operators want them: in the dtype of the computation, but the two large
    matrices may keep half precision, and are brought to float32 a chunk at a time. With ``keep_features`` x keeps it
    too where it is that of the matrices."""
    dtypes = {a.dtype for a in tensors if a is not None}
    if len(dtypes) == 1:
        (dtype,) = dtypes
        if dtype in (torch.float32, torch.float64):
            return dtype, tensors
    dtype = reduce(torch.promote_types, dtypes)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    w_mean, w_std = tensors[3:5]
    large = w_mean.dtype if w_mean.dtype == w_std.dtype and compute == torch.float32 else compute
    features = large if keep_features and tensors[0].dtype == large else compute
    kinds = (features, compute, compute, large, large, compute, compute, compute)
    return dtype, tuple(a if a is None else a.to(kind) for a, kind in zip(tensors, kinds))


def _eager(*tensors, min_std):
    """The reference in the dtype of the computation, which that of y is."""
    dtype = tensors[1].dtype
    with without_autocast(tensors[0].device.type):
        return linear_gmm_log_likelihood_torch(*(a if a is None else a.to(dtype) for a in tensors), min_std)


def _check_arguments(x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std):
    check_tensor("x", x, "(T, F)")
    check_tensor("y", y, "(T, D)")
    check_tensor("w_logits", w_logits, "(K, F)")
    if x.shape[1] == 0:
        raise ValueError(f"x: shape {tuple(x.shape)} holds no features")
    if y.shape[0] != x.shape[0] or y.shape[1] == 0:
        raise ValueError(f"y: shape {tuple(y.shape)} does not go with x of {tuple(x.shape)}; expected (T, D)")
    if w_logits.shape[0] == 0 or w_logits.shape[1] != x.shape[1]:
        raise ValueError(f"w_logits: shape {tuple(w_logits.shape)} does not go with x of {tuple(x.shape)}")
    components, features = w_logits.shape
    outputs = components * y.shape[1]
    for name, weight in (("w_mean", w_mean), ("w_std", w_std)):
        check_tensor(name, weight, "(K * D, F)")
        if weight.shape != (outputs, features):
            raise ValueError(f"{name}: shape {tuple(weight.shape)} is not (K * D, F) = {(outputs, features)}")
        check_same_device(name, weight, "x", x)
    for name, bias, size in (
        ("b_logits", b_logits, components),
        ("b_mean", b_mean, outputs),
        ("b_std", b_std, outputs),
    ):
        if bias is not None:
            check_tensor(name, bias, f"({size},)")
            if bias.shape != (size,):
                raise ValueError(f"{name}: shape {tuple(bias.shape)} is not ({size},)")
            check_same_device(name, bias, "x", x)
    check_same_device("y", y, "x", x)
    check_same_device("w_logits", w_logits, "x", x)
