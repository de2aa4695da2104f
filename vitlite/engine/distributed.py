"""Training on several processes: ``torchrun --nproc-per-node N -m vitlite train ...``.

Every process holds the whole method and takes its part of each batch; gradients are summed. What a method draws for a
whole batch (SIVT's split into subsets) is the same in all of them, and the loss curve is that of one process. Batch
norms take their statistics from all processes. What a method draws for each image (ISSTAD's corruption, augmentation,
VT-ADL's noise) differs from process to process, and comes from the step's own seed, so that a resumed run draws it too.
"""

import os
from dataclasses import dataclass

import torch
from torch import distributed

from vitlite.engine.device import pick_device


@dataclass(frozen=True)
class Team:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self):
        """Whether this process writes and prints."""
        return self.rank == 0

    def part(self, indices):
        """This process's part of a batch, and how many of its images count: 0 where there are fewer than processes.

        A process without an image computes the first one for nothing, to draw the same random numbers as the others.
        """
        own = indices.tensor_split(self.size)[self.rank]
        return (own, len(own)) if len(own) else (indices[:1], 0)

    def wait(self):
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def add_up(self, parameters, values):
        """Sum gradients in place over all processes; returns the sums of the dict of floats ``values``."""
        if self.size == 1:
            return values
        gradients = [p.grad for p in parameters if p.grad is not None]
        numbers = torch.tensor(list(values.values()), dtype=torch.float32, device=gradients[0].device)
        flat = torch.cat([g.reshape(-1).float() for g in gradients] + [numbers])
        distributed.all_reduce(flat)
        *sums, numbers = flat.split([g.numel() for g in gradients] + [len(values)])
        for gradient, total in zip(gradients, sums):
            gradient.copy_(total.view_as(gradient))
        return dict(zip(values, numbers.tolist()))


def join(device):
    """The team that torchrun started this process in (alone without torchrun), and this process's device."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not distributed.is_available():
        return Team(), pick_device(device)
    device = pick_device(device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Team(distributed.get_rank(), size), device


def leave(team):
    """End the team."""
    if team.size > 1:
        distributed.destroy_process_group()
