"""What networks would have measured of good images, made without training one."""

import torch

from vitlite.data import Sample
from vitlite.engine.unseen import Measured
from vitlite.methods.base import Method
from vitlite.methods.config import TrainingConfig


class Fixed(Method):
    """Its frozen features are its values."""

    presets = {"paper": TrainingConfig(image_size=16)}  # noqa: RUF012

    def __init__(self, config):
        super().__init__(config)
        self.one = torch.nn.Parameter(torch.zeros(()))

    def values(self, features):
        return features


def measured(good, drawn=None, folder=".", groups=()):
    """What networks would have measured: values (n, 16, 16), and two drawn defects on each image."""
    samples = [Sample(f"{i}.png", "nut", "train", "good", 0, None) for i in range(len(good))]
    method = Fixed(TrainingConfig(image_size=16, score="auto", places="auto"))
    found = Measured(method, samples, folder, groups=groups)
    found.add(method, range(len(good)), [torch.from_numpy(good)])
    if drawn is not None:
        found.drawn.values = torch.from_numpy(drawn)
        found.drawn_errors = torch.zeros(len(drawn))
        found.source = [i // 2 for i in range(len(drawn))]
    return method, found
