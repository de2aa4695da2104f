"""What reading from the memory is: the numpy oracle of the tests, its gradients, and the eager torch yardstick.

The operator is the addressing of Gong et al. 2019 (MemAE), equations 3 to 7: cosine similarity, softmax, hard
shrinkage and L1 normalisation, with their entropy (equation 9). The paper writes the shrinkage of a weight w as
relu(w - t) w / (|w - t| + eps). Next to t its derivative is w / eps: in float32 this makes gradients 8 to 120 times too
large. Here it is the limit of a small eps: w above t, with slope 1, and 0 at or below t.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

# A vector shorter than this counts as this long in the cosine, as in torch.nn.functional.cosine_similarity: an
# all-zero row then has cosine 0 with everything.
NORM_EPS = 1e-8


def shrinkage_limit(threshold: float | None, items: int, dtype: torch.dtype) -> float:
    """The weight, computed in ``dtype``, up to which all are at the threshold; None is 1 / items.

    It is 8 units of rounding above: N equal weights are then at 1 / N, however each of them was rounded.
    """
    return (1 / items if threshold is None else threshold) * (1 + 8 * torch.finfo(dtype).eps)


def memory_read_numpy(
    z: np.ndarray, items: np.ndarray, threshold: float | None = None, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Output (T, C) and entropy (T,) in float64 of z (T, C) read from items (N, C)."""
    z, items = np.asarray(z, dtype=np.float64), np.asarray(items, dtype=np.float64)
    weights = _weights(z, items, threshold, temperature)
    return weights @ items, -_xlogx(weights).sum(1)


def memory_read_grad_numpy(
    grad_output: np.ndarray,
    grad_entropy: np.ndarray,
    z: np.ndarray,
    items: np.ndarray,
    threshold: float | None = None,
    temperature: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients for z (T, C) and items (N, C) in float64, given those of the output (T, C) and the entropy (T,)."""
    z, items = np.asarray(z, dtype=np.float64), np.asarray(items, dtype=np.float64)
    grad_output, grad_entropy = np.asarray(grad_output, np.float64), np.asarray(grad_entropy, np.float64)
    weights = _weights(z, items, threshold, temperature)

    log = np.log(np.where(weights > 0, weights, 1.0))
    grad = grad_output @ items.T - grad_entropy[:, None] * (log + 1)
    # The weights are the softmax of the scores of what is kept.
    grad = temperature * weights * (grad - (grad * weights).sum(1, keepdims=True))

    grad_z = _unit_grad(grad @ _unit(items), z)
    grad_items = weights.T @ grad_output + _unit_grad(grad.T @ _unit(z), items)
    return grad_z, grad_items


def memory_weights_torch(z: Tensor, items: Tensor, threshold: float | None = None, temperature: float = 1.0) -> Tensor:
    """The weights (T, N) of the items, in eager torch: each row adds up to 1, or to 0 if all are shrunk away."""
    unit_z, unit_items = normalize(z, dim=1, eps=NORM_EPS), normalize(items, dim=1, eps=NORM_EPS)
    weights = torch.softmax(temperature * unit_z @ unit_items.t(), dim=1)
    weights = weights.masked_fill(weights <= shrinkage_limit(threshold, items.shape[0], weights.dtype), 0.0)
    total = weights.sum(1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1.0)


def memory_read_torch(
    z: Tensor, items: Tensor, threshold: float | None = None, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The same in eager torch, in the dtype of the inputs; several (T, N) matrices are materialised."""
    weights = memory_weights_torch(z, items, threshold, temperature)
    # The logarithm of a weight that is shrunk away must not reach the gradient: 0 times infinity.
    entropy = -(weights * torch.log(weights.masked_fill(weights == 0, 1.0))).sum(1)
    return weights @ items, entropy


def _weights(z: np.ndarray, items: np.ndarray, threshold: float | None, temperature: float) -> np.ndarray:
    scores = temperature * _unit(z) @ _unit(items).T
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    softmax = exponentials / exponentials.sum(1, keepdims=True)
    kept = np.where(softmax <= shrinkage_limit(threshold, len(items), torch.float64), 0.0, softmax)
    total = kept.sum(1, keepdims=True)
    return kept / np.where(total == 0, 1.0, total)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), NORM_EPS)


def _unit_grad(grad: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gradient for x, given the gradient of x / max(|x|, NORM_EPS)."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit = _unit(x)
    along = np.where(norm > NORM_EPS, (grad * unit).sum(1, keepdims=True) * unit, 0.0)
    return (grad - along) / np.maximum(norm, NORM_EPS)


def _xlogx(w: np.ndarray) -> np.ndarray:
    return w * np.log(np.where(w > 0, w, 1.0))
