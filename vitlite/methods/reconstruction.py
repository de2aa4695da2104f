"""What the methods share that reconstruct a picture and call anomalous what they cannot: range, map and score."""

from dataclasses import dataclass

import torch

from vitlite.methods.base import Method, TrainingConfig, check_choice, check_least
from vitlite.nn.augment import KINDS, augment
from vitlite.nn.maps import SmoothUpsample


@dataclass(frozen=True)
class ReconstructionConfig(TrainingConfig):
    """Settings of every such method."""

    augment: str = "none"  # none | flip | affine (random rotation, shift, scale and flips)
    sigma: float = 4.0  # pixels of image_size, Gaussian filter of the map
    score: str = "max"  # of the map: max | mean | std


class Reconstruction(Method):
    """Base of the methods whose features are the pictures themselves.

    Pictures in [0, 1] come to the network as 2 x - 1, in [-1, 1]: the range of the tanh that ends every decoder, and
    the normalisation (mean and deviation 0.5) that the published ViT-B/16 weights at 384 were trained with.
    """

    cache_as = "uint8"

    def __init__(self, config):
        super().__init__(config)
        self.smooth = SmoothUpsample(config.image_size, config.image_size, config.sigma)

    def reconstruct(self, target):
        """Pictures (B, 3, S, S) in [-1, 1] to their reconstructions, same shape and range, float32."""
        raise NotImplementedError

    def residual(self, target, output):
        """Anomaly of every pixel before smoothing (B, S, S): the L2 distance over the channels."""
        return (target - output).square().sum(1).sqrt()

    def targets(self, features):
        """The pictures of a training batch, changed at random as the config says, in [-1, 1]."""
        return to_network(augment(features.float(), self.config.augment))

    def scored(self, target):
        """What of the pictures is reconstructed for scoring; ``residual`` brings it back to the pictures' shape."""
        return target

    def loss(self, features):
        """Mean squared difference over all values."""
        target = self.targets(features)
        return {"loss": (target - self.reconstruct(target)).square().mean()}

    @torch.no_grad()
    def anomaly_from(self, features):
        target = self.scored(to_network(features.float()))
        maps = self.smooth(self.residual(target, self.reconstruct(target)))
        return maps, reduce_map(maps, self.config.score)


def to_network(images):
    """[0, 1] to [-1, 1]."""
    return 2 * images - 1


def reduce_map(maps, how):
    """Maps (B, S, S) to one score each (B,)."""
    pixels = maps.flatten(1)
    if how == "max":
        return pixels.amax(1)
    return pixels.mean(1) if how == "mean" else pixels.std(1, correction=0)


def check_reconstruction(config):
    """ValueError names the key of ``ReconstructionConfig`` that cannot be."""
    check_choice(config, "augment", KINDS)
    check_choice(config, "score", ("max", "mean", "std"))


def check_channels(config):
    """ValueError where a decoder's ``channels`` cannot be numbers of channels."""
    if not config.channels or min(config.channels) < 1:
        raise ValueError(f"channels={','.join(map(str, config.channels))}: numbers of at least 1, one for each block")


def check_encoder(config):
    """ValueError names what a ViT encoder of this config cannot be: keys image_size, patch, dim, depth, heads."""
    check_least(config, 1, "patch", "dim", "depth", "heads")
    if config.image_size % config.patch:
        raise ValueError(f"patch={config.patch}: does not divide image_size={config.image_size}")
    if config.image_size < 2 * config.patch:
        raise ValueError(f"patch={config.patch}: leaves fewer than 2 x 2 patches of image_size={config.image_size}")
    if config.dim % config.heads:
        raise ValueError(f"heads={config.heads}: does not divide dim={config.dim}")
