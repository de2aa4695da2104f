"""What several backbone tests share: random statistics, files, comparison, and two models with the public key names.

`TimmStyle` and `TorchvisionStyle` are written only to be called as the publishers call things: their state dicts have
the public key names because their attributes do, and they compute the forward pass in their own way.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

# Repeats, kernel, stride, expansion and channels of each row of table 1 of the papers, for each variant as built.
B0 = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)]
B0 += [(3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
ROWS = {
    "efficientnet_b0": B0,
    "efficientnet_b1": [(repeats, *row) for repeats, (_, *row) in zip((2, 3, 3, 4, 4, 5, 2), B0)],
    "efficientnet_lite0": B0,
    "mobilenet_v2": [
        (repeats, 3, stride, expansion, channels)
        for repeats, (_, _, _, expansion, _), stride, channels in zip(
            (1, 2, 3, 4, 3, 3, 1), B0, (1, 2, 2, 2, 1, 2, 1), (16, 24, 32, 64, 96, 160, 320)
        )
    ],
}

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LITE = ((127 / 255,) * 3, (128 / 255,) * 3)


def randomise(model, seed=0):
    """Random weights and, so that a forgotten or swapped norm shows, random statistics. Scales stay near one."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.2, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
            nn.init.normal_(module.bias, std=0.2, generator=generator)
            nn.init.normal_(module.running_mean, std=0.2, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
            # Some channels with little variance, in which the epsilon counts, at the scale of the others.
            module.running_var[::5] = 0.01
            module.weight.data[::5] *= 0.1
    return model.eval()


def save(model, path):
    torch.save(model.state_dict(), path)
    return path


def exact(*modules):
    """The same modules in float64: random networks are so deep that float32 rounding grows to a visible size."""
    return [module.double() for module in modules]


def random_images(height=64, width=64, batch=2, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def normalised(images, constants):
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in constants)
    return (images - mean) / std


def difference(maps, expected):
    """Largest deviation of each map, relative to the largest value of that map."""
    assert len(maps) == len(expected)
    for got, want in zip(maps, expected):
        assert got.shape == want.shape
        assert 1e-3 < want.std() < 1e3  # a dead network, or one with saturated gates, would agree with anything
    return [((got - want).abs().max() / want.abs().max()).item() for got, want in zip(maps, expected)]


def before_each_stride(x, blocks):
    """Run blocks one by one; what each gave last before the next one halved the size, and the final output."""
    outputs = []
    for block in blocks:
        y = block(x)
        if y.shape[-2] < x.shape[-2]:
            outputs.append(x)
        x = y
    return [*outputs, x]


class SameConv2d(nn.Conv2d):
    """Padded as TensorFlow does: total so that the output has ceil(size / stride) positions, the odd one behind."""

    def forward(self, x):
        pads = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, 1, self.groups)


class _Recipe:
    """Padding, epsilon, activation and gate of one variant."""

    def __init__(self, same, eps, activation, gated):
        self.same, self.eps, self.act, self.gated = same, eps, activation, gated

    def conv(self, inputs, outputs, kernel, stride=1, groups=1, bias=False):
        if self.same:
            return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=bias)
        return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=bias)

    def norm(self, channels):
        return nn.BatchNorm2d(channels, eps=self.eps)


class _TimmGate(nn.Module):
    def __init__(self, recipe, channels, squeezed):
        super().__init__()
        self.conv_reduce = recipe.conv(channels, squeezed, 1, bias=True)
        self.conv_expand = recipe.conv(squeezed, channels, 1, bias=True)

    def forward(self, x):
        return x * self.conv_expand(F.silu(self.conv_reduce(F.adaptive_avg_pool2d(x, 1)))).sigmoid()


