"""The contract of a method: a frozen ``Config`` and a module that gives a loss and an anomaly map.

The trainer knows nothing else about a method. It computes ``frozen(images)`` (once, and cached, while nothing
random happens to the images), calls ``fit(...)`` with those features, minimises ``loss(features)["loss"]`` over
the parameters of each training stage, and scores with ``anomaly(images)``.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Stage:
    """One stretch of training: its name, number of epochs, and which parameters it trains (all of them by default)."""

    name: str
    epochs: int
    trains: tuple = ("",)  # prefixes of parameter names


@dataclass(frozen=True)
class TrainingConfig:
    """What every method's ``Config`` has: how images come in and how the optimiser runs."""

    image_size: int = 256  # pixels, square
    epochs: int = 100  # passes over the training images
    steps: int = 0  # above 0: as many epochs as come nearest to this number of optimiser steps, whatever ``epochs``
    batch_size: int = 8  # images per optimiser step
    lr: float = 1e-4  # peak learning rate of AdamW
    weight_decay: float = 0.01  # AdamW, on matrices only
    schedule: str = "constant"  # after warm-up: constant | cosine (to 0)
    warmup_epochs: float = 0.0  # linear from 0
    clip_norm: float = 0.0  # largest gradient norm; 0 does not clip
    holdout: float = 0.1  # share of the good training images kept for the threshold
    precision: str = "float32"  # of the forward and backward passes: float32 | bfloat16 | auto


class Method(nn.Module):
    """Base of all methods. ``config`` is the method's frozen dataclass; ``Config`` names its class."""

    Config = TrainingConfig
    cacheable = True  # frozen(images) is a pure function of the images

    def __init__(self, config):
        super().__init__()
        self.config = config

    def stages(self):
        """Training stages in order."""
        return (Stage("train", self.config.epochs),)

    def frozen(self, images):
        """Float images (B, 3, S, S) in [0, 1] to what ``loss`` reads: everything that no training changes."""
        return images

    def fit(self, batches):
        """Statistics of the training set, from an iterable of ``frozen`` outputs; called once before training."""

    def loss(self, features):
        """``frozen`` outputs of a batch to a dict of scalar terms; ``"loss"`` is what is minimised."""
        raise NotImplementedError

    @torch.no_grad()
    def anomaly(self, images):
        """Float images (B, 3, S, S) in [0, 1] to maps (B, S, S) and scores (B,), float32; larger is more anomalous."""
        return self.anomaly_from(self.frozen(images))

    def anomaly_from(self, features):
        """``anomaly`` from what ``frozen`` returned."""
        raise NotImplementedError
