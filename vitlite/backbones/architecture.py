"""What describes a backbone: its stages, the names its checkpoints use, and how its input is prepared."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from vitlite.backbones.published import Published

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# EfficientNet-Lite was trained on (pixel - 127) / 128, pixel in 0..255.
LITE = ((127 / 255,) * 3, (128 / 255,) * 3)
# AdvProp checkpoints were trained on pixels mapped to [-1, 1].
SYMMETRIC = ((0.5,) * 3, (0.5,) * 3)


@dataclass(frozen=True)
class Convention:
    """What a checkpoint assumes and does not store.

    same: TensorFlow's SAME padding, which depends on the input size, instead of kernel // 2 on every side.
    eps: of batch norm. mean, std: input normalisation, per channel of an image in [0, 1].
    """

    same: bool = False
    eps: float = 1e-5
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]


@dataclass(frozen=True)
class Naming:
    """How one publisher names the weights.

    owner: shown in messages. probe: a key that says the file is named this way.
    units: path of a ConvUnit in our stages -> (name of its convolution, name of its batch norm or None).
    ignored: beginnings of keys that a feature extractor does not need.
    """

    owner: str
    probe: str
    units: dict[str, tuple[str, str | None]]
    ignored: tuple[str, ...]

    def keys(self) -> dict[str, str]:
        """Every key of ours -> the publisher's key, of all stages, built or not."""
        keys = {}
        for unit, (conv, norm) in self.units.items():
            keys[f"{unit}.conv.weight"] = f"{conv}.weight"
            if norm is None:
                keys[f"{unit}.conv.bias"] = f"{conv}.bias"
            else:
                for part in ("weight", "bias", "running_mean", "running_var"):
                    keys[f"{unit}.norm.{part}"] = f"{norm}.{part}"
        return keys


@dataclass(frozen=True)
class Stage:
    """Everything between two strides; `build()` makes the module, whose output is the feature map at `stride`."""

    stride: int
    channels: int
    build: Callable[[], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """A convolutional backbone before anything is built.

    strides: of the maps that it returns by default.
    convention(owner, path): the convention of a checkpoint with that naming at that path; with owner None, that of
    random weights.
    published: where "auto" takes weights from.
    """

    name: str
    stages: tuple[Stage, ...]
    strides: tuple[int, ...]
    namings: tuple[Naming, ...]
    convention: Callable[[str | None, str], Convention]
    published: Published
