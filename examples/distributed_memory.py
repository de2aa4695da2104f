"""A memory trained by two processes: ``torchrun --nproc-per-node 2 examples/distributed_memory.py``.

Each process takes its part of the batch. DistributedDataParallel averages the gradients, which are then those of one
process with the whole batch.
"""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vitlite.kernels import MemoryRead


class Autoencoder(nn.Module):
    """Tokens to a narrow code, what a memory knows of it, and back."""

    def __init__(self):
        super().__init__()
        self.down, self.memory, self.up = nn.Linear(32, 16), MemoryRead(50, 16, temperature=0.1), nn.Linear(16, 32)

    def forward(self, tokens):
        """The loss of tokens (B, 32)."""
        read, entropy = self.memory(self.down(tokens))
        return (self.up(read) - tokens).square().mean() + 0.001 * entropy.mean()


def main():
    """The largest difference between the gradients of all processes together and of one alone."""
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(0)
    model, tokens = Autoencoder(), torch.randn(24, 32)

    together = DistributedDataParallel(model)
    together(tokens.chunk(size)[rank]).backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]

    model.zero_grad()
    model(tokens).backward()
    difference = max(float((a - p.grad).abs().max()) for a, p in zip(found, model.parameters()))
    print(f"process {rank} of {size}: the gradients differ by at most {difference:.1e}")
    torch.distributed.destroy_process_group()
    return difference


if __name__ == "__main__":
    assert main() < 1e-6
