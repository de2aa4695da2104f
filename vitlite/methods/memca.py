"""MemCA: a ViT autoencoder with a memory module and coordinate attention (Sensors 2024, 24, 2440).

The memory stands after the encoder and lets only what it remembers of normal patches pass; coordinate attention stands
between the memory and the decoder. Without both it is the base network of the ablation (Table 6).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from vitlite.kernels import ssim
from vitlite.methods.base import check_choice, check_least
from vitlite.methods.reconstruction import (
    Reconstruction,
    ReconstructionConfig,
    check_channels,
    check_encoder,
    check_reconstruction,
)
from vitlite.nn.coordinate_attention import CoordinateAttention
from vitlite.nn.decoders import NORMS, TransposedDecoder, as_map, doublings
from vitlite.nn.memory import MemoryModule
from vitlite.nn.portable import operator_backend
from vitlite.nn.vit import VisionTransformer


@dataclass(frozen=True)
class Config(ReconstructionConfig):
    """Defaults are the paper's; section numbers are the paper's. ``(ours)`` marks what it leaves open."""

    image_size: int = 384  # 4.2
    epochs: int = 200  # 4.2
    batch_size: int = 8  # 4.2
    optimizer: str = "adam"  # 4.2
    lr: float = 2e-4  # 4.2
    weight_decay: float = 0.0  # (ours)
    patch: int = 16  # 4.2
    dim: int = 768  # 4.2
    depth: int = 12  # (ours), ViT-Base as dim and patch are
    heads: int = 8  # 4.2
    mlp_ratio: float = 4.0  # (ours), ViT-Base
    memory: bool = True  # Table 6, M
    coordinate_attention: bool = True  # Table 6, CA
    items: int = 500  # of the memory (ours)
    channels: tuple = (256, 128, 64, 32, 16)  # after the first five of six blocks (3.4 gives their number alone; ours)
    norm: str = "batch"  # of the decoder's blocks: instance | batch; 3.4: "normalizes small batches of data"
    ssim_weight: float = 1.0  # lambda of Eq. 13 (ours)
    ssim_window: int = 11  # pixels; 3.5 says "block-based" and cites the usual SSIM loss (ours)
    entropy_weight: float = 0.001  # 4.2
    map: str = "l2"  # l2 (distance per pixel, as AnoViT's) | ssim (1 - SSIM) | loss (Eq. 13 per pixel); (ours)
    sigma: float = 4.0  # pixels; 4.2 names a Gaussian filter without its width (ours)
    score: str = "max"  # (ours), as AnoViT's


PAPER = Config()
# Small enough for two CPU cores. Map and filter were chosen on synthetic surfaces of another seed, not on a test split.
QUICK = replace(
    PAPER,
    image_size=128,
    steps=800,
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
    map="loss",
    sigma=2.0,
    precision="auto",
)


class MemCA(Reconstruction):
    """ViT encoder, memory, coordinate attention, six blocks of transposed convolution."""

    Config = Config
    presets: ClassVar = {"paper": PAPER, "quick": QUICK}

    def __init__(self, config, weights=None):
        """``weights`` is for methods with pretrained parts; this one trains from scratch (4.2)."""
        check(config)
        super().__init__(config)
        c = config
        self.encoder = VisionTransformer(c.image_size, c.patch, c.dim, c.depth, c.heads, c.mlp_ratio)
        self.memory = MemoryModule(c.items, c.dim) if c.memory else None
        self.attention = CoordinateAttention(c.dim) if c.coordinate_attention else None
        channels = (c.dim, *c.channels, 3)
        self.decoder = TransposedDecoder(channels, doublings(len(channels) - 1, c.patch), c.image_size, c.norm)

    def reconstruct(self, target):
        return self.reconstruct_with_entropy(target)[0]

    def reconstruct_with_entropy(self, target):
        """Reconstructions, and the entropy (B, L) of each token's memory weights, None without a memory."""
        tokens, entropy = self.encoder(target), None
        if self.memory is not None:
            tokens, entropy = self.memory(tokens)
        features = as_map(tokens)
        if self.attention is not None:
            features = self.attention(features)
        return self.decoder(features), entropy

    def loss(self, features):
        """Equation 15: L2 + lambda (1 - SSIM), plus the weighted mean entropy over all tokens (Eq. 14 with its minus).

        L2 is the mean over all values; the SSIM's constants are meant for [0, 1], so it is taken there.
        """
        c, target = self.config, self.targets(features)
        output, entropy = self.reconstruct_with_entropy(target)
        l2 = (target - output).square().mean()
        structure = 1 - ssim(to_unit(target), to_unit(output), window_size=c.ssim_window)
        terms = {"loss": l2 + c.ssim_weight * structure, "l2": l2, "ssim": structure}
        if entropy is not None:
            terms["entropy"] = entropy.mean()
            terms["loss"] = terms["loss"] + c.entropy_weight * terms["entropy"]
        return terms

    def residual(self, target, output):
        if self.config.map == "l2":
            return super().residual(target, output)
        images = to_unit(target), to_unit(output)
        window = self.config.ssim_window
        similarity = ssim(*images, window_size=window, reduction="none", backend=operator_backend())
        structure = (1 - similarity).mean(1)
        if self.config.map == "ssim":
            return structure
        return (target - output).square().mean(1) + self.config.ssim_weight * structure


def to_unit(images):
    """[-1, 1] to [0, 1]."""
    return (images + 1) / 2


def check(config):
    """Values that no option parser can refuse by type alone; ValueError names the key."""
    check_reconstruction(config)
    check_encoder(config)
    check_choice(config, "norm", NORMS)
    check_choice(config, "map", ("l2", "ssim", "loss"))
    check_channels(config)
    if config.items < 2:
        raise ValueError(f"items={config.items}: a memory needs at least 2")
    if config.ssim_window < 1 or config.ssim_window % 2 == 0:
        raise ValueError(f"ssim_window={config.ssim_window}: must be an odd number of pixels")
    check_least(config, 0, "ssim_weight", "entropy_weight")
