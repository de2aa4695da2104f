"""MobileNetV2, width 1 (Sandler et al., 2018, table 2)."""

from vitlite.backbones import mbconv
from vitlite.backbones.architecture import Architecture, Convention
from vitlite.backbones.extractor import family
from vitlite.backbones.published import TORCHVISION, Published

_REPEATS = (1, 2, 3, 4, 3, 3, 1)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_CHANNELS = (16, 24, 32, 64, 96, 160, 320)


def architecture(name: str) -> Architecture:
    """name: mobilenet_v2. torchvision and timm both trained it in PyTorch: symmetric padding, epsilon 1e-5."""
    rows = [mbconv.Row(n, 3, s, 1 if c == 16 else 6, c) for n, s, c in zip(_REPEATS, _STRIDES, _CHANNELS)]
    return Architecture(
        name=name,
        stages=mbconv.stages(rows, 32, "relu6", gated=False),
        strides=(2, 4, 8, 16),
        namings=(mbconv.timm_naming(rows, gated=False), mbconv.torchvision_mobilenet_naming(rows)),
        convention=lambda owner, path: Convention(),
        published=Published(TORCHVISION + "mobilenet_v2-b0353104.pth"),
    )


create, whereabouts = family(architecture)
