"""The convolution unit that every backbone is made of, and the inverted residual block."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def activate(x: Tensor, kind: str | None) -> Tensor:
    """Apply an activation by name (None: nothing), in place.

    An exporter gets the other form: it rewrites what is in place step by step, which takes as long as all the rest.
    """
    if kind is None:
        return x
    return _ACTIVATIONS[kind](x, inplace=not torch.compiler.is_exporting())


_ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6, "silu": F.silu}


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME: (before, after) so that the output has ceil(size / stride) positions."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_for(x: Tensor, kernel: int, stride: int, same: bool) -> tuple[Tensor, tuple[int, int]]:
    """x, padded if the convolution cannot do it itself, and the symmetric padding that is left to the convolution."""
    if not same:
        return x, (kernel // 2, kernel // 2)
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom)), (0, 0)


class FrozenNorm(nn.Module):
    """Batch normalisation that always uses its stored statistics; `train()` does not change it."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = 1e-5
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class ConvUnit(nn.Module):
    """Convolution, batch norm (or a bias instead), optional addition, activation.

    `forward(x, add)` adds after the norm and before the activation, so that a residual block can hand its shortcut
    to the last convolution and a fused unit can do all of it in one pass.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=not norm)
        self.conv.requires_grad_(False)
        self.norm = FrozenNorm(outputs) if norm else None
        self.activation = activation
        self.same = False

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        conv = self.conv
        x, padding = pad_for(x, conv.kernel_size[0], conv.stride[0], self.same)
        y = F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, 1, conv.groups)
        if self.norm is not None:
            y = self.norm(y)
        if add is not None:
            y = y + add
        return activate(y, self.activation)


class SqueezeExcite(nn.Module):
    """Channel gate of EfficientNet-B (Hu et al., 2018): mean over positions, two 1x1 convolutions, sigmoid."""

    def __init__(self, channels: int, squeezed: int, activation: str) -> None:
        super().__init__()
        self.reduce = ConvUnit(channels, squeezed, 1, activation=activation, norm=False)
        self.expand = ConvUnit(squeezed, channels, 1, norm=False)

    def gate(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1) in (0, 1)."""
        return torch.sigmoid(self.expand(self.reduce(x.mean((2, 3), keepdim=True))))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """MBConv (Sandler et al., 2018; Tan and Le, 2019): expand 1x1, depthwise, optional gate, project 1x1, shortcut."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, activation: str, gated: bool
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvUnit(inputs, hidden, 1, activation=activation) if expansion != 1 else None
        self.depthwise = ConvUnit(hidden, hidden, kernel, stride, groups=hidden, activation=activation)
        self.gate = SqueezeExcite(hidden, max(1, inputs // 4), activation) if gated else None
        self.project = ConvUnit(hidden, outputs, 1)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        if self.gate is not None:
            y = self.gate(y)
        return self.project(y, x if self.shortcut else None)
