"""A tiny one of any method, for all tests of methods."""

import torch
from tiny_settings import METHODS

from vitlite.methods import method_class
from vitlite.methods.config import change


def tiny_config(name, idle=False, **changes):
    """The quick preset of a method, made tiny, with these changes; if ``idle``, also with some that do nothing."""
    return change(change(method_class(name).presets["quick"], METHODS.get(name, {})), changes, idle=idle)


def tiny(name, seed=0, **changes):
    """A method that computes in milliseconds, with random weights."""
    config = tiny_config(name, **changes)
    torch.manual_seed(seed)
    return method_class(name)(config, weights="none")


def images_for(method, count=3):
    """Random 8-bit images in [0, 1], (count, 3, S, S)."""
    size = method.config.view.size
    return torch.randint(0, 256, (count, 3, size, size)).float() / 255


def enter(method, name):
    """The method in one of its stages."""
    method.begin(next(stage for stage in method.stages() if stage.name == name))
    return method


def losses_of(method, images, *, steps, lr):
    """The loss before each of some steps of Adam."""
    optimizer = torch.optim.Adam(method.parameters(), lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = method.loss(images)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def count(module):
    """The number of its parameters."""
    return sum(p.numel() for p in module.parameters())
