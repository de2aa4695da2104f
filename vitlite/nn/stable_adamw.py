"""StableAdamW (Wortsman et al., 2023): AdamW whose steps are shortened if the second moment lags behind."""

from typing import Any

import torch
from torch.optim import Optimizer


class StableAdamW(Optimizer):
    """AdamW with AMSGrad; a tensor's step is divided by the RMS of its normalised gradient if that is above 1.

    The normalised gradient is the gradient divided by the root of the second moment, which is what the step would be
    without momentum. The defaults are Dinomaly's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-10,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step over all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if "step" not in state:
            state["step"] = 0
            for key in ("mean", "squares", "most"):
                state[key] = torch.zeros_like(parameter)
        state["step"] += 1
        mean, squares, most = state["mean"], state["squares"], state["most"]
        mean.lerp_(gradient, 1 - beta1)
        squares.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        torch.maximum(most, squares, out=most)
        root = most.sqrt().div_((1 - beta2 ** state["step"]) ** 0.5).add_(group["eps"])
        above = (gradient / root).square_().mean().sqrt_().clamp_min_(1)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(mean / root * (group["lr"] / (1 - beta1 ** state["step"]) / above))
