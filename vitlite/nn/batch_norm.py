"""Batch normalisation over the whole batch, also if several processes share it."""

from typing import Any

import torch
from torch import Tensor, distributed, nn


class Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs.

    Not ``torch.distributed.nn.functional.all_reduce``: imported after ``init_process_group``, that module holds the
    process group as a default argument. The group's threads then outlive ``destroy_process_group``, and one of them can
    abort the process when the interpreter ends.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_reduced(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _all_reduced(gradient)


def _all_reduced(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, but in training with torch.distributed mean and variance are those of all processes' images together.

    torch's own SyncBatchNorm does not run on CPUs. Maps (B, C, H, W) of any size on each process; every process has to
    call it.
    """

    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor
    momentum: float

    # Whether the images of this process belong to the batch. With fewer images than processes, some processes compute
    # an image only to take part in the sums.
    counts = True

    def forward(self, x: Tensor) -> Tensor:
        alone = not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1
        if alone or not self.training:
            return super().forward(x)
        values, counts = x.float(), float(self.counts)
        number = values.new_tensor([counts * values.numel() / values.shape[1]])
        total, number = Sum.apply(torch.cat([counts * values.sum((0, 2, 3)), number])).tensor_split([-1])
        mean = total / number
        centred = values - mean[:, None, None]
        # In a second pass: the mean square less the squared mean would lose the variance of maps far from zero.
        variance = Sum.apply(counts * centred.square().sum((0, 2, 3))) / number
        self.remember(mean.detach(), variance.detach() * number / (number - 1).clamp(min=1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the statistics that evaluation uses, (C,) each, towards those of a batch."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def set_counts(module: nn.Module, counts: bool) -> None:
    """Whether this process's images count for the statistics of the batch that all processes share."""
    for part in module.modules():
        if isinstance(part, BatchNorm2d):
            part.counts = counts
