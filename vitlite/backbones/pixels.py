"""The image itself as a feature map: normalised pixels, each 8x8 block stacked into channels.

SIVT's ablation "image instead of features" (Fig. 4).
"""

import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vitlite.backbones.architecture import IMAGENET
from vitlite.backbones.base import Backbone
from vitlite.errors import UserError

BLOCK = 8  # pixels


class Pixels(Backbone):
    """Images (B, 3, H, W) to one map (B, 192, H / 8, W / 8)."""

    name = "image"
    strides = (BLOCK,)
    channels = (3 * BLOCK**2,)
    weights_source = "none needed (pixels)"
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), IMAGENET):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (F.pixel_unshuffle((images - self.mean) / self.std, BLOCK),)


def create(name: str, weights: str | os.PathLike, strides: Sequence[int] | None, seed: int) -> Pixels:
    """The backbone "image". It has no weights and one stride."""
    if strides is not None and tuple(strides) != Pixels.strides:
        raise UserError(f"`strides={','.join(map(str, strides))}`: {name} has {BLOCK} alone")
    return Pixels()


def whereabouts(name: str) -> str:
    """Where its weights are, in words."""
    return Pixels.weights_source
