"""The memory of MemCA, for graphs that are exported as well."""

import torch
from torch import Tensor

from vitlite.kernels import MemoryRead
from vitlite.kernels.memory.reference import memory_weights_torch
from vitlite.nn.portable import Portable


class MemoryModule(Portable, MemoryRead):
    """:class:`vitlite.kernels.MemoryRead`, by torch's operators while a graph is exported."""

    @torch.no_grad()
    def use(self, tokens: Tensor) -> dict[str, Tensor]:
        """How many items are read for tokens (..., channels), as scalars.

        ``items_read``: for one token, on average; ``items_used``: for any of them; ``items_effective``: the exponential
        of the entropy of the mean weights, which is the number of items if all have the same part in what is read.
        """
        flat = tokens.reshape(-1, tokens.shape[-1]).float()
        weights = memory_weights_torch(flat, self.items.float(), self.threshold, self.temperature)
        read, mean = weights > 0, weights.mean(0)
        entropy = -torch.special.xlogy(mean, mean).sum()
        return {
            "items_read": read.float().sum(1).mean(),
            "items_used": read.any(0).float().sum(),
            "items_effective": entropy.exp(),
        }
