"""VGG19 without batch norm (Simonyan and Zisserman, 2015, table 1, column E)."""

from functools import partial

from torch import nn

from vitlite.backbones.architecture import Architecture, Convention, Naming, Stage
from vitlite.backbones.extractor import family
from vitlite.backbones.layers import ConvUnit
from vitlite.backbones.published import TORCHVISION, Published

# channels and number of 3x3 convolutions between two poolings
_GROUPS = [(64, 2), (128, 2), (256, 4), (512, 4), (512, 4)]


def architecture(name: str) -> Architecture:
    """name: vgg19. The map at stride 2**i is the last ReLU before pooling i + 1; there is one at stride 1."""
    stages, inputs = [], 3
    for group, (channels, count) in enumerate(_GROUPS):
        stages.append(Stage(2**group, channels, partial(_group, inputs, channels, count, group > 0)))
        inputs = channels
    return Architecture(
        name=name,
        stages=tuple(stages),
        strides=(2, 4, 8, 16),
        namings=(_naming(),),
        convention=lambda owner, path: Convention(),
        published=Published(TORCHVISION + "vgg19-dcbb9e9d.pth"),
    )


create, whereabouts = family(architecture)


def _group(inputs: int, channels: int, count: int, pooled: bool) -> nn.Sequential:
    modules: list[nn.Module] = [nn.MaxPool2d(2)] if pooled else []
    for index in range(count):
        modules.append(ConvUnit(inputs if index == 0 else channels, channels, 3, activation="relu", norm=False))
    return nn.Sequential(*modules)


def _naming() -> Naming:
    """timm and torchvision agree on features.N, where N counts convolutions, ReLUs and poolings."""
    units: dict[str, tuple[str, str | None]] = {}
    theirs = 0
    for group, (_, count) in enumerate(_GROUPS):
        for index in range(count):
            units[f"stages.{group}.{index + (group > 0)}"] = (f"features.{theirs}", None)
            theirs += 2
        theirs += 1
    return Naming("timm and torchvision", "features.0.weight", units, ("classifier.", "pre_logits.", "head."))
