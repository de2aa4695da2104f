"""Frozen feature extractors: EfficientNet B0 to B7 and Lite0 to Lite4, ResNet, MobileNetV2, VGG19, vision transformers
(DINO, DINOv2, DINOv3, MAE, ViT), and plain pixels.

    backbone = vitlite.backbones.create("efficientnet_lite2")
    maps = backbone(images)                    # images (B, 3, H, W) in [0, 1]; one map per stride
    maps = backbone.fused()(images)            # the same maps, faster

A new backbone is one file and one line here. The file has a class on top of `Backbone`, and the functions
`create(name, weights, strides, seed)` and `whereabouts(name)`, which the functions of these names here call. A
transformer's `create` has a fifth argument, `layers`.

The names need no torch: everything else is imported on first use (PEP 562).
"""

import importlib
import inspect
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitlite.errors import UserError
from vitlite.lazy import lazily

if TYPE_CHECKING:
    from vitlite.backbones.base import Backbone as Backbone
    from vitlite.backbones.extractor import FeatureExtractor as FeatureExtractor

# name: module
REGISTRY = {
    **{f"efficientnet_b{i}": "vitlite.backbones.efficientnet" for i in range(8)},
    **{f"efficientnet_lite{i}": "vitlite.backbones.efficientnet" for i in range(5)},
    **{f"resnet{depth}": "vitlite.backbones.resnet" for depth in (18, 34, 50)},
    "mobilenet_v2": "vitlite.backbones.mobilenet",
    "vgg19": "vitlite.backbones.vgg",
    **{f"dinov2_vit{size}14{kind}": "vitlite.backbones.vit" for kind in ("", "_reg") for size in "sbl"},
    **{f"dinov3_vit{size}16": "vitlite.backbones.vit" for size in "sbl"},
    **dict.fromkeys(("dino_vits8", "dino_vitb16"), "vitlite.backbones.vit"),
    **dict.fromkeys(("mae_vit_base_patch16", "vit_base_patch16_224"), "vitlite.backbones.vit"),
    "image": "vitlite.backbones.pixels",
}

_LAZY = {"Backbone": "backbones.base", "FeatureExtractor": "backbones.extractor"}


def available() -> list[str]:
    """Names that `create` knows."""
    return list(REGISTRY)


def create(
    name: str,
    *,
    weights: str | os.PathLike = "auto",
    strides: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> "Backbone":
    """A frozen backbone, in evaluation mode, on the CPU, float32.

    name: one of `available()`.
    weights: "auto" takes an installed package that carries them, then the cache folder ($VITLITE_CACHE or
        ~/.cache/vitlite), then the official download address, checksum verified. "none" is random weights drawn from
        `seed`. Anything else is the path of a checkpoint (.safetensors or what torch.load reads with
        weights_only=True) with timm's, torchvision's or efficientnet-pytorch's key names; of a transformer, with its
        publisher's, timm's or those of `transformers`. Weights are random only on request.
    strides: which feature maps are returned, ascending; by default (2, 4, 8, 16), for ResNets (4, 8, 16, 32).
        Blocks beyond the last one are not built. The maps of a transformer all have the stride of its patches.
    layers: the blocks of a transformer whose outputs are returned, counted from 1, ascending; by default four, evenly
        spaced. Refused for other networks.
    seed: of the random weights; the global random state is neither read nor changed.
    Raises UserError: unknown name, stride or layer, weights that cannot be had or do not fit.
    """
    create_it = _module(name).create
    if layers is None:
        return create_it(name, weights, strides, seed)
    if "layers" not in inspect.signature(create_it).parameters:
        raise UserError(f"`layers={','.join(map(str, layers))}`: {name} is no transformer; choose maps by `strides`")
    return create_it(name, weights, strides, seed, layers)


def whereabouts(name: str) -> str:
    """Where "auto" would take the weights of a backbone from, in words; nothing is read or downloaded."""
    return _module(name).whereabouts(name)


def _module(name: str) -> Any:
    if name not in REGISTRY:
        raise UserError(f"`backbone={name}`: unknown; choose one of {', '.join(REGISTRY)}")
    return importlib.import_module(REGISTRY[name])


__getattr__, __dir__ = lazily(__name__, _LAZY)
