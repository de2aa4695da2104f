"""Dinomaly: reconstruction of a vision transformer's tokens by linear attention (Guo et al., CVPR 2025).

A frozen transformer gives tokens of eight blocks. Their mean, made noisy by dropout, passes a bottleneck, and blocks of
linear attention, which cannot attend to single places, reconstruct the tokens: not one map each, but two groups of
them. The loss lets go of what is reconstructed well already, so that the decoder does not learn to copy everything.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite import backbones
from vitlite.backbones.vit import NETWORKS, Network, VisionBackbone
from vitlite.images.tiles import Size, sides
from vitlite.methods.base import Method
from vitlite.methods.config import CropConfig
from vitlite.methods.frozen import QUICK_HEAD
from vitlite.methods.kinds import ImageSize
from vitlite.nn.maps import SmoothUpsample, gaussian_matrix, middle, upsample_matrix, with_border
from vitlite.nn.transformer import Block, LinearAttention

GROUPS = 2
MAP_SIDE = 256  # at which the paper filters its maps, ...
MAP_RADIUS = 2  # ... by 5x5 pixels


@dataclass(frozen=True)
class Config(CropConfig):
    """Defaults are the paper's and its implementation's; ``(ours)`` marks what is another here."""

    image_size: ImageSize = 392
    crop: int = 0  # (ours): the paper has 448
    steps: int = 10_000  # for 15 categories in one model; 5,000 for one
    batch_size: int = 16
    optimizer: str = "stableadamw"
    lr: float = 2e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    last_lr: float = 2e-4
    warmup_steps: int = 100
    clip_norm: float = 0.1
    backbone: str = "dinov2_vitb14_reg"
    weights: str = "auto"
    layers: tuple[int, ...] = ()  # empty: 3 to 10 of 12, or every second from 5 to 19 of 24
    depth: int = 8
    dropout: float = 0.2  # 0.4 for Real-IAD
    mining: float = 0.9
    mining_factor: float = 0.1
    mining_steps: int = 1000
    align: str = "corners"  # centres: (ours)
    sigma: float = 4.0  # of 5x5 pixels at 256; with align=centres whole, at image_size
    score: str = "top1"

    needs: ClassVar = CropConfig.needs | dict.fromkeys(("mining_factor", "mining_steps"), "mining")

    @classmethod
    def upgraded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Before 0.2.0 was finished, the middle ``crop`` of ``image_size`` pixels was seen."""
        found = super().upgraded(values)
        seen, whole = found.get("crop"), found.get("image_size")
        if isinstance(seen, int) and isinstance(whole, int) and 0 < seen < whole:
            found |= {"image_size": seen, "crop": whole}
        return found

    def check(self) -> None:
        super().check()
        self.one_of("backbone", NETWORKS)
        self.limit_places(math.prod(self.grid), "image_size", "less")
        self.one_of("align", ("corners", "centres"))
        self.at_least(0, "sigma", "mining_factor")
        self.at_least(1, "mining_steps")
        self.at_least(2, "depth")
        for key in ("dropout", "mining"):
            if not 0 <= getattr(self, key) < 1:
                self.refuse(key, "must be at least 0 and below 1")
        if self.depth % GROUPS:
            self.refuse("depth", "must be even")
        if len(self.layers) % GROUPS:
            self.refuse("layers", "must be an even number of blocks, half of them for each group")
        if self.edge == "even" and self.align == "corners":
            self.refuse("edge", "needs align=centres")

    @property
    def network(self) -> Network:
        """The transformer that gives the tokens."""
        return NETWORKS[self.backbone]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of what the network sees."""
        rows, columns = (max(1, round(side / self.network.patch)) for side in self.image_shape)
        return rows, columns

    @property
    def side_multiple(self) -> int:
        return self.network.patch

    @property
    def cell(self) -> float:
        return (math.prod(self.image_shape) / math.prod(self.grid)) ** 0.5

    @property
    def blocks(self) -> tuple[int, ...]:
        """The setting ``layers``, or the paper's blocks: eight in the middle, of 24 blocks every second one."""
        step = self.network.depth // 12
        return self.layers or tuple(range(2 * step + 1, 10 * step + 1, step))


PAPER = Config()
# Small enough for two CPU cores.
QUICK = replace(
    PAPER,
    **QUICK_HEAD,
    align="centres",
    image_size=224,
    backbone="dinov2_vits14",
    depth=4,
    steps=200,
    max_epochs=40,
    batch_size=8,
    warmup_steps=20,
    mining_steps=100,
    precision="auto",
)


