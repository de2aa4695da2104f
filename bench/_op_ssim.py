"""Cases of ``ssim``."""

from functools import partial

import torch

from ..kernels import ssim
from ..kernels.ssim.reference import ssim_torch
from .ops import Case


def _images(shape, device):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(shape, generator=generator).to(device) for _ in range(2))
    return [x.requires_grad_(), y]


def _eager(x, y, same):
    return ssim_torch(x, y, same=same).mean()


def _case(shape, padding, size, bars=None):
    contenders = {"vitlite": partial(ssim, padding=padding), "eager": partial(_eager, same=padding == "same")}
    if padding == "valid":
        try:
            import pytorch_msssim

            contenders["pytorch-msssim"] = partial(pytorch_msssim.ssim, data_range=1.0)
        except ImportError:
            print("pytorch-msssim is not installed: ssim is not compared with it")
    pixels = torch.Size(shape).numel()
    # Four moments, each with 11 multiply-adds along a row and 11 down a column, and about 20 operations for the value.
    # The backward pass does the same for three derivatives, and computes the moments again.
    forward, backward = 4 * 44 + 20, 4 * 44 + 40 + 3 * 44
    return Case(
        op="ssim",
        name="x".join(map(str, shape)) + f" {padding}",
        size=size,
        inputs=partial(_images, shape),
        contenders=contenders,
        reference=partial(_eager, same=padding == "same"),
        traffic=(8 * pixels, 8 * pixels + 12 * pixels),
        operations=(forward * pixels, (forward + backward) * pixels),
        bars=bars or {},
    )


def cases():
    overhead = _case((1, 1, 4, 4), "same", "overhead")
    overhead.limit_us = 40.0
    return [
        _case((8, 3, 256, 256), "valid", "large", {"pytorch-msssim": (15, 20)}),
        _case((8, 3, 256, 256), "same", "large"),
        _case((1, 3, 512, 512), "valid", "large"),
        _case((2, 3, 64, 64), "same", "small"),
        _case((1, 3, 32, 32), "valid", "small"),
        overhead,
    ]
