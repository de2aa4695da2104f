"""From anomaly maps to what is compared with a threshold: each place against good images, and one score an image."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_TOP = {"top1": 0.01, "top10": 0.1}  # shares of the pixels


def score_of(maps: Tensor, how: str) -> Tensor:
    """Maps (B, H, W) to one score each (B,).

    ``how``: max, top1 or top10 (the mean of the highest 1 % or 10 % of the pixels, at least one), mean, or std.
    """
    pixels = maps.flatten(1)
    if how in _TOP:
        count = max(1, round(_TOP[how] * pixels.shape[1]))
        return pixels.topk(count, sorted=False).values.mean(1)
    if how == "std":
        return pixels.std(1, correction=0)
    return pixels.amax(1) if how == "max" else pixels.mean(1)


class Places(nn.Module):
    """Compares the anomaly at each place with that of good images at the same place.

    ``how``: none; mean (less the mean of good images there); or scaled (also in units of their deviation there). The
    statistics are buffers of shape ``shape``: 0 and 1, which change nothing, until :meth:`learn` sets them. ``least``
    is added to every deviation, because a small change would count for everything where good images hardly vary; by
    default it is half the median of the deviations.
    """

    level: Tensor
    scale: Tensor

    def __init__(self, how: str, shape: tuple[int, int], least: float | None = None) -> None:
        super().__init__()
        self.how, self.least = how, least
        if how != "none":
            self.register_buffer("level", torch.zeros(shape))
        if how == "scaled":
            self.register_buffer("scale", torch.ones(shape))

    def learn(self, batches: Iterable[Tensor]) -> None:
        """Take the statistics of good images, from batches of their values (B, H, W)."""
        if self.how == "none":
            return
        count = 0
        total = torch.zeros_like(self.level, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for values in batches:
            count += len(values)
            total += values.sum(0, dtype=torch.float64)
            squares += values.double().square().sum(0)
        mean = total / count
        self.level.copy_(mean)
        if self.how == "scaled":
            deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
            self.scale.copy_(deviation + (deviation.median() / 2 if self.least is None else self.least))

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, H, W) to the same shape."""
        if self.how == "none":
            return values
        values = values - self.level
        return values / self.scale if self.how == "scaled" else values
