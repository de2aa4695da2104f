"""What the mixture log-likelihood is: the numpy oracle of the tests, its gradients, and the eager torch yardstick.

log p(y) = logsumexp_k (log pi_k - sum_d ((y_d - mu_kd) / sigma_kd)^2 / 2 - sum_d log sigma_kd - D/2 log 2 pi), the
mixture density network of Bishop 1994 with diagonal covariance; pi is the softmax of the logits.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

Array = np.ndarray


def gmm_log_likelihood_numpy(y: Array, logits: Array, mean: Array, std: Array) -> Array:
    """(T,) in float64 of y (T, D), logits (T, K), mean (T, K, D) and std (T, K, D) or (T, K, 1)."""
    y, logits, mean, std = _double(y, logits, mean, std)
    return _logsumexp(_joint(y, logits, mean, std))


def gmm_log_likelihood_grad_numpy(grad: Array, y: Array, logits: Array, mean: Array, std: Array) -> tuple[Array, ...]:
    """Gradients for y, logits, mean and std in float64, given that of the log-likelihood (T,)."""
    grad, y, logits, mean, std = _double(grad, y, logits, mean, std)
    joint = _joint(y, logits, mean, std)
    share = grad[:, None] * np.exp(joint - _logsumexp(joint)[:, None])
    grad_logits = share - grad[:, None] * np.exp(_log_softmax(logits))
    z = (y[:, None] - mean) / std
    grad_mean = share[:, :, None] * z / std
    grad_std = share[:, :, None] * (z * z - 1) / std
    if std.shape[2] == 1:
        grad_std = grad_std.sum(2, keepdims=True)
    return -grad_mean.sum(1), grad_logits, grad_mean, grad_std


def gmm_log_likelihood_torch(y: Tensor, logits: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The same in eager torch, in the dtype of the inputs; a few (T, K, D) tensors are materialised."""
    z = (y.unsqueeze(1) - mean) / std
    log_det = torch.log(std).sum(2) * (mean.shape[2] // std.shape[2] if std.shape[2] else 1)
    joint = torch.log_softmax(logits, 1) - 0.5 * (z * z).sum(2) - log_det - 0.5 * math.log(2 * math.pi) * y.shape[1]
    return torch.logsumexp(joint, 1)


def linear_gmm_log_likelihood_numpy(
    x: Array, y: Array, w_logits: Array, w_mean: Array, w_std: Array,
    b_logits: Array | None = None, b_mean: Array | None = None, b_std: Array | None = None, min_std: float = 1e-3,
) -> Array:  # fmt: skip
    """(T,) in float64: the mixture density head on x (T, F), then the log-likelihood of y (T, D)."""
    x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std = _double(
        x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std
    )
    head = _head(x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std, min_std)
    return gmm_log_likelihood_numpy(*head[:4])


def linear_gmm_log_likelihood_grad_numpy(
    grad: Array, x: Array, y: Array, w_logits: Array, w_mean: Array, w_std: Array,
    b_logits: Array | None = None, b_mean: Array | None = None, b_std: Array | None = None, min_std: float = 1e-3,
) -> tuple[Array, ...]:  # fmt: skip
    """Gradients in float64 for x, y and the six parameters, in the order of the arguments (biases always included)."""
    grad, x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std = _double(
        grad, x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std
    )
    y, logits, mean, std, raw = _head(x, y, w_logits, w_mean, w_std, b_logits, b_mean, b_std, min_std)
    grad_y, grad_logits, grad_mean, grad_std = gmm_log_likelihood_grad_numpy(grad, y, logits, mean, std)
    grad_mean = grad_mean.reshape(len(x), -1)
    grad_raw = (grad_std * np.exp(-np.logaddexp(0, -raw))).reshape(len(x), -1)
    grad_x = grad_logits @ w_logits + grad_mean @ w_mean + grad_raw @ w_std
    grads = (grad_logits, grad_mean, grad_raw)
    return grad_x, grad_y, *(g.T @ x for g in grads), *(g.sum(0) for g in grads)


def linear_gmm_log_likelihood_torch(
    x: Tensor, y: Tensor, w_logits: Tensor, w_mean: Tensor, w_std: Tensor,
    b_logits: Tensor | None = None, b_mean: Tensor | None = None, b_std: Tensor | None = None, min_std: float = 1e-3,
) -> Tensor:  # fmt: skip
    """The same in eager torch, in the dtype of the inputs; means and deviations (T, K, D) are materialised."""
    shape = (x.shape[0], w_logits.shape[0], y.shape[1])
    mean = linear(x, w_mean, b_mean).view(shape)
    # A row of one number: exporters to ONNX drop a scalar of up to 1e-8 that is added.
    std = softplus(linear(x, w_std, b_std)).view(shape) + x.new_full((1,), min_std)
    return gmm_log_likelihood_torch(y, linear(x, w_logits, b_logits), mean, std)


def _head(
    x: Array, y: Array, w_logits: Array, w_mean: Array, w_std: Array,
    b_logits: Array | None, b_mean: Array | None, b_std: Array | None, min_std: float,
) -> tuple[Array, ...]:  # fmt: skip
    shape = (len(x), len(w_logits), y.shape[1])
    logits, mean, raw = (x @ w.T for w in (w_logits, w_mean, w_std))
    logits = logits if b_logits is None else logits + b_logits
    mean = (mean if b_mean is None else mean + b_mean).reshape(shape)
    raw = (raw if b_std is None else raw + b_std).reshape(shape)
    return y, logits, mean, np.logaddexp(0, raw) + min_std, raw


def _joint(y: Array, logits: Array, mean: Array, std: Array) -> Array:
    z = (y[:, None] - mean) / std
    log_det = np.broadcast_to(np.log(std), mean.shape).sum(2)
    return _log_softmax(logits) - 0.5 * (z * z).sum(2) - log_det - 0.5 * np.log(2 * np.pi) * y.shape[1]


def _log_softmax(logits: Array) -> Array:
    return logits - _logsumexp(logits)[:, None]


def _logsumexp(a: Array) -> Array:
    top = a.max(1)
    # Where every term is -inf the difference would not be a number.
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(a - shift[:, None]).sum(1)) + shift


def _double(*arrays: Any) -> tuple[Any, ...]:
    return tuple(None if a is None else np.asarray(a, dtype=np.float64) for a in arrays)
