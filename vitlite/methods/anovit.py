"""AnoViT: a vision transformer's patch embeddings decoded back to the picture (Lee and Kang, 2022).

The class token is dropped and the other embeddings keep their places as a feature map, so that no fully connected
layer comes between encoder and decoder (Section 3.1).

MNIST and CIFAR-10 are resized to 224 (4.1.1): ``image_size=224``. At their own size (``image_size=32``) take
``patch=4`` and ``pretrained=false``.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from vitlite.backbones.transformer_weights import load_vit
from vitlite.methods.base import check_choice
from vitlite.methods.reconstruction import (
    Reconstruction,
    ReconstructionConfig,
    check_channels,
    check_encoder,
    check_reconstruction,
)
from vitlite.nn.decoders import NORMS, TransposedDecoder, as_map, doublings
from vitlite.nn.vit import VisionTransformer

ENCODER = "vit_base_patch16_384"  # whose published weights are used


@dataclass(frozen=True)
class Config(ReconstructionConfig):
    """Defaults are the paper's; section numbers are the paper's. ``(ours)`` marks what it leaves open."""

    image_size: int = 384  # 4.1.2; MNIST and CIFAR-10 are resized to 224 (4.1.1)
    epochs: int = 200  # (ours); MemCA's, which trains a network of this kind
    batch_size: int = 8  # (ours), likewise
    optimizer: str = "adam"  # (ours), likewise
    lr: float = 2e-4  # (ours), likewise
    weight_decay: float = 0.0  # (ours)
    pretrained: bool = True  # 4.3, ImageNet-21k then 2012; False trains from scratch
    weights: str = "auto"  # of a pretrained encoder: auto | PATH
    patch: int = 16  # 4.3
    dim: int = 768  # 4.3
    depth: int = 12  # 4.3, ViT-Base
    heads: int = 12  # 4.3 says 8 "as in the existing ViT-Base"; ViT-Base and its weights have 12
    mlp_ratio: float = 4.0  # ViT-Base
    channels: tuple = (256, 128, 64, 32, 16)  # after the first five of six blocks (4.3 gives their number alone; ours)
    norm: str = "instance"  # of the decoder's blocks: instance | batch (ours)
    augment: str = "affine"  # 4.3: random affine, vertical and horizontal flips; their ranges are ours
    sigma: float = 4.0  # pixels; 4.3 names a Gaussian filter without its width (ours)
    score: str = "max"  # Eq. 7


PAPER = Config()
# Small enough for two CPU cores. The filter was chosen on synthetic surfaces of another seed, never on a test split.
QUICK = replace(
    PAPER,
    image_size=128,
    steps=1500,
    pretrained=False,
    patch=8,
    dim=128,
    depth=4,
    heads=2,
    channels=(128, 64, 64, 32, 16),
    lr=1e-3,
    schedule="cosine",
    warmup_epochs=1.0,
    clip_norm=1.0,
    augment="flip",
    sigma=1.0,
    precision="auto",
)


class AnoViT(Reconstruction):
    """ViT encoder, six blocks of transposed convolution, L2 loss; the map is the L2 distance per pixel (Eq. 6)."""

    Config = Config
    presets: ClassVar = {"paper": PAPER, "quick": QUICK}

    def __init__(self, config, weights=None):
        """``weights`` overrides ``config.weights`` ("none" when a checkpoint will fill the encoder in)."""
        check(config)
        super().__init__(config)
        c = config
        self.encoder = VisionTransformer(c.image_size, c.patch, c.dim, c.depth, c.heads, c.mlp_ratio)
        if c.pretrained and weights != "none":
            load_vit(self.encoder, ENCODER, weights or c.weights)
        channels = (c.dim, *c.channels, 3)
        blocks = len(channels) - 1
        self.decoder = TransposedDecoder(channels, doublings(blocks, c.patch, most=3), c.image_size, c.norm)

    def reconstruct(self, target):
        return self.decoder(as_map(self.encoder(target)))


def check(config):
    """Values that no option parser can refuse by type alone; ValueError names the key."""
    check_reconstruction(config)
    check_encoder(config)
    check_choice(config, "norm", NORMS)
    check_channels(config)
    base = {"patch": 16, "dim": 768, "depth": 12, "heads": 12, "mlp_ratio": 4.0}
    for key, value in base.items():
        if config.pretrained and getattr(config, key) != value:
            raise ValueError(f"{key}={getattr(config, key)}: pretrained weights need {value}; or set pretrained=false")
    if config.pretrained and config.weights == "none":
        raise ValueError("weights=none: an encoder without weights is pretrained=false")
    if not config.pretrained and config.weights not in ("auto", "none"):
        raise ValueError(f"weights={config.weights}: read only with pretrained=true")
