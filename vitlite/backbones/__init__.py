"""Frozen convolutional feature extractors: EfficientNet B0 to B7 and Lite0 to Lite4, ResNet, MobileNetV2, VGG19.

    extractor = vitlite.backbones.create("efficientnet_lite2")
    maps = extractor(images)                    # images (B, 3, H, W) in [0, 1]; one map per stride
    maps = extractor.fused()(images)            # the same maps, faster

The list of names costs no import of torch: everything else is resolved on first use (PEP 562).
"""

import importlib
import os
from collections.abc import Sequence

from vitlite.errors import UserError

# name -> the file of this folder that describes it
_FAMILIES = {
    **{f"efficientnet_b{i}": "efficientnet" for i in range(8)},
    **{f"efficientnet_lite{i}": "efficientnet" for i in range(5)},
    **{f"resnet{depth}": "resnet" for depth in (18, 34, 50)},
    "mobilenet_v2": "mobilenet",
    "vgg19": "vgg",
}

_LAZY = {"FeatureExtractor": "vitlite.backbones.extractor"}


def available() -> list[str]:
    """Names that `create` knows."""
    return list(_FAMILIES)


def create(
    name: str,
    *,
    weights: str | os.PathLike = "auto",
    strides: Sequence[int] | None = None,
    seed: int = 0,
) -> "FeatureExtractor":  # noqa: F821
    """A frozen feature extractor, in evaluation mode, on the CPU, float32.

    name: one of `available()`.
    weights: "auto" takes an installed package that carries them, then the cache folder ($VITLITE_CACHE or
        ~/.cache/vitlite), then the official download address, checksum verified. "none" is random weights drawn from
        `seed`. Anything else is the path of a checkpoint with timm's, torchvision's or efficientnet-pytorch's key
        names (.safetensors or what torch.load reads with weights_only=True). Weights are never random unless asked for.
    strides: which feature maps are returned, ascending; by default (2, 4, 8, 16), for ResNets (4, 8, 16, 32).
        Blocks beyond the last one are not built.
    seed: of the random weights; the global random state is neither read nor changed.
    Raises UserError: unknown name or stride, weights that cannot be had or do not fit.
    """
    if name not in _FAMILIES:
        raise UserError(f"unknown backbone {name!r}; choose one of {', '.join(_FAMILIES)}")
    architecture = importlib.import_module(f"vitlite.backbones.{_FAMILIES[name]}").architecture(name)
    from vitlite.backbones import weights as loading
    from vitlite.backbones.extractor import FeatureExtractor

    extractor = FeatureExtractor(architecture, strides)
    loading.fill(extractor, architecture, weights, seed)
    return extractor


def __getattr__(name):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vitlite.backbones' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LAZY})
