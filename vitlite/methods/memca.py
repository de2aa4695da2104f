"""MemCA: a ViT autoencoder with a memory module and coordinate attention (Sensors 2024, 24, 2440).

The memory stands after the encoder and lets only what it remembers of normal patches pass; coordinate attention stands
between the memory and the decoder. Without both it is the base network of the ablation (Table 6).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from vitlite.kernels import ssim
from vitlite.methods.ablations import AUROC, MVTEC_ONE, Row, Table
from vitlite.methods.reconstruction import QUICK_AUTOENCODER, AutoencoderConfig, Reconstruction, to_network, to_unit
from vitlite.nn.coordinate_attention import CoordinateAttention
from vitlite.nn.decoders import as_map
from vitlite.nn.memory import MemoryModule
from vitlite.nn.portable import operator_backend


@dataclass(frozen=True)
class Config(AutoencoderConfig):
    """Defaults are the paper's, with its sections. ``(ours)`` marks what it leaves open."""

    heads: int = 8  # 4.2
    memory: bool = True  # Table 6, M
    coordinate_attention: bool = True  # Table 6, CA
    items: int = 500  # of the memory (ours)
    norm: str = "batch"  # of the decoder's blocks: instance | batch; 3.4: "normalizes small batches of data"
    ssim_weight: float = 1.0  # lambda of Eq. 13 (ours)
    ssim_window: int = 11  # pixels; 3.5 says "block-based" and cites the usual SSIM loss (ours)
    entropy_weight: float = 0.001  # 4.2
    map: str = "l2"  # l2 (distance per pixel, as AnoViT's) | ssim (1 - SSIM) | loss (Eq. 13 per pixel); (ours)

    def check(self) -> None:
        super().check()
        self.one_of("map", ("l2", "ssim", "loss"))
        if self.items < 2:
            self.refuse("items", "a memory needs at least 2")
        if self.ssim_window < 1 or self.ssim_window % 2 == 0:
            self.refuse("ssim_window", "must be an odd number of pixels")
        self.at_least(0, "ssim_weight", "entropy_weight")


PAPER = Config()
# Small enough for two CPU cores. Map and filter were chosen on synthetic surfaces of another seed, not on a test split.
QUICK = replace(PAPER, **QUICK_AUTOENCODER, steps=800, max_epochs=300, map="loss", sigma=2.0)


COLUMNS = (*AUROC, "aupro_30")
ROWS = tuple(
    Row(label, (f"memory={memory}", f"coordinate_attention={attention}"), dict(zip(COLUMNS, figures)))
    for label, memory, attention, *figures in (
        ("Base", "false", "false", 82.2, 83.8, 79.6),
        ("Base + M", "true", "false", 85.7, 91.8, 90.5),
        ("Base + CA", "false", "true", 84.5, 86.4, 85.7),
        ("Base + M + CA", "true", "true", 91.2, 93.0, 92.3),
    )
)
ABLATIONS = {"modules": Table("memory module (M) and coordinate attention (CA)", "Table 6", MVTEC_ONE, COLUMNS, ROWS)}


class MemCA(Reconstruction):
    """ViT encoder, memory, coordinate attention, six blocks of transposed convolution, trained from scratch (4.2)."""

    presets: ClassVar = {"paper": PAPER, "quick": QUICK}
    ablations: ClassVar = ABLATIONS
    config: Config

    def __init__(self, config: Config, weights: str | None = None) -> None:
        super().__init__(config, weights)
        c = config
        self.encoder = c.encoder()
        self.memory = MemoryModule(c.items, c.dim) if c.memory else None
        self.attention = CoordinateAttention(c.dim) if c.coordinate_attention else None
        self.decoder = c.decoder()

    def reconstruct(self, target: Tensor) -> Tensor:
        return self.reconstruct_with_entropy(target)[0]

    def reconstruct_with_entropy(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Reconstructions, and the entropy (B, L) of each token's memory weights, None without a memory."""
        tokens, entropy = self.encoder(target), None
        if self.memory is not None:
            tokens, entropy = self.memory(tokens)
        features = as_map(tokens)
        if self.attention is not None:
            features = self.attention(features)
        return self.decoder(features), entropy

    def loss(self, features: Tensor) -> dict[str, Tensor]:
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

    def residual(self, target: Tensor, output: Tensor) -> Tensor:
        if self.config.map == "l2":
            return super().residual(target, output)
        structure = self.dissimilarity(target, output)
        if self.config.map == "ssim":
            return structure
        return (target - output).square().mean(1) + self.config.ssim_weight * structure

    def dissimilarity(self, target: Tensor, output: Tensor) -> Tensor:
        """1 - SSIM at each pixel (B, S, S), mean over the colours."""
        images = to_unit(target), to_unit(output)
        window = self.config.ssim_window
        similarity = ssim(*images, window_size=window, reduction="none", backend=operator_backend())
        return (1 - similarity).mean(1)

    def parts(self, features: Tensor) -> dict[str, Tensor]:
        """The reconstruction, and both terms of a map that has two, smoothed."""
        found = super().parts(features)
        if self.config.map == "loss":
            target, output = to_network(features.float()), to_network(found["reconstruction"])
            found["squared error"] = self.smooth((target - output).square().mean(1))
            found["1 - SSIM"] = self.smooth(self.dissimilarity(target, output))
        return found
