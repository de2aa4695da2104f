"""A backbone for inference: the same maps up to rounding, in about a third of the time on a CPU.

What it does, and why:
- Batch norm is folded into the convolutions, in float64.
- Tensors are channels-last, the layout in which oneDNN's 1x1 and depthwise convolutions need no reordering.
- On a CPU in float32, convolution, addition and activation are one oneDNN call with weights packed in advance.
- TensorFlow's SAME padding is uneven at stride 2. A depthwise kernel with a leading row and column of zeros and even
  padding computes the same, without the copy of the widest tensors of the network that padding them takes.
- A batch passes in small parts. Then the activations stay in the cache, and the allocator reuses its memory. With a
  large batch the system maps and clears each tensor anew, which took as long as the arithmetic.

No compiler is needed, and nothing is specific to a device: on CUDA, in another dtype, while a graph is
traced, or without oneDNN, the same modules use torch's ordinary convolution.
"""

import functools
from collections.abc import Callable
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlite.backbones.layers import ConvUnit, SqueezeExcite, activate, pad_for, same_padding

# Our activations in the words of oneDNN's post-operations: name and constants.
_POST = {None: ("none", []), "relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0]), "silu": ("swish", [])}

# Packed weights are kept for this many input sizes.
_PACKED = 4


def fuse_layers(module: nn.Module) -> None:
    """Replaces the layers below a module by those for inference."""
    for name, child in module.named_children():
        if isinstance(child, ConvUnit):
            setattr(module, name, FusedUnit(child))
        elif isinstance(child, SqueezeExcite):
            setattr(module, name, FusedGate(child))
        else:
            fuse_layers(child)


def _folded(unit: ConvUnit) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what `unit` does before its addition and activation."""
    weight, norm = unit.conv.weight.detach(), unit.norm
    if norm is None:
        return weight, cast(Tensor, unit.conv.bias).detach()
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * scale
    return (weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), shift.to(weight.dtype).detach()


class FusedUnit(nn.Module):
    """A ConvUnit with its batch norm folded in; called the same way."""

    weight: Tensor
    bias: Tensor

    def __init__(self, unit: ConvUnit) -> None:
        super().__init__()
        weight, bias = _folded(unit)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.kernel, self.stride, self.groups = unit.conv.kernel_size[0], unit.conv.stride[0], unit.conv.groups
        self.activation, self.same = unit.activation, unit.same
        self._packed: dict[torch.Size, tuple[Tensor, list[int], tuple[int, ...] | None]] = {}

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        if _plain(x):
            x, symmetric = pad_for(x, self.kernel, self.stride, self.same)
            y = F.conv2d(x, self.weight, self.bias, self.stride, symmetric, 1, self.groups)
            return activate(y if add is None else y.add_(add), self.activation)
        weight, padding, outside = self._packed.get(x.shape) or self._pack(x)
        if outside is not None:
            x = F.pad(x, outside)
        geometry = (padding, [self.stride] * 2, [1, 1], self.groups)
        name, constants = _POST[self.activation]
        call = torch.ops.mkldnn._convolution_pointwise
        if add is None:
            return call(x, weight, self.bias, *geometry, name, constants, "")
        then = None if self.activation is None else name
        return call.binary(x, add, weight, self.bias, *geometry, "add", None, then, constants, "")

    def _pack(self, x: Tensor) -> tuple[Tensor, list[int], tuple[int, ...] | None]:
        """For inputs of this size: weights in oneDNN's own layout, its padding, and what F.pad has to add before."""
        weight, padding = self.weight, [self.kernel // 2] * 2
        outside: tuple[int, ...] | None = None
        if self.same:
            top, bottom = same_padding(x.shape[-2], self.kernel, self.stride)
            left, right = same_padding(x.shape[-1], self.kernel, self.stride)
            padding = [bottom, right]
            if padding != [top, left]:
                if self.groups > 1:
                    weight = F.pad(weight, (right - left, 0, bottom - top, 0))
                else:  # the stem: padding three channels is cheaper than a wider dense kernel
                    padding, outside = [0, 0], (left, right, top, bottom)
        if len(self._packed) >= _PACKED:
            self._packed.clear()
        shape = list(x.shape if outside is None else F.pad(x, outside).shape)
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(), padding, [self.stride] * 2, [1, 1], self.groups, shape
        )
        # Returned from here, not from the table: another thread may clear that at any moment.
        self._packed[x.shape] = entry = packed, padding, outside
        return entry

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        self._packed.clear()  # moved or cast weights make the packed ones stale
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": {}}


class FusedGate(nn.Module):
    """A SqueezeExcite as two small matrix products; overwrites its input, which nothing else holds."""

    reduce_weight: Tensor
    reduce_bias: Tensor
    expand_weight: Tensor
    expand_bias: Tensor

    def __init__(self, gate: SqueezeExcite) -> None:
        super().__init__()
        self.activation = gate.reduce.activation
        for name, unit in (("reduce", gate.reduce), ("expand", gate.expand)):
            weight, bias = _folded(unit)
            self.register_buffer(f"{name}_weight", weight.flatten(1))
            self.register_buffer(f"{name}_bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        y = activate(F.linear(x.mean((2, 3)), self.reduce_weight, self.reduce_bias), self.activation)
        return x.mul_(F.linear(y, self.expand_weight, self.expand_bias).sigmoid_()[:, :, None, None])


def _plain(x: Tensor) -> bool:
    """Whether x needs torch's ordinary convolution."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return True
    return not (torch.backends.mkldnn.enabled and onednn_works())


@functools.cache
def onednn_works() -> bool:
    """Whether this build has oneDNN's fused convolution and it computes what it should, tried on a small case."""
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.autocast("cpu", enabled=False):  # which may be on around the first call
        return _try_onednn()


def _try_onednn() -> bool:
    generator = torch.Generator().manual_seed(0)
    x, add = (torch.randn(1, 8, 5, 5, generator=generator).to(memory_format=torch.channels_last) for _ in range(2))
    weight, bias = torch.randn(8, 8, 1, 1, generator=generator), torch.randn(8, generator=generator)
    geometry = ([0, 0], [1, 1], [1, 1], 1)
    want = F.conv2d(x, weight, bias)
    try:
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(x.shape))
        call = torch.ops.mkldnn._convolution_pointwise
        results = [(call(x, packed, bias, *geometry, *_POST[kind], ""), activate(want.clone(), kind)) for kind in _POST]
        both = call.binary(x, add, packed, bias, *geometry, "add", None, "relu", [], "")
        results.append((both, F.relu(want + add)))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return all(torch.allclose(got, expected, rtol=1e-4, atol=1e-5) for got, expected in results)
