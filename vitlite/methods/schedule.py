"""How long each stage of a training takes, at which rates, and with which optimiser."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitlite.errors import UserError
from vitlite.methods.base import Method, Stage
from vitlite.methods.config import TrainingConfig
from vitlite.nn.batch_norm import BatchNorm2d
from vitlite.nn.stable_adamw import StableAdamW

AVERAGE = "average"  # of a parameter, in the optimiser's state


def plan_stages(stages: Sequence[Stage], config: TrainingConfig, images: int) -> list[Stage]:
    """The stages with the epochs that they get: their own, or their part of ``config.steps``."""
    if not config.steps:
        return list(stages)
    whole = sum(stage.epochs for stage in stages)
    parts = [stage.epochs / whole for stage in stages]
    most = config.max_epochs or math.inf
    return [
        replace(
            stage, epochs=max(1, round(min(config.steps * part / stage.steps_per_epoch(images, config), most * part)))
        )
        for stage, part in zip(stages, parts)
    ]


def same_steps(stage: Stage, config: TrainingConfig, images: int, fewer: int) -> Stage:
    """A stage that was planned for ``images``, with the epochs in which ``fewer`` images take as many steps."""
    steps = stage.epochs * stage.steps_per_epoch(images, config)
    return replace(stage, epochs=max(1, round(steps / stage.steps_per_epoch(fewer, config))))


def planned(method: Method, config: TrainingConfig, images: int) -> list[Stage]:
    """The stages that a method has with another config of its own."""
    own, method.config = method.config, config
    try:
        return plan_stages(method.stages(), config, images)
    finally:
        method.config = own


def continued(old: list[int], new: list[int], stage: int, epoch: int) -> tuple[int, int] | None:
    """Where a run goes on if the epochs of its stages change: (stage, epoch); None if it has had all of the new ones.

    ``stage`` and ``epoch`` say what it would train next. A finished run goes on with the last stage that is longer now.
    """
    if stage == len(new):
        longer = [i for i, epochs in enumerate(new) if epochs > old[i]]
        return (longer[-1], old[longer[-1]]) if longer else None
    if new[stage] < epoch or new[stage:] == old[stage:]:
        return None
    return stage, epoch


def make_optimizer(method: Method, stage: Stage, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser over the parameters that a stage trains; weight decay on weight matrices only."""
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and name.startswith(tuple(stage.trains)):
            matrix = parameter.ndim > 1 and name.endswith("weight")
            (decayed if matrix else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    betas = (config.beta1, config.beta2)
    if config.optimizer == "stableadamw":
        return StableAdamW(groups, lr=config.lr, betas=betas)
    if config.optimizer != "muon":
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
        return kind(groups, lr=config.lr, betas=betas, fused=True)
    matrices = [p for p in decayed if p.ndim == 2]
    groups[0]["params"] = [p for p in decayed if p.ndim != 2]
    parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)]
    if matrices:
        # As the update of AdamW in size, so that both take one rate.
        parts.append(
            torch.optim.Muon(matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    return Joined(parts)


class Joined(torch.optim.Optimizer):
    """Several optimisers, each of its own parameters, as one with their groups and their state."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def _share(self) -> None:
        """Let the parts have the groups and the state of the whole."""
        first = 0
        for part in self.parts:
            last = first + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[first:last], self.state
            first = last

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self) -> None:  # type: ignore[override]
        """One step of each."""
        for part in self.parts:
            part.step()


def refuse_average(method: Method, config: TrainingConfig) -> None:
    """``UserError`` for averaged weights with batch norm, whose running statistics are those of other weights."""
    if config.average and any(isinstance(part, BatchNorm2d) for part in method.modules()):
        raise UserError(
            f"`average={config.average:g}`: not with batch norm, which keeps the statistics of weights that are not "
            "averaged; give 0"
        )


@torch.no_grad()
def average_weights(optimizer: torch.optim.Optimizer, decay: float, step: int) -> None:
    """Update the exponential average of the weights, which the optimiser's state holds beside its moments.

    ``step`` counts from 0; the first steps decay faster, so that the weights at the start have no part in the end.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p in optimizer.state]
    averages = [optimizer.state[p].setdefault(AVERAGE, p.detach().clone()) for p in parameters]
    share = 1 - min(decay, (1 + step) / (10 + step))
    if averages:
        torch._foreach_lerp_(averages, parameters, share)


@torch.no_grad()
def use_average(optimizer: torch.optim.Optimizer) -> None:
    """Give the parameters of an optimiser their averages."""
    for parameter, state in optimizer.state.items():
        parameter.copy_(state[AVERAGE])


def learning_rate(config: TrainingConfig, step: int, steps_per_epoch: int, total: int, period: int = 0) -> float:
    """Share of the peak rate: linear warm-up from 0, then constant or a half cosine; ``step`` counts from 0.

    With a ``period``, in steps, the share falls and rises again within so many: a whole cosine, again and again.
    """
    warmup = config.warmup_steps or config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    last = config.last_lr / config.lr
    half = period / 2 if period else max(total - warmup, 1)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / half))
