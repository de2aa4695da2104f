"""Autoencoders of images with a vision transformer as encoder, and their settings."""

from dataclasses import dataclass
from typing import Any

from vitlite.methods.config import AUTO, check_transformer
from vitlite.methods.reconstruction import QUICK, Reconstruction, ReconstructionConfig
from vitlite.methods.tokens import PIXELS, TokenMethod, check_embedding
from vitlite.nn.decoders import NORMS, TransposedDecoder, doublings
from vitlite.nn.vit import VisionTransformer


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
        check_embedding(self, pretrained=self.reads_weights)

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


class Autoencoder(TokenMethod, Reconstruction):
    """Base of the methods whose encoder is a vision transformer, of patches of pixels or of features of a backbone."""

    default_places = "absolute"  # a defect may be easier to reconstruct than what is good at its place
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, weights: str | None = None) -> None:
        super().__init__(config, weights)
        self.embed(config.encoder(), config.embedding, weights or config.weights)
