"""What a nearest-neighbour search is: the numpy oracle of the tests, its gradients, and the eager torch yardstick."""

import numpy as np
import torch
from torch import Tensor

# Scores that eager torch holds at a time.
BLOCK = 1 << 22


def nearest_numpy(q: np.ndarray, bank: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Distances (T, k) in float64 and indices (T, k) of the k nearest rows of bank (N, C) for each row of q (T, C).

    In ascending order; of equal distances the row with the lower index comes first, and what is not a number last.
    """
    q, bank = np.asarray(q, dtype=np.float64), np.asarray(bank, dtype=np.float64)
    distances = np.array([np.sqrt(((bank - row) ** 2).sum(1)) for row in q]).reshape(len(q), len(bank))
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, indices, 1), indices


def nearest_grad_numpy(grad: np.ndarray, q: np.ndarray, bank: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Gradients for q (T, C) and bank (N, C) in float64, given that of the distances (T, k); that of a 0 is 0."""
    q, bank, grad = (np.asarray(a, dtype=np.float64) for a in (q, bank, grad))
    distances, indices = nearest_numpy(q, bank, k)
    apart = q[:, None] - bank[indices]
    parts = (grad / np.where(distances == 0, np.inf, distances))[:, :, None] * apart
    grad_bank = np.zeros_like(bank)
    np.subtract.at(grad_bank, indices, parts)
    return parts.sum(1), grad_bank


def nearest_torch(q: Tensor, bank: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The same in eager torch, in the dtype of the inputs, by blocks of queries.

    Rows are compared by |b|^2 / 2 - q b, which is half of their squared distance but for what is the same for all; the
    distances of those that are found come from the differences.
    """
    with torch.no_grad():
        half_norms = bank.square().sum(1) / 2
        # What is traced holds for every number of queries: all of them at once.
        rows = q.shape[0] if torch.compiler.is_compiling() else max(1, BLOCK // bank.shape[0])
        starts = [0] if torch.compiler.is_compiling() else range(0, max(1, q.shape[0]), rows)
        found = [_smallest(half_norms - q[start : start + rows] @ bank.t(), k) for start in starts]
        # By index first: where distances are equal a stable sort leaves them so.
        indices = torch.cat(found).sort(1).values if k > 1 else torch.cat(found)
    distances = torch.linalg.vector_norm(q[:, None] - bank[indices], dim=2)
    if k == 1:
        return distances, indices
    distances, order = distances.sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


def _smallest(scores: Tensor, k: int) -> Tensor:
    """Columns of the k smallest of each row, the first ones of equal scores; what is not a number is above all."""
    scores = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    if k == 1:
        return scores.min(1, keepdim=True).indices
    return scores.sort(dim=1, stable=True).indices[:, :k]
