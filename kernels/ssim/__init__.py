"""Structural similarity of images."""

from .op import ssim

__all__ = ["ssim"]
