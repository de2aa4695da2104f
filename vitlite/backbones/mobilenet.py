"""MobileNetV2, width 1 (Sandler et al., 2018, table 2)."""

from vitlite.backbones import mbconv
from vitlite.backbones.architecture import Architecture, Convention
from vitlite.backbones.mbconv import Row

_ROWS = [
    Row(1, 3, 1, 1, 16),
    Row(2, 3, 2, 6, 24),
    Row(3, 3, 2, 6, 32),
    Row(4, 3, 2, 6, 64),
    Row(3, 3, 1, 6, 96),
    Row(3, 3, 2, 6, 160),
    Row(1, 3, 1, 6, 320),
]


def architecture(name: str) -> Architecture:
    """name: mobilenet_v2. torchvision and timm both trained it in PyTorch: symmetric padding, epsilon 1e-5."""
    return Architecture(
        name=name,
        stages=mbconv.stages(_ROWS, 32, "relu6", gated=False),
        strides=(2, 4, 8, 16),
        namings=(mbconv.timm_naming(_ROWS, gated=False), mbconv.torchvision_mobilenet_naming(_ROWS)),
        convention=lambda owner, path: Convention(),
    )
