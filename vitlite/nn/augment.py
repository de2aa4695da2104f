"""Random changes of training images that leave them good, drawn anew for every image and step."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

KINDS = ("none", "flip", "affine")
# Largest changes by "affine", to either side: degrees, share of the width, share of the scale.
DEGREES, SHIFT, SCALE = 10.0, 0.1, 0.1


def augment(images: Tensor, kind: str) -> Tensor:
    """Float images (B, C, H, W) in [0, 1] changed at random: "none", "flip", or "affine" (which includes a flip)."""
    if kind == "none":
        return images
    images = flip(images)
    return affine(images) if kind == "affine" else images


def flip(images: Tensor) -> Tensor:
    """Each image (B, C, H, W) upside down with probability one half, and likewise left to right."""
    for axis in (2, 3):
        chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        images = torch.where(chosen, images.flip(axis), images)
    return images


def affine(images: Tensor) -> Tensor:
    """Each image (B, C, S, S) rotated, shifted and scaled about its middle, bilinearly, its border mirrored."""
    turn, x, y, zoom = (torch.rand(4, len(images), device=images.device) * 2 - 1).unbind()
    angle, zoom = turn * math.radians(DEGREES), 1 + SCALE * zoom
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    wide = images.shape[3] / images.shape[2]  # the grid's unit is half a side, along each axis its own
    matrix = torch.stack([cosine, -sine / wide, 2 * SHIFT * x, sine * wide, cosine, 2 * SHIFT * y], dim=1)
    grid = F.affine_grid(matrix.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
