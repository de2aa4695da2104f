"""What attention is: the numpy oracle of the tests, and the eager torch yardstick."""

import numpy as np
import torch
from torch import Tensor


def attention_numpy(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float | None = None) -> np.ndarray:
    """softmax(q k^T scale) v in float64 (Vaswani et al. 2017, eq. 1), shapes as in ``attention``."""
    q, k, v = (np.asarray(a, dtype=np.float64) for a in (q, k, v))
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    scores = np.einsum("bhnd,bhmd->bhnm", q, k) * scale
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhnm,bhme->bhne", weights / weights.sum(-1, keepdims=True), v)


def attention_torch(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """The same in eager torch, in the dtype of the inputs; the weights (B, H, N, M) are materialised."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return torch.softmax(torch.matmul(q * scale, k.transpose(-2, -1)), dim=-1).matmul(v)
