"""L2-CAE: the convolutional autoencoder of Bergmann et al. (2019), the baseline of AnoViT.

Table numbers are those of "Improving unsupervised defect segmentation by applying structural similarity to
autoencoders" (Bergmann, Lowe, Fauser, Sattlegger and Steger, 2019), whose network the AnoViT paper takes over (4.2).
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitlite.images.tiles import Size, as_size, sides
from vitlite.methods.ablations import Row, Table
from vitlite.methods.reconstruction import QUICK as QUICK_RECONSTRUCTION
from vitlite.methods.reconstruction import SMALL as SMALL_IMAGES
from vitlite.methods.reconstruction import Reconstruction, ReconstructionConfig
from vitlite.nn.windows import WindowGrid, random_windows

# Table 1: output channels and stride of every convolution before the last; stride 2 has kernel 4, stride 1 kernel 3.
LAYERS = ((32, 2), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (64, 1), (32, 1))
TABLE_SIZE = 128  # pixels, the input of Table 1
SLOPE = 0.2  # of the leaky ReLU after every layer but the latent one and the output


@dataclass(frozen=True)
class Config(ReconstructionConfig):
    """Defaults are AnoViT's experiment with this baseline. ``(ours)`` marks what neither paper says."""

    weight_decay: float = 1e-5  # Bergmann et al. 4.2
    latent: int = 100  # d of Table 1
    window: int = 0  # above 0: Bergmann et al. 4.2
    windows: int = 4  # (ours)
    stride: int = 30  # Bergmann et al. 4.2
    augment: str = "affine"  # AnoViT 4.3: the same as AnoViT's

    needs: ClassVar = ReconstructionConfig.needs | dict.fromkeys(("windows", "stride"), "window")

    def check(self) -> None:
        super().check()
        self.at_least(1, "latent", "windows", "stride")
        if not 0 <= self.window <= min(self.image_shape):
            self.refuse("window", f"must be from 0 to image_size={self.image_text}")
        if self.window and self.stride > self.window:
            self.refuse("stride", f"leaves pixels between windows of window={self.window}")
        if any(side % halved(self.seen) for side in sides(self.seen)):
            self.refuse("window" if self.window else "image_size", f"not a multiple of {halved(self.seen)} pixels")

    @property
    def seen(self) -> Size:
        """What the network sees at a time: a window, or the whole image."""
        return self.window or as_size(self.image_shape)

    @property
    def side_multiple(self) -> int:
        return 8 if self.window else halved(self.seen)


def table_layers(size: Size) -> tuple[tuple[int, int], ...]:
    """``LAYERS`` for inputs of a size: one more 4x4 stride-2 layer in front for each doubling of Table 1's side.

    If the size is no square, that of a square with as many pixels counts.
    """
    layers: tuple[tuple[int, int], ...] = LAYERS
    while math.prod(sides(size)) >= (2 * TABLE_SIZE * 2 ** (len(layers) - len(LAYERS))) ** 2:
        layers = ((32, 2), *layers)
    return layers


def halved(size: Size) -> int:
    """How much smaller these layers make the sides."""
    return int(2 ** sum(stride == 2 for _, stride in table_layers(size)))


PAPER = Config()
# Small enough for two CPU cores. Whole images instead of windows, the SSIM in the loss, and the filter were chosen on
# defects drawn onto good images.
QUICK = replace(PAPER, **QUICK_RECONSTRUCTION, steps=6000, max_epochs=300, ssim_weight=1.0, sigma=2.0)
SMALL = replace(QUICK, **SMALL_IMAGES, steps=1500, ssim_weight=0.0, sigma=1.0, score="max")

# The autoencoders that VT-ADL compares with; ``pixel_ap`` is its "PR AUC".
LOSSES = (
    Row("AE MSE", ("ssim_weight=0",), {"pixel_ap": 78.0}),
    Row("AE MSE+SSIM", ("ssim_weight=1",), {"pixel_ap": 79.0}),
)
BTAD = "BTAD, mean of three products, one model each"
ABLATIONS = {"loss": Table("loss of the autoencoder", "VT-ADL, Table IV", BTAD, ("pixel_ap", "aupro_30"), LOSSES)}


class ConvAutoencoder(nn.Module):
    """Table 1 and its mirror: images (B, 3, H, W) to reconstructions, linear at the output."""

    def __init__(self, size: Size, latent: int) -> None:
        super().__init__()
        layers = table_layers(size)
        height, width = (side // halved(size) for side in sides(size))
        rest = height, width  # of the map that the latent layer covers
        down, inputs = [], 3
        for outputs, stride in layers:
            down += [nn.Conv2d(inputs, outputs, 4 if stride == 2 else 3, stride, 1), nn.LeakyReLU(SLOPE)]
            inputs = outputs
        up = [nn.ConvTranspose2d(latent, inputs, rest), nn.LeakyReLU(SLOPE)]
        for outputs, stride in zip((*(c for c, _ in layers[-2::-1]), 3), (s for _, s in layers[::-1])):
            up += [nn.ConvTranspose2d(inputs, outputs, 4 if stride == 2 else 3, stride, 1), nn.LeakyReLU(SLOPE)]
            inputs = outputs
        self.encoder = nn.Sequential(*down, nn.Conv2d(layers[-1][0], latent, rest))
        self.decoder = nn.Sequential(*up[:-1])
        self.initialise()

    def initialise(self) -> None:
        """He initialisation: with torch's own the signal fades over 18 layers, and training waits on a plateau."""
        for layer in (*self.encoder, *self.decoder):
            if isinstance(layer, nn.LeakyReLU):
                continue
            taps = math.prod(layer.kernel_size) / (layer.stride[0] ** 2 if layer.transposed else 1)
            if layer is self.decoder[0]:
                taps = 1  # every pixel sees the one position of the latent vector
            nn.init.normal_(layer.weight, std=(2 / (1 + SLOPE**2) / (layer.in_channels * taps)) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))


class L2CAE(Reconstruction):
    """Convolutional autoencoder, by default with L2 loss and the L2 distance per pixel as map, as AnoViT has it."""

    presets: ClassVar = {"paper": PAPER, "quick": QUICK, "small": SMALL}
    ablations: ClassVar = ABLATIONS
    config: Config

    def __init__(self, config: Config, weights: str | None = None) -> None:
        super().__init__(config, weights)
        self.network = ConvAutoencoder(config.seen, config.latent)
        self.grid = WindowGrid(config.image_shape, config.window, config.stride) if config.window else None

    def targets(self, features: Tensor) -> Tensor:
        images = super().targets(features)
        return random_windows(images, self.config.window, self.config.windows) if self.config.window else images

    def reconstruct(self, target: Tensor) -> Tensor:
        return self.network(target).float()

    def joined(self, values: Tensor) -> Tensor:
        return self.grid.merge(values) if self.grid is not None else values

    def whole(self, output: Tensor) -> Tensor:
        return output if self.grid is None else torch.stack([self.grid.merge(o) for o in output.unbind(1)], 1)

    def scored(self, target: Tensor) -> Tensor:
        return self.grid.cut(target) if self.grid is not None else target
