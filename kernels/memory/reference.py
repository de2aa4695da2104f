"""What reading from the memory is: the numpy oracle of the tests, its gradients, and the eager torch yardstick.

The operator is the addressing of Gong et al. 2019 (MemAE), equations 3 to 7: cosine similarity, softmax, hard
shrinkage and L1 normalisation, with their entropy (equation 9).
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

# A vector shorter than this counts as this long in the cosine, as in torch.nn.functional.cosine_similarity: an
# all-zero row then has cosine 0 with everything.
NORM_EPS = 1e-8


def memory_read_numpy(
    z: np.ndarray, items: np.ndarray, threshold: float | None = None, eps: float = 1e-12
) -> tuple[np.ndarray, np.ndarray]:
    """Output (T, C) and entropy (T,) in float64 of z (T, C) read from items (N, C)."""
    z, items = np.asarray(z, dtype=np.float64), np.asarray(items, dtype=np.float64)
    weights = _weights(z, items, threshold, eps)["normalised"]
    return weights @ items, -_xlogx(weights).sum(1)


def memory_read_grad_numpy(
    grad_output: np.ndarray,
    grad_entropy: np.ndarray,
    z: np.ndarray,
    items: np.ndarray,
    threshold: float | None = None,
    eps: float = 1e-12,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients for z (T, C) and items (N, C) in float64, given those of the output (T, C) and the entropy (T,)."""
    z, items = np.asarray(z, dtype=np.float64), np.asarray(items, dtype=np.float64)
    grad_output, grad_entropy = np.asarray(grad_output, np.float64), np.asarray(grad_entropy, np.float64)
    step = _weights(z, items, threshold, eps)
    softmax, normalised, gap, total = step["softmax"], step["normalised"], step["gap"], step["total"]
    kept = gap > 0

    log = np.log(np.where(normalised > 0, normalised, 1.0))
    grad = grad_output @ items.T - np.where(kept, grad_entropy[:, None] * (log + 1), 0.0)
    along = np.where(total > eps, (grad * normalised).sum(1, keepdims=True), 0.0)
    grad = (grad - along) / np.maximum(total, eps)
    slope = gap / (np.abs(gap) + eps) + softmax * eps / (np.abs(gap) + eps) ** 2
    grad = np.where(kept, grad * slope, 0.0)
    grad = softmax * (grad - (grad * softmax).sum(1, keepdims=True))

    grad_z = _unit_grad(grad @ step["unit_items"], z)
    grad_items = normalised.T @ grad_output + _unit_grad(grad.T @ step["unit_z"], items)
    return grad_z, grad_items


def memory_read_torch(
    z: Tensor, items: Tensor, threshold: float | None = None, eps: float = 1e-12
) -> tuple[Tensor, Tensor]:
    """The same in eager torch, in the dtype of the inputs; several (T, N) matrices are materialised."""
    threshold = 1 / items.shape[0] if threshold is None else threshold
    weights = torch.softmax(normalize(z, dim=1, eps=NORM_EPS) @ normalize(items, dim=1, eps=NORM_EPS).t(), dim=1)
    gap = weights - threshold
    weights = torch.relu(gap) * weights / (gap.abs() + eps)
    weights = normalize(weights, p=1.0, dim=1, eps=eps)
    # The logarithm of a weight that is shrunk away must not reach the gradient: 0 times infinity.
    entropy = -(weights * torch.log(torch.where(weights > 0, weights, 1.0))).sum(1)
    return weights @ items, entropy


def _weights(z: np.ndarray, items: np.ndarray, threshold: float | None, eps: float) -> dict[str, np.ndarray]:
    threshold = 1 / len(items) if threshold is None else threshold
    unit_z, unit_items = _unit(z), _unit(items)
    exponentials = np.exp(unit_z @ unit_items.T)
    softmax = exponentials / exponentials.sum(1, keepdims=True)
    gap = softmax - threshold
    shrunk = np.maximum(gap, 0.0) * softmax / (np.abs(gap) + eps)
    total = shrunk.sum(1, keepdims=True)
    normalised = shrunk / np.maximum(total, eps)
    return {
        "unit_z": unit_z,
        "unit_items": unit_items,
        "softmax": softmax,
        "gap": gap,
        "total": total,
        "normalised": normalised,
    }


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
