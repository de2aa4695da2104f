"""What methods on frozen features share: the backbone, its maps at one size, and the statistics of their channels."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite import backbones
from vitlite.backbones import Backbone
from vitlite.images.tiles import Size, fitted, sides
from vitlite.methods.base import Method
from vitlite.methods.config import AUTO, NONE, TrainingConfig


@dataclass(frozen=True)
class FeatureConfig(TrainingConfig):
    """Which features: of which network, from which of its maps, at which size."""

    backbone: str = "efficientnet_b4"
    weights: str = "auto"
    strides: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    feature_size: Size = 32
    resize: str = "bilinear"  # area: (ours)
    normalize: str = "none"  # channel: (ours)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the fused feature map."""
        height, width = self.image_shape
        if isinstance(self.feature_size, tuple) or height == width:
            return sides(self.feature_size)
        return fitted(self.feature_size, height / width, self.grid_multiple)

    @property
    def grid_multiple(self) -> int:
        """What rows and columns are multiples of."""
        return 1

    @property
    def cell(self) -> float:
        return (math.prod(self.image_shape) / math.prod(self.grid)) ** 0.5

    def shaped(self, ratio: float) -> Self:
        """As of every method; all places then are squares of the same size."""
        if isinstance(self.feature_size, tuple):
            self.refuse("feature_size", "image_size=keep chooses rows and columns; give one number")
        rows, columns = fitted(self.feature_size, ratio, self.grid_multiple)
        height, width = round(rows * self.cell), round(columns * self.cell)
        return replace(self, image_size=(height, width), feature_size=(rows, columns))

    def check(self) -> None:
        super().check()
        self.one_of("backbone", backbones.available())
        self.one_of("normalize", ("none", "channel"))
        self.one_of("resize", ("bilinear", "area"))
        self.at_least(1, "feature_size")
        self.limit_places(math.prod(sides(self.feature_size)), "feature_size", "less")

    def refuse_idle(self, given: Collection[str]) -> None:
        super().refuse_idle(given)
        if self.backbone == "image" and "weights" in given and self.weights not in (AUTO, NONE):
            self.refuse("weights", "does nothing with backbone=image, which has no weights")


# What the quick presets of methods on frozen features share: how good images serve the score and the threshold ...
QUICK_HEAD: dict[str, Any] = {
    "score": "auto",
    "places": "auto",
    "edge": "even",
    "holdout": 0.2,
    "folds": 4,
    "folds_below": 1000,
}
# ... and the features themselves, so that the methods can be compared.
QUICK_FEATURES: dict[str, Any] = {
    **QUICK_HEAD,
    "backbone": "efficientnet_lite2",
    "normalize": "channel",
    "resize": "area",
}


def resized(feature: Tensor, grid: tuple[int, int], how: str = "area") -> Tensor:
    """A map (B, C, H, W) at the size of a grid: means of areas if that makes it smaller, or bilinear."""
    if feature.shape[-2:] == grid:
        return feature
    if how == "area" and all(own >= wanted for own, wanted in zip(feature.shape[-2:], grid)):
        return F.adaptive_avg_pool2d(feature, grid)
    return F.interpolate(feature, size=grid, mode="bilinear", align_corners=False)


class ChannelStatistics:
    """Mean and deviation of each channel of maps (B, C, h, w)."""

    def __init__(self) -> None:
        self.count = 0
        self.total = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Count a batch."""
        x = features.double()
        self.count += x.numel() // x.shape[1]
        self.total = self.total.to(x.device) + x.sum((0, 2, 3))
        self.squares = self.squares.to(x.device) + x.square().sum((0, 2, 3))

    def of_all(self) -> tuple[Tensor, Tensor]:
        """(mean, deviation), float64 (C,); a channel that never varies (a dead ReLU) has deviation 1."""
        mean = self.total / self.count
        std = (self.squares / self.count - mean.square()).clamp_min(0).sqrt()
        return mean, torch.where(std > 1e-6, std, torch.ones_like(std))


class FusedCopy:
    """The copy of a backbone that is for inference alone, made on first use.

    It is no ``nn.Module``, so that the copy stays out of a method's parameters and its checkpoint.
    """

    def __init__(self) -> None:
        self.copy: nn.Module | None = None

    def of(self, backbone: Backbone, device: torch.device) -> nn.Module:
        """The copy, on the device of its first use."""
        if self.copy is None:
            self.copy = backbone.fused().to(device).eval()
        return self.copy

    def forget(self) -> None:
        """Make it anew on the next use, because the backbone changes."""
        self.copy = None


class FeatureMethod(Method):
    """A method whose ``frozen`` features are the maps of a backbone, at one size and concatenated."""

    config: FeatureConfig
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: FeatureConfig, weights: str | None = None) -> None:
        super().__init__(config, weights)
        c = config
        self.backbone = backbones.create(
            c.backbone, weights=weights or c.weights, strides=c.strides or None, layers=c.layers or None
        )
        self.extractor = FusedCopy()
        channels = sum(self.backbone.channels)
        self.register_buffer("feature_mean", torch.zeros(channels))
        self.register_buffer("feature_std", torch.ones(channels))

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        self.extractor.forget()
        return super().load_state_dict(*args, **options)

    @torch.no_grad()
    def frozen(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w): all stages at one size, concatenated."""
        c = self.config
        maps = (
            resized(self.prepared(f), c.grid, c.resize) for f in self.extractor.of(self.backbone, images.device)(images)
        )
        return torch.cat(list(maps), dim=1).contiguous()

    def prepared(self, feature: Tensor) -> Tensor:
        """A map of the backbone as it is resized. Default: the map itself."""
        return feature

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Mean and deviation of every feature channel over the training set, for ``normalize = channel``."""
        if self.config.normalize != "channel":
            return
        statistics = ChannelStatistics()
        for features in batches:
            statistics.add(features)
        self.learn(statistics)

    def learn(self, statistics: ChannelStatistics) -> None:
        """Take the statistics of the training set."""
        mean, std = statistics.of_all()
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)

    def normalized(self, features: Tensor) -> Tensor:
        if self.config.normalize == "none":
            return features.float()
        return (features - self.feature_mean[:, None, None]) / self.feature_std[:, None, None]
