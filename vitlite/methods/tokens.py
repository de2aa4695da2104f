"""What the tokens of a vision transformer are made of: patches of pixels, or frozen features of a backbone.

A network that copies pixels can copy a defect. From the features of a network that has seen ImageNet it has to learn
what the images look like, and has learned that of good ones alone.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitlite import backbones
from vitlite.methods.base import Method
from vitlite.methods.config import AUTO, NONE, TrainingConfig
from vitlite.methods.frozen import ChannelStatistics, FusedCopy, resized
from vitlite.methods.reconstruction import to_network, to_unit
from vitlite.nn.vit import VisionTransformer

PIXELS = "pixels"
STRIDES = (8, 16)  # of the maps that a token is made of: shapes, rather than the colours that lower ones still hold
_OTHERS = ("vitlite.backbones.vit", "vitlite.backbones.pixels")
CONVOLUTIONAL = tuple(name for name, module in backbones.REGISTRY.items() if module not in _OTHERS)


def check_embedding(config: TrainingConfig, *, pretrained: bool = False) -> None:
    """Refuse ``embedding`` and ``weights`` that go with nothing; ``pretrained``: an encoder of pixels reads weights."""
    embedding, weights = (getattr(config, key) for key in ("embedding", "weights"))
    config.one_of("embedding", (PIXELS, *CONVOLUTIONAL))
    if embedding == PIXELS and not pretrained and weights not in (AUTO, NONE):
        config.refuse("weights", f"does nothing with `embedding={PIXELS}`; name a convolutional network there")


class FeatureEmbedding(nn.Module):
    """Maps of a backbone to tokens (B, h * w, dim): joined at the size of the grid, standardised, projected.

    ``mean`` and ``deviation`` are of each channel over the training images (ours).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.proj = nn.Linear(channels, dim)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def joined(self, maps: Iterable[Tensor]) -> Tensor:
        """All maps at the size of the grid (B, channels, h, w), float32."""
        return torch.cat([resized(one.float(), self.grid) for one in maps], 1)

    def forward(self, features: Tensor) -> Tensor:
        standard = (features - self.mean[:, None, None]) / self.deviation[:, None, None]
        return self.proj(standard.flatten(2).transpose(1, 2))


class TokenMethod(Method):
    """Base of the methods that encode an image (B, 3, H, W) in [-1, 1] with a vision transformer."""

    encoder: VisionTransformer
    embedding: FeatureEmbedding | None

    def embed(self, encoder: VisionTransformer, name: str, weights: str) -> None:
        """Take an encoder, its tokens of pixels or of the backbone ``name``. Called once, by the constructor."""
        self.encoder, self.embedding = encoder, None
        if name != PIXELS:
            self.backbone = backbones.create(name, weights=weights, strides=STRIDES)
            self.extractor = FusedCopy()
            dim = encoder.pos_embed.shape[-1]
            self.embedding = FeatureEmbedding(sum(self.backbone.channels), dim, encoder.grid)
            encoder.patch_embed = cast(Any, nn.Identity())

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """As the base class's."""
        if self.embedding is not None:
            self.extractor.forget()
        return super().load_state_dict(*args, **options)

    @torch.no_grad()
    def features_of(self, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to what the embedding takes: features (B, channels, h, w)."""
        assert self.embedding is not None
        return self.embedding.joined(self.extractor.of(self.backbone, target.device)(to_unit(target).float()))

    def tokens(self, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to the encoder's tokens (B, L, dim)."""
        return self.encoder(target if self.embedding is None else self.embedding(self.features_of(target)))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Mean and deviation of each channel of the features over the training images, if a token is made of them."""
        if self.embedding is None:
            return
        statistics = ChannelStatistics()
        for images in batches:
            statistics.add(self.features_of(to_network(images.float())))
        mean, deviation = statistics.of_all()
        self.embedding.mean.copy_(mean)
        self.embedding.deviation.copy_(deviation)