class Bottleneck(nn.Module):
    """Two linear layers with GELU between them and dropout around each, tokens (B, T, dim) to the same shape."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(self.drop(x))))))


class CornerMap(nn.Module):
    """The paper's map of values (B, h, w) of a size ``coarse``: (B, H, W) of ``fine``.

    Bilinear to ``fine`` with aligned corners, to 256, a Gaussian filter of 5x5; then back to ``fine`` (ours). If that
    is no square, 256 is the side of a square with as many pixels (ours).
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, coarse: Size, fine: Size, sigma: float) -> None:
        super().__init__()
        share = MAP_SIDE / math.sqrt(math.prod(sides(fine)))
        for name, before, after in zip(("rows", "columns"), sides(coarse), sides(fine)):
            between = round(share * after)
            to_map = upsample_matrix(after, between) @ upsample_matrix(before, after, corners=True)
            matrix = upsample_matrix(between, after) @ gaussian_matrix(between, sigma, MAP_RADIUS) @ to_map
            self.register_buffer(name, matrix.float(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        return self.rows @ values @ self.columns.T


class Dinomaly(Method):
    """Frozen tokens in two groups, a noisy bottleneck, a decoder of linear attention, cosine distance."""

    presets: ClassVar = {"paper": PAPER, "quick": QUICK}
    default_score = "top1"
    cache_as = "float16"

    config: Config

    def __init__(self, config: Config, weights: str | None = None) -> None:
        super().__init__(config, weights)
        network = config.network
        self.backbone = backbones.create(config.backbone, weights=weights or config.weights, layers=config.blocks)
        self.first = 1 + network.registers  # patch token
        self.bottleneck = Bottleneck(network.dim, config.dropout)
        self.decoder = nn.ModuleList(
            Block(network.dim, network.heads, eps=1e-8, attention=LinearAttention) for _ in range(config.depth)
        )
        for part in (*self.bottleneck.modules(), *self.decoder.modules()):
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.01, a=-0.03, b=0.03)
                nn.init.zeros_(part.bias)
        self.smooth: nn.Module = CornerMap(config.grid, config.image_shape, config.sigma)
        if config.align == "centres":
            self.smooth = SmoothUpsample(config.grid, config.image_shape, config.sigma, config.edge)

    @torch.no_grad()
    def frozen(self, images: Tensor) -> Tensor:
        """Tokens (B, 2, T, dim), the class token and the registers first: the mean of each group of blocks.

        The bottleneck reads the mean of all blocks, which is that of both groups: they are equally large.
        """
        assert isinstance(self.backbone, VisionBackbone)
        tokens = self.backbone.tokens(middle(images, *self.config.beyond))
        half = len(tokens) // GROUPS
        return torch.stack([mean_of(tokens[:half]), mean_of(tokens[half:])], dim=1)

    def coarse(self, features: Tensor) -> Tensor:
        """As the base class's, of the patch tokens."""
        maps = features[:, :, self.first :].transpose(2, 3).flatten(1, 2)
        return super().coarse(maps.unflatten(2, self.config.grid))

    def pairs(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Patch tokens (B, 2, N, dim) of both groups and their reconstructions, float32.

        The last half of the decoder answers the first half of the encoder.
        """
        x = self.bottleneck(features.mean(1))
        outputs = []
        for block in self.decoder:
            x = block(x)
            outputs.append(x[:, self.first :].float())
        half = len(outputs) // GROUPS
        decoded = torch.stack([mean_of(outputs[half:]), mean_of(outputs[:half])], dim=1)
        return features[:, :, self.first :].float(), decoded

    def loss(self, features: Tensor) -> dict[str, Tensor]:
        """1 - cosine of all tokens of an image at once, mean over images and groups, with hard mining."""
        encoded, decoded = self.pairs(features)
        fixed = decoded.detach()
        share = self.gradient_share(1 - F.cosine_similarity(encoded, fixed, dim=-1))[..., None]
        decoded = fixed + share * (decoded - fixed)  # the same values, and a share of the gradient
        shallow, deep = (1 - F.cosine_similarity(encoded.flatten(2), decoded.flatten(2), dim=-1)).mean(0)
        return {"loss": (shallow + deep) / GROUPS, "shallow": shallow, "deep": deep}

    @torch.compiler.disable  # the number of places changes with the step
    def gradient_share(self, distances: Tensor) -> Tensor:
        """What part of its gradient each place keeps: distances (B, 2, N) to the same shape.

        In each group the places of the whole batch that are furthest from their reconstruction keep all of it.
        """
        c = self.config
        easy = c.mining * min(self.step / c.mining_steps, 1)
        by_group = distances.transpose(0, 1).flatten(1)
        kept = max(1, int(by_group.shape[1] * (1 - easy)))
        least = by_group.topk(kept).values[:, -1:, None]  # (2, 1, 1)
        below = distances.transpose(0, 1) < least
        return torch.ones_like(distances).masked_fill_(below.transpose(0, 1), c.mining_factor)

    def values(self, features: Tensor) -> Tensor:
        """1 - cosine at each place, mean of both groups, at the size of what is seen and smoothed."""
        return self.smooth(self.distances(features).mean(1))

    def distances(self, features: Tensor) -> Tensor:
        """1 - cosine at each place (B, 2, h, w) of both groups."""
        return (1 - F.cosine_similarity(*self.pairs(features), dim=-1)).unflatten(2, self.config.grid)

    def feature_maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The patch tokens of both groups side by side, and their reconstruction."""
        encoded, decoded = (x.transpose(2, 3).flatten(1, 2) for x in self.pairs(features))
        return encoded.unflatten(2, self.config.grid), decoded.unflatten(2, self.config.grid)

    def parts(self, features: Tensor) -> dict[str, Tensor]:
        """What each group gives."""
        names = ("shallow blocks", "deep blocks")
        return {name: self.maps(self.smooth(own)) for name, own in zip(names, self.distances(features).unbind(1))}

    def maps(self, values: Tensor) -> Tensor:
        """``values``, and beyond the middle the least of them."""
        return with_border(values, *self.config.beyond)

    def scores(self, maps: Tensor, values: Tensor, errors: Tensor | None, how: str | None = None) -> Tensor:
        """As the base class's, of the middle alone: a share of the pixels is one of those that are seen."""
        return super().scores(middle(maps, *self.config.beyond), values, errors, how)


def mean_of(tensors: Sequence[Tensor]) -> Tensor:
    """The mean of tensors of one shape."""
    return functools.reduce(torch.add, tensors) / len(tensors)