class _TimmBlock(nn.Module):
    def __init__(self, recipe, inputs, kernel, stride, expansion, outputs):
        super().__init__()
        hidden = inputs * expansion
        self.act, self.skip, self.wide = recipe.act, stride == 1 and inputs == outputs, expansion > 1
        depthwise = recipe.conv(hidden, hidden, kernel, stride, groups=hidden)
        if self.wide:
            self.conv_pw, self.bn1 = recipe.conv(inputs, hidden, 1), recipe.norm(hidden)
            self.conv_dw, self.bn2 = depthwise, recipe.norm(hidden)
            self.conv_pwl, self.bn3 = recipe.conv(hidden, outputs, 1), recipe.norm(outputs)
        else:
            self.conv_dw, self.bn1 = depthwise, recipe.norm(hidden)
            self.conv_pw, self.bn2 = recipe.conv(hidden, outputs, 1), recipe.norm(outputs)
        self.se = _TimmGate(recipe, hidden, inputs // 4) if recipe.gated else nn.Identity()

    def forward(self, x):
        if self.wide:
            y = self.act(self.bn1(self.conv_pw(x)))
            y = self.se(self.act(self.bn2(self.conv_dw(y))))
            y = self.bn3(self.conv_pwl(y))
        else:
            y = self.se(self.act(self.bn1(self.conv_dw(x))))
            y = self.bn2(self.conv_pw(y))
        return x + y if self.skip else y


class TimmStyle(nn.Module):
    """timm's names for EfficientNet and MobileNetV2, classifier and head included."""

    def __init__(self, rows, *, same, eps, activation=F.silu, gated=True):
        super().__init__()
        recipe = _Recipe(same, eps, activation, gated)
        self.act = activation
        self.conv_stem, self.bn1 = recipe.conv(3, 32, 3, 2), recipe.norm(32)
        stages, inputs = [], 32
        for repeats, kernel, stride, expansion, channels in rows:
            stages.append(nn.Sequential())
            for place in range(repeats):
                stages[-1].append(_TimmBlock(recipe, inputs, kernel, stride if place == 0 else 1, expansion, channels))
                inputs = channels
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = recipe.conv(inputs, 1280, 1), recipe.norm(1280)
        self.classifier = nn.Linear(1280, 10)

    def maps(self, x):
        stem = self.act(self.bn1(self.conv_stem(x)))
        return before_each_stride(stem, [block for stage in self.blocks for block in stage])


class _Step(nn.Sequential):
    """Convolution .0, norm .1, activation."""

    def __init__(self, recipe, inputs, outputs, kernel=1, stride=1, groups=1, activation=True):
        layers = [recipe.conv(inputs, outputs, kernel, stride, groups), recipe.norm(outputs)]
        super().__init__(*layers, *([_Act(recipe.act)] if activation else []))


class _Act(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class _TorchvisionGate(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        return x * self.fc2(F.silu(self.fc1(x.mean((2, 3), True)))).sigmoid()


class _Skip(nn.Module):
    """A block whose layers are called `block` (EfficientNet) or `conv` (MobileNetV2)."""

    def __init__(self, name, layers, skip):
        super().__init__()
        self.name, self.skip = name, skip
        setattr(self, name, nn.Sequential(*layers))

    def forward(self, x):
        y = getattr(self, self.name)(x)
        return x + y if self.skip else y


class TorchvisionStyle(nn.Module):
    """torchvision's names: `flat` is MobileNetV2, where all blocks stand in one row of `features`."""

    def __init__(self, rows, *, eps, flat=False):
        super().__init__()
        recipe = _Recipe(False, eps, F.relu6 if flat else F.silu, gated=not flat)
        self.features = nn.Sequential(_Step(recipe, 3, 32, 3, 2))
        inputs = 32
        for repeats, kernel, stride, expansion, channels in rows:
            stage = nn.Sequential()
            for place in range(repeats):
                stage.append(
                    self._block(recipe, inputs, kernel, stride if place == 0 else 1, expansion, channels, flat)
                )
                inputs = channels
            for module in stage if flat else [stage]:
                self.features.append(module)
        self.features.append(_Step(recipe, inputs, 1280))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(1280, 10))

    @staticmethod
    def _block(recipe, inputs, kernel, stride, expansion, outputs, flat):
        hidden = inputs * expansion
        layers = [_Step(recipe, inputs, hidden)] if expansion > 1 else []
        layers.append(_Step(recipe, hidden, hidden, kernel, stride, hidden))
        if flat:
            layers += [nn.Conv2d(hidden, outputs, 1, bias=False), recipe.norm(outputs)]
        else:
            layers += [_TorchvisionGate(hidden, inputs // 4), _Step(recipe, hidden, outputs, activation=False)]
        return _Skip("conv" if flat else "block", layers, stride == 1 and inputs == outputs)

    def maps(self, x):
        blocks = []
        for module in self.features[1:-1]:
            blocks += list(module) if isinstance(module, nn.Sequential) else [module]
        return before_each_stride(self.features[0](x), blocks)
