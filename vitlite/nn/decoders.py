"""From a feature map or a vector to an image: transposed convolution, norm and ReLU, and tanh at the end."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.images.tiles import Size, sides
from vitlite.nn.batch_norm import BatchNorm2d

# Norms of the decoder's blocks. Both have a learned scale and shift, so that the convolution before needs no bias.
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "batch": BatchNorm2d,
}


def transposed(inputs: int, outputs: int, stride: int, bias: bool) -> nn.ConvTranspose2d:
    """A transposed convolution that makes the map exactly ``stride`` (1 or 2) times as large."""
    # Kernel 4 at stride 2: every output pixel is reached by the same number of taps, so no checkerboard.
    kernel = {1: 3, 2: 4}[stride]
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding=1, bias=bias)


class TransposedDecoder(nn.Module):
    """Feature map (B, C, h, w) to images (B, c, H, W) of a ``size`` in [-1, 1], float32.

    ``channels`` are C, then those after every block; ``strides`` (1 or 2) has one number a block. The last block is a
    transposed convolution alone: a ReLU before the tanh would leave only light images, and a norm over each image
    would give all of them one brightness. A map that is smaller than ``size`` is upsampled bilinearly before the tanh.

    Raises ValueError: an unknown norm, or numbers of channels and strides that do not go together.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], size: Size, norm: str) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm={norm}: not one of {', '.join(NORMS)}")
        if len(channels) != len(strides) + 1:
            raise ValueError(f"channels: {len(strides)} blocks need {len(strides) + 1} numbers, got {len(channels)}")
        self.size = sides(size)
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip(channels, channels[1:], strides):
            layers += [transposed(inputs, outputs, stride, bias=False), NORMS[norm](outputs), nn.ReLU()]
        del layers[-2:]
        layers[-1] = transposed(channels[-2], channels[-1], strides[-1], bias=True)
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        # Float32 after the last product, whatever the precision of the products.
        image = self.layers(features).float()
        return torch.tanh(resized(image, self.size))


def doublings(blocks: int, patch: int, most: int | None = None) -> tuple[int, ...]:
    """Strides of ``blocks`` blocks that bring a map of patches towards pixels: ones, then as many twos as go into it.

    ``most`` limits the twos. Bilinear upsampling does the rest.
    """
    twos = min(blocks, blocks if most is None else most, max(patch.bit_length() - 1, 0))
    return (1,) * (blocks - twos) + (2,) * twos


LAYERS = 5  # of VT-ADL's decoder, III


class VectorDecoder(nn.Module):
    """VT-ADL's vector (B, V) to an image (B, 3, H, W) in -1..1: five transposed convolutions (III).

    Batch norm and ReLU between them, tanh last. ``side`` is the height and width that the vector is folded to. What
    the convolutions give is a square; if the ``size`` is another, it is resized to that (ours).
    """

    def __init__(self, vector: int, side: int, doublings: int, channels: tuple[int, ...], size: Size) -> None:
        super().__init__()
        self.shape, self.size = (vector // side**2, side, side), sides(size)
        widths = (self.shape[0], *channels, 3)
        layers: list[nn.Module] = []
        for stride, before, after in zip(decoder_strides(doublings), widths, widths[1:]):
            # Kernels of twice the stride cover every pixel equally often, so they draw no checkerboard.
            kernel, padding = (2 * stride, stride // 2) if stride > 1 else (3, 1)
            layers += [nn.ConvTranspose2d(before, after, kernel, stride, padding), BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-2], nn.Tanh())

    def forward(self, vector: Tensor) -> Tensor:
        return resized(self.layers(vector.unflatten(1, self.shape)), self.size)


def decoder_strides(doublings: int) -> list[int]:
    """Strides of the five layers, powers of two whose product is 2^doublings, larger ones first."""
    return [2 ** (doublings // LAYERS + (i < doublings % LAYERS)) for i in range(LAYERS)]


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, h, w) in a ``size``, bilinearly."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, L, C) of a grid (rows, columns), in row order, to a feature map (B, C, rows, columns)."""
    return tokens.transpose(1, 2).unflatten(2, grid)
