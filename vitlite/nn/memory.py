"""A memory of normal patterns that stands between an encoder and a decoder (Gong et al., 2019)."""

import torch
from torch import Tensor, nn

from vitlite.kernels import memory_read
from vitlite.nn.portable import operator_backend


class MemoryModule(nn.Module):
    """Tokens (B, L, C) to what the memory knows of each, (B, L, C), and the entropy of its weights (B, L).

    Cosine similarity, softmax, hard shrinkage at 1 / items, L1 norm, weighted sum: equations 7 to 10 of MemCA. If
    shrinkage removes all weights of a token, the result is zeros, with entropy 0.
    """

    def __init__(self, items: int, channels: int) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.empty(items, channels))
        # As the published memory autoencoder starts: uniform within 1 / sqrt(C).
        nn.init.uniform_(self.items, -(channels**-0.5), channels**-0.5)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        output, entropy = memory_read(tokens.flatten(0, 1), self.items, backend=operator_backend())
        return output.unflatten(0, tokens.shape[:2]), entropy.unflatten(0, tokens.shape[:2])
