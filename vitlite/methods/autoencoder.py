"""Autoencoders of images with a vision transformer as encoder: their settings, and what a token is made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitlite import backbones
from vitlite.methods.config import AUTO, NONE, check_transformer
from vitlite.methods.frozen import ChannelStatistics, resized
from vitlite.methods.reconstruction import QUICK, Reconstruction, ReconstructionConfig, to_network, to_unit
from vitlite.nn.decoders import NORMS, TransposedDecoder, doublings
from vitlite.nn.vit import VisionTransformer

PIXELS = "pixels"
STRIDES = (8, 16)  # of the maps that a token is made of: shapes, rather than the colours that lower ones still hold
_OTHERS = ("vitlite.backbones.vit", "vitlite.backbones.pixels")
CONVOLUTIONAL = tuple(name for name, module in backbones.REGISTRY.items() if module not in _OTHERS)


@dataclass(frozen=True)
class AutoencoderConfig(ReconstructionConfig):
    """A ViT encoder, and a decoder of six blocks of transposed convolution (AnoViT 4.3, MemCA 3.4 and 4.2)."""

    patch: int = 16  # pixels
    dim: int = 768
    depth: int = 12  # ViT-Base; MemCA (ours)
    heads: int = 12
    mlp_ratio: float = 4.0  # ViT-Base; MemCA (ours)
    # after each block but the last (ours, as AnoViT's authors' code)
    channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    norm: str = "instance"  # of the decoder's blocks: instance | batch
    embedding: str = PIXELS  # or a backbone (ours)
    weights: str = AUTO  # of the backbone (ours)

    def check(self) -> None:
        super().check()
        check_transformer(self)
        if min(self.image_shape) < 2 * self.patch:
            self.refuse("patch", f"leaves fewer than 2 x 2 patches of image_size={self.image_text}")
        self.one_of("norm", NORMS)
        if not self.channels or min(self.channels) < 1:
            self.refuse("channels", "numbers of at least 1, one for each block")
        self.one_of("embedding", (PIXELS, *CONVOLUTIONAL))
        if self.embedding == PIXELS and not self.reads_weights and self.weights not in (AUTO, NONE):
            self.refuse("weights", f"does nothing with `embedding={PIXELS}`; name a convolutional network there")

    @property
    def reads_weights(self) -> bool:
        """Whether an encoder of pixels has published weights."""
        return False

    def encoder(self) -> VisionTransformer:
        """A new encoder: images (B, 3, H, W) to tokens (B, L, dim)."""
        return VisionTransformer(self.image_shape, self.patch, self.dim, self.depth, self.heads, self.mlp_ratio)

    def decoder(self, most: int | None = None) -> TransposedDecoder:
        """A new decoder: a map (B, dim, h, w) to images. At most ``most`` of its blocks double the map's side."""
        channels = (self.dim, *self.channels, 3)
        strides = doublings(len(channels) - 1, self.patch, most)
        return TransposedDecoder(channels, strides, self.image_shape, self.norm)


QUICK_AUTOENCODER: dict[str, Any] = {
    **QUICK,
    "patch": 8,
    "dim": 128,
    "depth": 4,
    "heads": 2,
    "channels": (128, 64, 64, 32, 16),
    "precision": "auto",
}


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


class Autoencoder(Reconstruction):
    """Base of the methods whose encoder is a vision transformer, of patches of pixels or of features of a backbone.

    A network that copies pixels can copy a defect. From the features of a network that has seen ImageNet it has to
    learn what the images look like, and has learned that of good ones alone.
    """

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, weights: str | None = None) -> None:
        super().__init__(config, weights)
        c = config
        self.encoder = c.encoder()
        self.embedding: FeatureEmbedding | None = None
        self._extractor: list[nn.Module] = []  # the fused copy: a list, so that it stays out of the checkpoint
        if c.embedding != PIXELS:
            self.backbone = backbones.create(c.embedding, weights=weights or c.weights, strides=STRIDES)
            self.embedding = FeatureEmbedding(sum(self.backbone.channels), c.dim, self.encoder.grid)
            self.encoder.patch_embed = cast(Any, nn.Identity())

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """As the base class's."""
        self._extractor.clear()  # a copy of the backbone that is about to change
        return super().load_state_dict(*args, **options)

    @torch.no_grad()
    def features_of(self, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to what the embedding takes: features (B, channels, h, w)."""
        assert self.embedding is not None
        if not self._extractor:
            self._extractor.append(self.backbone.fused().to(target.device).eval())
        return self.embedding.joined(self._extractor[0](to_unit(target).float()))

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
