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
    lr: float = 0.0  # peak learning rate; 0: the config's
    batch_size: int = 0  # images per optimiser step; 0: the config's
    lr_option: str = "lr"  # the config's field that sets the rate

    def steps_per_epoch(self, images, config):
        """Optimiser steps of one pass over so many training images."""
        return -(-images // (self.batch_size or config.batch_size))


@dataclass(frozen=True)
class TrainingConfig:
    """What every method's ``Config`` has: how images come in and how the optimiser runs."""

    image_size: int = 256  # pixels, square
    epochs: int = 100  # passes over the training images
    steps: int = 0  # above 0: as many epochs as come nearest to this number of optimiser steps, whatever ``epochs``
    batch_size: int = 8  # images per optimiser step
    # Parts that a batch is computed in, one after the other: less memory, and the same step but for batch norms, whose
    # statistics are then a part's, and for SIVT's split, which each part draws.
    accumulate: int = 1
    optimizer: str = "adamw"  # adamw | adam (weight decay then is an L2 term)
    beta1: float = 0.9  # of the optimiser: decay of the mean gradient
    beta2: float = 0.999  # and of the mean squared gradient
    lr: float = 1e-4  # peak learning rate
    weight_decay: float = 0.01  # on matrices only
    schedule: str = "constant"  # after warm-up: constant | cosine (to 0)
    warmup_epochs: float = 0.0  # linear from 0
    clip_norm: float = 0.0  # largest gradient norm; 0 does not clip
    holdout: float = 0.1  # share of the good training images kept for the threshold (ours; the papers keep none)
    train_images: int = 0  # at most so many of a category's other good images are trained on, drawn by the seed; 0: all
    precision: str = "float32"  # of the forward and backward passes: float32 | bfloat16 | auto
    compile: bool = False  # torch.compile the loss


def check_choice(config, key, allowed):
    """ValueError names the key whose value is not one of those allowed."""
    if getattr(config, key) not in allowed:
        raise ValueError(f"{key}={getattr(config, key)}: not one of {', '.join(allowed)}")


def check_least(config, least, *keys):
    """ValueError names a key whose value is below ``least``, or not finite."""
    for key in keys:
        if not least <= getattr(config, key) < float("inf"):
            raise ValueError(f"{key}={getattr(config, key)}: must be at least {least}")


class Method(nn.Module):
    """Base of all methods. ``config`` is the method's frozen dataclass; ``Config`` names its class."""

    Config = TrainingConfig
    cache_as = "float32"  # how what ``frozen`` gives is kept; "uint8" for plain pictures, which lose nothing by it
    draws_for_batch = False  # whether ``loss`` draws for a whole batch, and nothing for a single image
    stage = None  # name of the training stage that ``loss`` is called in
    _trainable = None  # names of the parameters that any stage trains

    def __init__(self, config):
        super().__init__()
        self.config = config

    def stages(self):
        """Training stages in order."""
        return (Stage("train", self.config.epochs),)

    def begin(self, stage):
        """Called before a stage's first step, and again where a resumed run goes on within it.

        Parameters that other stages train need no gradient in this one.
        """
        self.stage = stage.name
        if self._trainable is None:
            self._trainable = {name for name, p in self.named_parameters() if p.requires_grad}
        for name, parameter in self.named_parameters():
            if name in self._trainable:
                parameter.requires_grad_(name.startswith(tuple(stage.trains)))

    @property
    def weights_source(self):
        """Where its pretrained parts, or those that could be, took their weights from; None without such parts."""
        sources = [getattr(part, "weights_source", None) for part in self.children()]
        return next((source for source in sources if source), None)

    @property
    def image_score(self):
        """How the score of a picture comes from its map, in words; ``config.score`` says it, if there is one."""
        how = getattr(self.config, "score", "score")
        return f"{how} of the map at {self.config.image_size} pixels"

    def frozen(self, images):
        """Float images (B, 3, S, S) in [0, 1] to what ``loss`` reads: everything that no training changes."""
        return images

    def fit(self, batches):
        """Statistics of the training set, from an iterable of ``frozen`` outputs; called once before training."""

    def finish(self, batches):
        """Statistics of the trained network, from the same iterable; called once after training, in evaluation mode."""

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
