"""From anomaly maps to what is compared with a threshold: each place against good images, and one score an image."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

_TOP = {"top1": 0.01, "top10": 0.1}  # shares of the pixels
WITHOUT_PLACES = {"rms": "max"}  # what stands in for a score that means little if places are not compared


def score_of(maps: Tensor, how: str) -> Tensor:
    """Maps (B, H, W) to one score each (B,).

    ``how``: max, top1 or top10 (the mean of the highest 1 % or 10 % of the pixels, at least one), mean, std, or rms: as
    std, but about 0 if the mean is above it. In maps whose places were compared 0 is the level of good images, so rms
    also sees what is anomalous everywhere, which does not deviate from its own mean.
    """
    pixels = maps.flatten(1)
    if how in _TOP:
        count = max(1, round(_TOP[how] * pixels.shape[1]))
        return pixels.topk(count, sorted=False).values.mean(1)
    if how == "std":
        return pixels.std(1, correction=0)
    if how == "rms":
        level = pixels.mean(1, keepdim=True).clamp(max=0)
        return (pixels - level).square().mean(1).sqrt()
    return pixels.amax(1) if how == "max" else pixels.mean(1)


class PlaceStatistics:
    """The mean and the deviation, at every place, of good images' values (B, H, W): of all, or of all but some.

    A place may have several values: then all shapes are (..., H, W) instead of (H, W).

    ``least`` is added to every deviation, because a small change would count for everything where good images hardly
    vary; by default it is the mean of the deviations.
    """

    def __init__(self, shape: Sequence[int], least: float | None = None) -> None:
        self.count, self.least = 0, least
        self.total = torch.zeros(shape, dtype=torch.float64)
        self.squares = torch.zeros(shape, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Count a batch."""
        values = values.double().cpu()
        self.count += len(values)
        self.total += values.sum(0)
        self.squares += values.square().sum(0)

    def of_all(self) -> tuple[Tensor, Tensor]:
        """(mean, scale), float32 (H, W), of what was added; ``scale`` is the deviation with ``least``."""
        return self._finish(self.total, self.squares, self.count)

    def without(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, scale), float32 (B, H, W), of all that was added but one: each of ``values`` (B, H, W) in turn."""
        values = values.double().cpu()
        return self._finish(self.total - values, self.squares - values.square(), self.count - 1)

    def without_parts(self, parts: Sequence[Self]) -> tuple[Tensor, Tensor]:
        """As :meth:`without`, of all that was added but several values: each of ``parts``, which has these alone."""
        total, squares = (torch.stack([getattr(p, name) for p in parts]) for name in ("total", "squares"))
        count = torch.tensor([p.count for p in parts], dtype=torch.float64).view(-1, *[1] * self.total.ndim)
        return self._finish(self.total - total, self.squares - squares, self.count - count)

    def _finish(self, total: Tensor, squares: Tensor, count: int | Tensor) -> tuple[Tensor, Tensor]:
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        least = deviation.mean((-2, -1), keepdim=True) if self.least is None else self.least
        return mean.float(), (deviation + least).float()


class Places(nn.Module):
    """Compares the anomaly at each place with that of good images at the same place.

    ``how``: none; mean (less the mean of good images there); scaled (also in units of their deviation there); or
    absolute (the same without its sign: what is unusually low counts too). The statistics are buffers of shape
    ``shape``: 0 and 1, which change no value, until :meth:`learn` sets them; ``least`` as for :class:`PlaceStatistics`.
    """

    level: Tensor
    scale: Tensor

    def __init__(self, how: str, shape: Sequence[int], least: float | None = None) -> None:
        super().__init__()
        self.how, self.least = how, least
        self.register_buffer("level", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def learn(self, statistics: PlaceStatistics) -> None:
        """Take the statistics of good images."""
        level, scale = statistics.of_all()
        self.level.copy_(level)
        self.scale.copy_(scale)

    @property
    def learned(self) -> bool:
        """Whether the statistics are those of images; if not, every ``how`` gives the values themselves."""
        return bool(self.level.any() or (self.scale != 1).any())

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, H, W) to the same shape."""
        return compare(values, self.how, self.level, self.scale)


def compare(values: Tensor, how: str, level: Tensor, scale: Tensor) -> Tensor:
    """Values (B, H, W) compared with good images' ``level`` and ``scale`` there, as :class:`Places` says."""
    if how == "none":
        return values
    if how == "mean":
        return values - level
    scaled = (values - level) / scale
    return scaled.abs() if how == "absolute" else scaled
