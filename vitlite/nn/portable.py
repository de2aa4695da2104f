"""What an exported graph is made of: operators that every runtime has."""

import torch
from torch import Tensor

ROWS = 2048  # of a bank that are compared with at a time


def operator_backend() -> str:
    """``backend=`` for the fused operators: their own choice, or torch's operators while a graph is exported.

    An exported file is run where vitlite is not installed.
    """
    return "eager" if torch.compiler.is_exporting() else "auto"


class Portable:
    """What a module that calls an operator takes as its backend, if it comes first among the module's bases."""

    def chosen_backend(self) -> str:
        """``operator_backend()``."""
        return operator_backend()


def nearest_rows(q: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``vitlite.kernels.nearest`` for a graph that is exported: by blocks of the bank, and without a sort."""
    scores, indices = [], []
    for start in range(0, len(bank), ROWS):
        rows = bank[start : start + ROWS]
        own = torch.addmm(rows.square().sum(1) / 2, q, rows.t(), alpha=-1).topk(min(k, len(rows)), largest=False)
        scores.append(own.values)
        indices.append(own.indices + start)
    best = torch.cat(scores, 1).topk(k, largest=False).indices
    found = torch.cat(indices, 1).gather(1, best)
    return torch.linalg.vector_norm(q[:, None] - bank[found], dim=2), found
