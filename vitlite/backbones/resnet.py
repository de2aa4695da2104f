"""ResNet-18, 34 and 50 (He et al., 2016, table 1; in the bottleneck the 3x3 convolution has the stride)."""

from functools import partial

from torch import Tensor, nn

from vitlite.backbones.architecture import Architecture, Convention, Naming, Stage
from vitlite.backbones.extractor import family
from vitlite.backbones.layers import ConvUnit
from vitlite.backbones.published import TORCHVISION, Published

# depth -> blocks per layer, bottleneck or not, the published file
_DEPTHS = {
    18: ((2, 2, 2, 2), False, "resnet18-f37072fd.pth"),
    34: ((3, 4, 6, 3), False, "resnet34-b627a593.pth"),
    50: ((3, 4, 6, 3), True, "resnet50-0676ba61.pth"),
}


def architecture(name: str) -> Architecture:
    """name: resnet18, resnet34, resnet50. Stride 2 is the stem after its ReLU, 4 to 32 are layer1 to layer4."""
    repeats, bottleneck, file = _DEPTHS[int(name.removeprefix("resnet"))]
    stages = [Stage(2, 64, _stem)]
    inputs = 64
    for layer, count in enumerate(repeats):
        outputs = 64 * 2**layer * (4 if bottleneck else 1)
        build = partial(_layer, inputs, outputs, count, 1 if layer == 0 else 2, bottleneck)
        stages.append(Stage(2 ** (layer + 2), outputs, build))
        inputs = outputs
    return Architecture(
        name=name,
        stages=tuple(stages),
        strides=(4, 8, 16, 32),
        namings=(_naming(repeats, bottleneck),),
        convention=lambda owner, path: Convention(),
        published=Published(TORCHVISION + file),
    )


create, whereabouts = family(architecture)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvUnit(inputs, outputs, 3, stride, activation="relu")
        self.conv2 = ConvUnit(outputs, outputs, 3, activation="relu")
        self.downsample = ConvUnit(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.conv2(self.conv1(x), shortcut)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        width = outputs // 4
        self.conv1 = ConvUnit(inputs, width, 1, activation="relu")
        self.conv2 = ConvUnit(width, width, 3, stride, activation="relu")
        self.conv3 = ConvUnit(width, outputs, 1, activation="relu")
        self.downsample = ConvUnit(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.conv3(self.conv2(self.conv1(x)), shortcut)


def _stem() -> nn.Sequential:
    return nn.Sequential(ConvUnit(3, 64, 7, 2, activation="relu"))


def _layer(inputs: int, outputs: int, count: int, stride: int, bottleneck: bool) -> nn.Sequential:
    block = Bottleneck if bottleneck else BasicBlock
    # The pooling between stem and layer1 belongs to neither map, so it opens the stage of layer1.
    modules: list[nn.Module] = [nn.MaxPool2d(3, 2, 1)] if stride == 1 else []
    modules.append(block(inputs, outputs, stride))
    modules += [block(outputs, outputs, 1) for _ in range(count - 1)]
    return nn.Sequential(*modules)


def _naming(repeats: tuple[int, ...], bottleneck: bool) -> Naming:
    """timm and torchvision agree."""
    units: dict[str, tuple[str, str | None]] = {"stages.0.0": ("conv1", "bn1")}
    for layer, count in enumerate(repeats):
        first = 1 if layer == 0 else 0  # the pooling takes the first place of that stage
        for place in range(count):
            ours, theirs = f"stages.{layer + 1}.{place + first}", f"layer{layer + 1}.{place}"
            for conv in range(1, 4 if bottleneck else 3):
                units[f"{ours}.conv{conv}"] = (f"{theirs}.conv{conv}", f"{theirs}.bn{conv}")
            if place == 0 and (layer > 0 or bottleneck):
                units[f"{ours}.downsample"] = (f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return Naming("timm and torchvision", "conv1.weight", units, ("fc.",))
