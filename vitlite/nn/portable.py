"""What an exported graph is made of: operators that every runtime has."""

import torch
from torch import Tensor

ROWS = 1024  # of a bank that are compared with at a time: their scores stay in the cache
COMPARED = 4  # rows, the best of their blocks, whose distances are computed, or as many as are wanted


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
    """``vitlite.kernels.nearest`` for a graph that is exported: by blocks of the bank, and without a sort.

    The product of a block may be in lower precision: the best of the blocks are compared by their distances.
    """
    scores, indices = [], []
    for start in range(0, len(bank), ROWS):
        rows = bank[start : start + ROWS]
        # The sign is that of the rows: a constant, while a product with -1 would be one more pass over all scores.
        own = (q @ (-rows).t() + rows.square().sum(1) / 2).topk(min(k, len(rows)), largest=False)
        scores.append(own.values)
        indices.append(own.indices + start)
    found = torch.cat(indices, 1)
    if found.shape[1] > max(k, COMPARED):
        best = torch.cat(scores, 1).topk(max(k, COMPARED), largest=False).indices
        found = found.gather(1, best)
    distances = torch.linalg.vector_norm(q[:, None] - bank[found], dim=2)
    nearest = distances.topk(k, largest=False)
    return nearest.values, found.gather(1, nearest.indices)
